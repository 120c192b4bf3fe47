/* loop_test.c: the core thread: posting from many threads, timers, and ending in order with work still running (T2,
 * T3). */
#include <signal.h>

#include "core/rpc/test_harness.h"

enum { THREADS = 4, POSTS = 20000 };

static unsigned long posted_sum;

static void add_one(void *argument) {
  (void)argument;
  posted_sum++;
}

static void *post_many(void *argument) {
  for (unsigned i = 0; i < POSTS; i++)
    if (!core_rpc_post(argument, add_one, NULL))
      return (void *)1;
  return NULL;
}

START_TEST(posts_of_many_threads_all_run_while_calls_are_served) {
  struct harness harness;
  harness_start(&harness);
  struct probe stream = {
      .request = {.method = "/test.v1.Test/Count", .kind = CORE_RPC_SERVER_STREAM, .data = "20000 100", .length = 9}};
  probe_begin(&harness, &stream);
  pthread_t threads[THREADS];
  for (size_t i = 0; i < THREADS; i++)
    pthread_create(&threads[i], NULL, post_many, harness.loop);
  for (size_t i = 0; i < THREADS; i++) {
    void *failed;
    pthread_join(threads[i], &failed);
    ck_assert_ptr_null(failed);
  }
  probe_wait(&stream);
  ck_assert_int_eq(stream.grpc_status, 0);
  WAIT_UNTIL(posted_sum == (unsigned long)THREADS * POSTS);
  buf_free(&stream.data);
  harness_stop(&harness, 1000);
}
END_TEST

static void note_thread(void *argument) {
  *(pthread_t *)argument = pthread_self();
}

START_TEST(a_post_and_an_io_post_run_on_their_threads) {
  struct harness harness;
  harness_start(&harness);
  pthread_t core, io = 0;
  harness_on_core(&harness, note_thread, &core);
  ck_assert(pthread_equal(core, harness.thread));
  ck_assert(core_rpc_io_post(harness.loop, note_thread, &io));
  WAIT_UNTIL(__atomic_load_n(&io, __ATOMIC_ACQUIRE) != 0);
  ck_assert(!pthread_equal(io, core));
  ck_assert(!core_rpc_on_core_thread(harness.loop));
  ck_assert_ptr_nonnull(core_rpc_io_base(harness.loop));
  harness_stop(&harness, 1000);
}
END_TEST

struct ticking {
  struct core_rpc_loop *loop;
  struct core_rpc_timer *cancelled, *pending;
  int64_t started_ms, took_ms[3];
  atomic_uint ticks;
  bool wrong;
};

static void tick(void *argument) {
  struct ticking *ticking = argument;
  unsigned number = atomic_load(&ticking->ticks);
  ticking->took_ms[number] = clock_monotonic_ms() - ticking->started_ms;
  atomic_store(&ticking->ticks, number + 1);
}

static void tick_wrong(void *argument) {
  ((struct ticking *)argument)->wrong = true;
}

static void ticking_start(void *argument) {
  struct ticking *ticking = argument;
  ticking->started_ms = clock_monotonic_ms();
  core_rpc_timer_start(ticking->loop, 40, tick, ticking);
  core_rpc_timer_start(ticking->loop, 0, tick, ticking);
  core_rpc_timer_start(ticking->loop, 20, tick, ticking);
  ticking->cancelled = core_rpc_timer_start(ticking->loop, 10, tick_wrong, ticking);
  ticking->pending = core_rpc_timer_start(ticking->loop, UINT64_MAX, tick_wrong, ticking);
  core_rpc_timer_cancel(&ticking->cancelled);
  core_rpc_timer_cancel(&ticking->cancelled); /* nulled: nothing */
}

START_TEST(timers_fire_in_time_on_an_idle_loop) {
  struct harness harness;
  harness_start(&harness);
  struct ticking ticking = {.loop = harness.loop};
  harness_on_core(&harness, ticking_start, &ticking);
  WAIT_UNTIL(atomic_load(&ticking.ticks) == 3);
  for (int i = 0; i < 3; i++) {
    ck_assert_int_ge(ticking.took_ms[i], 20 * i);
    ck_assert_int_lt(ticking.took_ms[i], 20 * i + 10000); /* and not when something else wakes the loop */
  }
  ck_assert(!ticking.wrong);
  harness_stop(&harness, 1000);
}
END_TEST

static void ignore(int number) {
  (void)number;
}

/* The watchdog's looks are signals (sdk/base/watchdog.h). */
START_TEST(timers_fire_in_time_while_signals_keep_coming) {
  struct harness harness;
  signal(SIGALRM, ignore);
  harness_start(&harness);
  struct ticking ticking = {.loop = harness.loop};
  int64_t end_ms = clock_monotonic_ms() + 20000;
  harness_on_core(&harness, ticking_start, &ticking);
  while (atomic_load(&ticking.ticks) < 3 && clock_monotonic_ms() < end_ms) {
    pthread_kill(harness.thread, SIGALRM);
    usleep(5000);
  }
  ck_assert_uint_eq(atomic_load(&ticking.ticks), 3);
  ck_assert_int_lt(ticking.took_ms[2], 10000);
  harness_stop(&harness, 1000);
}
END_TEST

