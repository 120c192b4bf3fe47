/* timer.h: one-shot timers in a binary heap ordered by (due time, order of starting). One thread; free of gRPC; the
 * clock is the caller's. */
#ifndef GATEHOUSE_CORE_RPC_TIMER_H
#define GATEHOUSE_CORE_RPC_TIMER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct core_rpc_timer;

struct timer_heap {
  struct core_rpc_timer **slots;
  size_t count;
  size_t capacity;
  uint64_t started; /* sequence of the next timer */
};

struct core_rpc_timer *timer_heap_start(struct timer_heap *heap, int64_t due_ms, void (*task)(void *argument),
                                        void *argument);
/* The timer must be pending in its heap. */
void timer_cancel(struct core_rpc_timer *timer);
/* When the first one is due; INT64_MAX when there is none. */
int64_t timer_heap_due_ms(const struct timer_heap *heap);
/* Runs what is due at now_ms, but no timer started meanwhile. Returns how many ran. */
size_t timer_heap_run(struct timer_heap *heap, int64_t now_ms);
/* Frees all timers without running them. */
void timer_heap_clear(struct timer_heap *heap);

#endif
