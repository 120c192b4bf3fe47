/* deadline.c: many deadlines behind one libevent timer: a binary heap whose nodes sit in the calls. Adding and removing
 * is cheap for the common call that ends in time: the timer is only moved when an earlier deadline comes, and a timer
 * that fires too early (its call is gone) arms itself for the next one. */
#include "sdk/rpc/rpc_internal.h"

static void slot_set(struct rpc_deadlines *deadlines, uint32_t slot, struct rpc_deadline *deadline) {
  deadlines->heap[slot] = deadline;
  deadline->heap_slot = slot;
}

static void sift_up(struct rpc_deadlines *deadlines, uint32_t slot, struct rpc_deadline *deadline) {
  while (slot > 1 && deadlines->heap[slot / 2]->at_us > deadline->at_us) {
    slot_set(deadlines, slot, deadlines->heap[slot / 2]);
    slot /= 2;
  }
  slot_set(deadlines, slot, deadline);
}

static void sift_down(struct rpc_deadlines *deadlines, uint32_t slot, struct rpc_deadline *deadline) {
  for (;;) {
    uint32_t child = slot * 2;
    if (child > deadlines->count)
      break;
    if (child < deadlines->count && deadlines->heap[child + 1]->at_us < deadlines->heap[child]->at_us)
      child++;
    if (deadlines->heap[child]->at_us >= deadline->at_us)
      break;
    slot_set(deadlines, slot, deadlines->heap[child]);
    slot = child;
  }
  slot_set(deadlines, slot, deadline);
}

static void timer_arm(struct rpc_deadlines *deadlines, int64_t at_us) {
  if (at_us >= deadlines->armed_us)
    return;
  int64_t wait_us = at_us - clock_monotonic_us();
  if (wait_us < 0)
    wait_us = 0;
  deadlines->armed_us = at_us;
  struct timeval timeout = {.tv_sec = (time_t)(wait_us / 1000000), .tv_usec = (suseconds_t)(wait_us % 1000000)};
  BASE_CHECK(event_add(&deadlines->timer, &timeout) == 0);
}

static void timer_fired(evutil_socket_t fd, short what, void *arg) {
  (void)fd;
  (void)what;
  struct rpc_deadlines *deadlines = arg;
  deadlines->armed_us = INT64_MAX;
  int64_t now_us = clock_monotonic_us();
  if (deadlines->count > 0 && deadlines->heap[1]->at_us <= now_us) {
    struct rpc_deadline *deadline = deadlines->heap[1];
    rpc_deadlines_remove(deadlines, deadline);
    if (deadlines->count > 0)
      timer_arm(deadlines, deadlines->heap[1]->at_us);
    deadlines->expired(deadline, deadlines->arg); /* may free us: the next one, if due, has its own turn */
  } else if (deadlines->count > 0) {
    timer_arm(deadlines, deadlines->heap[1]->at_us);
  }
}

void rpc_deadlines_init(struct rpc_deadlines *deadlines, struct event_base *base,
                        void (*expired)(struct rpc_deadline *deadline, void *arg), void *arg) {
  *deadlines = (struct rpc_deadlines){.armed_us = INT64_MAX, .expired = expired, .arg = arg};
  BASE_CHECK(event_assign(&deadlines->timer, base, -1, 0, timer_fired, deadlines) == 0);
}

void rpc_deadlines_free(struct rpc_deadlines *deadlines) {
  BASE_CHECK(deadlines->count == 0);
  event_del(&deadlines->timer);
  base_free(deadlines->heap);
  deadlines->heap = NULL;
}

void rpc_deadlines_add(struct rpc_deadlines *deadlines, struct rpc_deadline *deadline, int64_t at_us) {
  BASE_CHECK(deadline->heap_slot == 0);
  if (deadlines->count + 2 > deadlines->capacity) {
    deadlines->capacity = deadlines->capacity == 0 ? 64 : deadlines->capacity * 2;
    deadlines->heap = base_realloc_array(deadlines->heap, deadlines->capacity, sizeof(*deadlines->heap));
  }
  deadline->at_us = at_us;
  sift_up(deadlines, ++deadlines->count, deadline);
  timer_arm(deadlines, deadlines->heap[1]->at_us);
}

void rpc_deadlines_remove(struct rpc_deadlines *deadlines, struct rpc_deadline *deadline) {
  uint32_t slot = deadline->heap_slot;
  if (slot == 0)
    return;
  deadline->heap_slot = 0;
  struct rpc_deadline *last = deadlines->heap[deadlines->count--];
  if (last == deadline)
    return;
  if (slot > 1 && deadlines->heap[slot / 2]->at_us > last->at_us)
    sift_up(deadlines, slot, last);
  else
    sift_down(deadlines, slot, last);
}
