/* timer.c: the heap of one-shot timers behind core_rpc_timer_start(). Each timer knows its slot, so that cancelling is
 * O(log n) without a search. */
#include "core/rpc/timer.h"

#include "sdk/base/alloc.h"
#include "sdk/base/check.h"

#define TIMER_MAGIC 0x71Ae12d0u

struct core_rpc_timer {
  uint32_t magic;
  struct timer_heap *heap;
  size_t slot;
  int64_t due_ms;
  uint64_t sequence;
  void (*task)(void *argument);
  void *argument;
};

static bool timer_is_before(const struct core_rpc_timer *a, const struct core_rpc_timer *b) {
  return a->due_ms != b->due_ms ? a->due_ms < b->due_ms : a->sequence < b->sequence;
}

static void heap_put(struct timer_heap *heap, size_t slot, struct core_rpc_timer *timer) {
  heap->slots[slot] = timer;
  timer->slot = slot;
}

static void heap_rise(struct timer_heap *heap, size_t slot, struct core_rpc_timer *timer) {
  while (slot > 0) {
    size_t parent = (slot - 1) / 2;
    if (!timer_is_before(timer, heap->slots[parent]))
      break;
    heap_put(heap, slot, heap->slots[parent]);
    slot = parent;
  }
  heap_put(heap, slot, timer);
}

static void heap_sink(struct timer_heap *heap, size_t slot, struct core_rpc_timer *timer) {
  for (;;) {
    size_t child = 2 * slot + 1;
    if (child >= heap->count)
      break;
    if (child + 1 < heap->count && timer_is_before(heap->slots[child + 1], heap->slots[child]))
      child++;
    if (!timer_is_before(heap->slots[child], timer))
      break;
    heap_put(heap, slot, heap->slots[child]);
    slot = child;
  }
  heap_put(heap, slot, timer);
}

static void heap_remove(struct timer_heap *heap, struct core_rpc_timer *timer) {
  size_t slot = timer->slot;
  struct core_rpc_timer *last = heap->slots[--heap->count];
  if (last == timer)
    return;
  if (slot > 0 && timer_is_before(last, heap->slots[(slot - 1) / 2]))
    heap_rise(heap, slot, last);
  else
    heap_sink(heap, slot, last);
}

struct core_rpc_timer *timer_heap_start(struct timer_heap *heap, int64_t due_ms, void (*task)(void *argument),
                                        void *argument) {
  if (heap->count == heap->capacity) {
    heap->capacity = heap->capacity == 0 ? 16 : heap->capacity * 2;
    heap->slots = base_realloc_array(heap->slots, heap->capacity, sizeof(*heap->slots));
  }
  struct core_rpc_timer *timer = BASE_NEW(struct core_rpc_timer);
  *timer = (struct core_rpc_timer){.magic = TIMER_MAGIC,
                                   .heap = heap,
                                   .due_ms = due_ms,
                                   .sequence = heap->started++,
                                   .task = task,
                                   .argument = argument};
  heap_rise(heap, heap->count++, timer);
  return timer;
}

void timer_cancel(struct core_rpc_timer *timer) {
  BASE_CHECK_MAGIC(timer, TIMER_MAGIC);
  heap_remove(timer->heap, timer);
  timer->magic = 0;
  base_free(timer);
}

int64_t timer_heap_due_ms(const struct timer_heap *heap) {
  return heap->count == 0 ? INT64_MAX : heap->slots[0]->due_ms;
}

size_t timer_heap_run(struct timer_heap *heap, int64_t now_ms) {
  uint64_t fence = heap->started;
  size_t ran = 0;
  while (heap->count > 0 && heap->slots[0]->due_ms <= now_ms && heap->slots[0]->sequence < fence) {
    struct core_rpc_timer *timer = heap->slots[0];
    heap_remove(heap, timer);
    timer->magic = 0;
    void (*task)(void *) = timer->task;
    void *argument = timer->argument;
    base_free(timer);
    task(argument);
    ran++;
  }
  return ran;
}

void timer_heap_clear(struct timer_heap *heap) {
  for (size_t i = 0; i < heap->count; i++)
    base_free(heap->slots[i]);
  base_free(heap->slots);
  *heap = (struct timer_heap){.started = heap->started};
}