START_TEST(a_loop_that_never_ran_can_be_freed) {
  struct harness harness;
  harness_prepare(&harness, NULL);
  core_rpc_loop_free(&harness.loop);
  ck_assert_ptr_null(harness.loop);
  harness_remove_directory(&harness);
}
END_TEST

START_TEST(stopping_lets_a_running_call_finish_within_the_grace_time) {
  struct harness harness;
  harness_start(&harness);
  const struct core_rpc_metadata late = {"x-late-ms", "200", 3};
  struct probe probe = {
      .request = {.method = "/test.v1.Test/Echo", .data = "x", .length = 1, .metadata = &late, .metadata_count = 1}};
  struct probe before = {.request = {.method = "/test.v1.Test/Echo"}};
  probe_run(&harness, &before); /* connected */
  probe_begin(&harness, &probe);
  WAIT_UNTIL(__atomic_load_n(&test_service_state.late, __ATOMIC_RELAXED) == 1);
  int64_t took_ms = harness_stop(&harness, 15000);
  ck_assert(atomic_load(&probe.done));
  ck_assert_int_eq(probe.grpc_status, 0);
  ck_assert_int_lt(took_ms, 14000); /* it did not wait for the grace time to pass */
  buf_free(&before.data);
  buf_free(&probe.data);
}
END_TEST

START_TEST(stopping_cancels_streams_and_held_calls_after_the_grace_time) {
  struct harness harness;
  harness_start(&harness);
  static struct probe probes[4];
  for (unsigned i = 0; i < 4; i++) {
    probes[i] = (struct probe){.request = {.method = i < 2 ? "/test.v1.Test/Count" : "/test.v1.Test/Hold",
                                           .kind = i < 2 ? CORE_RPC_SERVER_STREAM : CORE_RPC_UNARY,
                                           .data = "1000000000 100",
                                           .length = 14,
                                           .manual_read = i == 1}}; /* a reader that does not read (T3) */
    probe_begin(&harness, &probes[i]);
  }
  WAIT_UNTIL(test_service_state.held == 2 && atomic_load(&probes[0].messages) > 1000);
  int64_t took_ms = harness_stop(&harness, 100);
  ck_assert_int_lt(took_ms, 15000); /* before the calls' own deadlines */
  for (unsigned i = 0; i < 4; i++) {
    ck_assert(atomic_load(&probes[i].done));
    ck_assert_int_ne(probes[i].grpc_status, 0);
    buf_free(&probes[i].data);
  }
  ck_assert_uint_eq(test_service_state.cancelled, 4);
  ck_assert_uint_eq(test_service_state.freed, 4);
}
END_TEST

START_TEST(after_the_end_nothing_is_posted_any_more) {
  struct harness harness;
  harness_start(&harness);
  core_rpc_loop_stop(harness.loop, 0);
  core_rpc_loop_stop(harness.loop, 10);
  pthread_join(harness.thread, NULL);
  ck_assert(!core_rpc_post(harness.loop, add_one, NULL));
  core_rpc_loop_stop(harness.loop, 0);
  core_rpc_loop_free(&harness.loop);
  harness_remove_directory(&harness);
}
END_TEST

static struct core_rpc_call *forgotten;
static atomic_uint stuck;

static void forget(struct core_rpc_call *call, void *user) {
  (void)user;
  forgotten = call;
}

static void on_stuck(void *user) {
  (void)user;
  atomic_fetch_add(&stuck, 1);
  core_rpc_call_fail_code(forgotten, ERR_UNAVAILABLE); /* so that the test itself ends */
}

START_TEST(a_call_that_its_handler_forgot_does_not_hold_the_process_for_ever) {
  static const struct core_rpc_method method = {"/test.v1.Forget/Forget", CORE_RPC_UNARY, forget, NULL};
  struct harness harness;
  harness_prepare(&harness, &(struct core_rpc_options){.stuck_exit_ms = 100, .on_stuck = on_stuck});
  core_rpc_server_register(harness.loop, &method, 1);
  harness_go(&harness);
  struct probe probe = {.request = {.method = "/test.v1.Forget/Forget"}};
  probe_begin(&harness, &probe);
  WAIT_UNTIL(__atomic_load_n(&forgotten, __ATOMIC_ACQUIRE) != NULL);
  harness_stop(&harness, 10);
  ck_assert_uint_eq(stuck, 1);
}
END_TEST

TEST_MAIN("core_rpc.loop", posts_of_many_threads_all_run_while_calls_are_served,
          a_post_and_an_io_post_run_on_their_threads, timers_fire_in_time_on_an_idle_loop,
          timers_fire_in_time_while_signals_keep_coming, a_loop_that_never_ran_can_be_freed,
          stopping_lets_a_running_call_finish_within_the_grace_time,
          stopping_cancels_streams_and_held_calls_after_the_grace_time, after_the_end_nothing_is_posted_any_more,
          a_call_that_its_handler_forgot_does_not_hold_the_process_for_ever)
