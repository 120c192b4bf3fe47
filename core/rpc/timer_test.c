/* timer_test.c: the heap of one-shot timers. */
#include "core/rpc/timer.h"

#include "sdk/base/alloc.h"
#include "sdk/base/test.h"

enum { MANY = 2000 };

static int fired[MANY];
static size_t fired_count;

static void note(void *argument) {
  fired[fired_count++] = (int)(size_t)argument;
}

START_TEST(timers_fire_by_due_time_then_by_start) {
  struct timer_heap heap = {0};
  const int64_t due[] = {50, 10, 30, 10, 20};
  for (size_t i = 0; i < 5; i++)
    timer_heap_start(&heap, due[i], note, (void *)i);
  ck_assert_int_eq(timer_heap_due_ms(&heap), 10);
  ck_assert_uint_eq(timer_heap_run(&heap, 30), 4);
  const int expected[] = {1, 3, 4, 2};
  for (size_t i = 0; i < 4; i++)
    ck_assert_int_eq(fired[i], expected[i]);
  ck_assert_int_eq(timer_heap_due_ms(&heap), 50);
  timer_heap_clear(&heap);
  ck_assert_int_eq(timer_heap_due_ms(&heap), INT64_MAX);
}
END_TEST

START_TEST(a_cancelled_timer_never_fires_and_the_others_keep_their_order) {
  struct timer_heap heap = {0};
  struct core_rpc_timer *timers[MANY];
  unsigned seed = 1;
  for (size_t i = 0; i < MANY; i++) {
    seed = seed * 1103515245u + 12345u;
    timers[i] = timer_heap_start(&heap, (int64_t)(seed >> 16) % 500, note, (void *)i);
  }
  for (size_t i = 0; i < MANY; i += 3)
    timer_cancel(timers[i]);
  size_t kept = MANY - (MANY + 2) / 3;
  int64_t last = -1;
  while (heap.count > 0) {
    int64_t due_ms = timer_heap_due_ms(&heap);
    ck_assert_int_gt(due_ms, last);
    last = due_ms;
    ck_assert_uint_gt(timer_heap_run(&heap, due_ms), 0);
  }
  ck_assert_uint_eq(fired_count, kept);
  for (size_t i = 0; i < fired_count; i++)
    ck_assert_int_ne(fired[i] % 3, 0);
  timer_heap_clear(&heap);
}
END_TEST

static struct timer_heap restarting;

static void start_again(void *argument) {
  note(argument);
  timer_heap_start(&restarting, 0, start_again, argument);
}

START_TEST(a_timer_that_starts_itself_at_once_does_not_starve_the_loop) {
  timer_heap_start(&restarting, 0, start_again, NULL);
  ck_assert_uint_eq(timer_heap_run(&restarting, 5), 1);
  ck_assert_uint_eq(timer_heap_run(&restarting, 5), 1);
  timer_heap_clear(&restarting);
}
END_TEST

TEST_MAIN("core_rpc.timer", timers_fire_by_due_time_then_by_start,
          a_cancelled_timer_never_fires_and_the_others_keep_their_order,
          a_timer_that_starts_itself_at_once_does_not_starve_the_loop)
