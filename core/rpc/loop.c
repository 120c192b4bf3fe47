/* loop.c: the core thread: one completion queue, posted closures, timers, and the order of ending (T2).
 *
 * Waking the completion queue from another thread: gRPC 1.51 has no injectable event, but an empty batch on a call puts
 * its tag into the call's queue at once. So the loop owns a call on a channel that leads nowhere, never started, whose
 * only purpose are empty batches. The post queue coalesces: at most one wake is under way.
 *
 * Ending: listeners close; grpc_server_shutdown_and_notify; a grace timer, then everything is cancelled; when the
 * server is down and no call of ours lives, the post queue is closed; only then the completion queue is shut down and
 * drained. */
#include "core/rpc/core_rpc_internal.h"
#include "core/rpc/socket_calls.h"

#include <grpc/support/log.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/clock.h"
#include "sdk/base/crash.h"
#include "sdk/base/log.h"
#include "sdk/base/watchdog.h"

#define LOOP_MAGIC 0xC04e100bu

enum {
  EXIT_STUCK = 70,
  CLIENT_LINGER_MS = 100, /* for calls of ours that still run when the server is down */
};

static _Thread_local const struct core_rpc_loop *loop_of_this_thread;

struct core_rpc_loop *loop_check(struct core_rpc_loop *loop) {
  BASE_CHECK_MAGIC(loop, LOOP_MAGIC);
  return loop;
}

static gpr_timespec timespec_from_monotonic_ms(int64_t ms) {
  return (gpr_timespec){
      .tv_sec = ms / 1000, .tv_nsec = (int32_t)(ms % 1000) * 1000000, .clock_type = GPR_CLOCK_MONOTONIC};
}

gpr_timespec rpc_deadline_after_ms(int64_t timeout_ms) {
  if (timeout_ms == INT64_MAX)
    return gpr_inf_future(GPR_CLOCK_MONOTONIC);
  int64_t due_ms;
  if (__builtin_add_overflow(clock_monotonic_ms(), timeout_ms < 0 ? 0 : timeout_ms, &due_ms))
    return gpr_inf_future(GPR_CLOCK_MONOTONIC);
  return timespec_from_monotonic_ms(due_ms);
}

/* ---- posting ---- */

static void loop_wake(void *argument) {
  struct core_rpc_loop *loop = argument;
  grpc_call_error error = grpc_call_start_batch(loop->wake_call, NULL, 0, &loop->wake_tag, NULL);
  BASE_CHECK(error == GRPC_CALL_OK);
}

static void loop_on_wake(struct rpc_tag *tag, bool ok) {
  struct core_rpc_loop *loop = RPC_OWNER(tag, struct core_rpc_loop, wake_tag);
  (void)ok;
  (void)post_queue_run(&loop->posts);
  loop_check_end(loop);
}

bool core_rpc_post(struct core_rpc_loop *loop, core_rpc_task *task, void *argument) {
  return post_queue_push(&loop_check(loop)->posts, task, argument);
}

bool core_rpc_on_core_thread(const struct core_rpc_loop *loop) {
  return loop_of_this_thread == loop;
}

/* ---- timers ---- */

struct core_rpc_timer *core_rpc_timer_start(struct core_rpc_loop *loop, uint64_t delay_ms, core_rpc_task *task,
                                            void *argument) {
  loop_check(loop);
  int64_t due_ms;
  if (__builtin_add_overflow(clock_monotonic_ms(), delay_ms, &due_ms))
    due_ms = INT64_MAX;
  return timer_heap_start(&loop->timers, due_ms, task, argument);
}

void core_rpc_timer_cancel(struct core_rpc_timer **timer) {
  if (*timer != NULL)
    timer_cancel(BASE_TAKE(*timer));
}

/* ---- ending ---- */

static void loop_on_stuck(void *argument) {
  struct core_rpc_loop *loop = argument;
  loop->stuck_timer = NULL;
  log_event(LOG_FATAL, RPC_ROOM, "calls did not end after they were cancelled; leaving",
            LOG_INT("server_calls", loop->server_calls), LOG_INT("client_calls", loop->client_calls));
  if (loop->options.on_stuck != NULL)
    loop->options.on_stuck(loop->options.on_stuck_user);
  else
    _exit(EXIT_STUCK);
}

static void loop_cancel_all(struct core_rpc_loop *loop) {
  loop->phase = LOOP_CANCELLING;
  core_rpc_timer_cancel(&loop->grace_timer);
  loop->stuck_timer = core_rpc_timer_start(loop, loop->options.stuck_exit_ms, loop_on_stuck, loop);
  grpc_server_cancel_all_calls(loop->server);
  for (struct core_rpc_channel *channel = loop->channels; channel != NULL; channel = channel->next)
    client_calls_cancel(channel);
}

static void loop_on_grace_over(void *argument) {
  struct core_rpc_loop *loop = argument;
  loop->grace_timer = NULL;
  loop_cancel_all(loop);
}

static void loop_on_server_down(struct rpc_tag *tag, bool ok) {
  struct core_rpc_loop *loop = RPC_OWNER(tag, struct core_rpc_loop, shutdown_tag);
  (void)ok;
  loop->server_down = true;
  loop_check_end(loop);
}

void loop_check_end(struct core_rpc_loop *loop) {
  if (loop->phase == LOOP_SERVING || loop->phase == LOOP_ENDED || !loop->server_down || loop->server_calls > 0)
    return;
  if (loop->client_calls > 0) {
    if (loop->phase == LOOP_DRAINING && !loop->lingering) { /* answers of our own server may be on their way to us */
      loop->lingering = true;
      core_rpc_timer_cancel(&loop->grace_timer);
      loop->grace_timer = core_rpc_timer_start(loop, CLIENT_LINGER_MS, loop_on_grace_over, loop);
    }
    return;
  }
  if (!post_queue_close(&loop->posts))
    return; /* a wake is under way and leads back here */
  loop->phase = LOOP_ENDED;
  core_rpc_timer_cancel(&loop->grace_timer);
  core_rpc_timer_cancel(&loop->stuck_timer);
  grpc_completion_queue_shutdown(loop->queue);
}

struct stop_order {
  struct core_rpc_loop *loop;
  uint32_t grace_ms;
};

static void loop_on_stop(void *argument) {
  struct stop_order order = *(struct stop_order *)argument;
  base_free(argument);
  struct core_rpc_loop *loop = order.loop;
  if (loop->phase > LOOP_DRAINING)
    return;
  if (loop->phase == LOOP_SERVING) {
    loop->phase = LOOP_DRAINING;
    listeners_close_all(loop);
    grpc_server_shutdown_and_notify(loop->server, loop->queue, &loop->shutdown_tag);
    calls_drain(loop);
  }
  if (loop->lingering)
    return;
  core_rpc_timer_cancel(&loop->grace_timer); /* the latest order counts */
  loop->grace_timer = core_rpc_timer_start(loop, order.grace_ms, loop_on_grace_over, loop);
}

void core_rpc_loop_stop(struct core_rpc_loop *loop, uint32_t grace_ms) {
  struct stop_order *order = base_alloc(sizeof(*order));
  *order = (struct stop_order){.loop = loop_check(loop), .grace_ms = grace_ms};
  if (!core_rpc_post(loop, loop_on_stop, order))
    base_free(order);
}

/* ---- life ---- */

static void options_fill(struct core_rpc_options *options) {
  const struct core_rpc_options defaults = {.message_max_bytes = 4u << 20,
                                            .metadata_max_bytes = 16u << 10,
                                            .in_flight_max = 1024,
                                            .send_queue_max_bytes = 1u << 20,
                                            .stuck_exit_ms = 5000};
#define OPTION_DEFAULT(field) options->field = options->field != 0 ? options->field : defaults.field
  OPTION_DEFAULT(message_max_bytes);
  OPTION_DEFAULT(metadata_max_bytes);
  OPTION_DEFAULT(in_flight_max);
  OPTION_DEFAULT(send_queue_max_bytes);
  OPTION_DEFAULT(stuck_exit_ms);
#undef OPTION_DEFAULT
}

static void server_create(struct core_rpc_loop *loop) {
  const struct core_rpc_options *options = &loop->options;
#define INTEGER_ARGUMENT(key_, value_)                                                                                 \
  {.type = GRPC_ARG_INTEGER, .key = (char *)(uintptr_t)(key_), .value.integer = (int)(value_)}
  grpc_arg list[] = {
      INTEGER_ARGUMENT(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, options->message_max_bytes),
      INTEGER_ARGUMENT(GRPC_ARG_MAX_METADATA_SIZE, options->metadata_max_bytes),
      INTEGER_ARGUMENT(GRPC_ARG_MAX_CONCURRENT_STREAMS, options->in_flight_max),
      INTEGER_ARGUMENT(GRPC_ARG_ENABLE_CHANNELZ, 0),
      INTEGER_ARGUMENT(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0), /* of answers; compressed requests are inflated */
      INTEGER_ARGUMENT(GRPC_ARG_HTTP2_BDP_PROBE, 0),                /* a Unix socket has no bandwidth to find out */
  };
#undef INTEGER_ARGUMENT
  grpc_channel_args arguments = {.num_args = sizeof(list) / sizeof(list[0]), .args = list};
  loop->server = grpc_server_create(&arguments, NULL);
  loop->credentials = grpc_insecure_server_credentials_create();
  grpc_server_register_completion_queue(loop->server, loop->queue, NULL);
}

/* gRPC's own words, as lines of our log; they are for operators only. What gRPC calls an error is a peer's doing
 * mostly. */
static void grpc_on_log(gpr_log_func_args *line) {
  enum log_level level = line->severity == GPR_LOG_SEVERITY_DEBUG ? LOG_DEBUG : LOG_WARN;
  log_event(level, RPC_ROOM, "gRPC says", LOG_TEXT("text", line->message), LOG_TEXT("file", line->file),
            LOG_INT("line", line->line));
}

/* Debian builds Abseil with its debug checks, so every lock inside gRPC feeds a deadlock detector; without it the
 * server answers 7 % more calls (64 in flight, measured with both ends of this room). The switch is C++ only, hence the
 * name; weak, because another build of Abseil names it otherwise and has it off. */
extern void abseil_deadlock_detection_set(int mode) __asm__(
    "_ZN4absl7debian329SetMutexDeadlockDetectionModeENS0_15OnDeadlockCycleE") __attribute__((weak));

static void abseil_tune(void) {
  enum { IGNORE_CYCLES = 0 };
  if (abseil_deadlock_detection_set != NULL)
    abseil_deadlock_detection_set(IGNORE_CYCLES);
}

/* Connection numbers never repeat soon (peer.c), so the core wants as many descriptors as it may have. */
static void descriptor_limit_raise(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
  }
}

struct core_rpc_loop *core_rpc_loop_create(const struct core_rpc_options *options) {
  struct core_rpc_loop *loop = BASE_NEW(struct core_rpc_loop);
  loop->magic = LOOP_MAGIC;
  if (options != NULL)
    loop->options = *options;
  options_fill(&loop->options);
  descriptor_limit_raise();
  peer_numbers_prepare();
  sigset_t before; /* the threads made here inherit the mask: signals go to the process's own (T14) */
  crash_signals_block_others(&before);
  gpr_set_log_function(grpc_on_log);
  abseil_tune();
  grpc_init();
  TAILQ_INIT(&loop->unwatched);
  loop->queue = grpc_completion_queue_create_for_next(NULL);
  server_create(loop);
  loop->wake_channel = grpc_lame_client_channel_create("wake", GRPC_STATUS_UNAVAILABLE, "wake");
  loop->wake_call =
      grpc_channel_create_call(loop->wake_channel, NULL, GRPC_PROPAGATE_DEFAULTS, loop->queue,
                               grpc_slice_from_static_string("/wake"), NULL, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
  loop->wake_tag.complete = loop_on_wake;
  loop->shutdown_tag.complete = loop_on_server_down;
  post_queue_init(&loop->posts, loop_wake, loop);
  loop->peers = peer_table_create();
  io_thread_start(&loop->io);
  loop->hangups = hangup_watch_create(loop);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return loop;
}

/* By a timer like any other: fed, it proves that completions are handed out and handlers come back. */
static void loop_on_turn(void *argument) {
  struct core_rpc_loop *loop = argument;
  watchdog_loop_feed(loop->watchdog);
  (void)core_rpc_timer_start(loop, watchdog_feed_ms(), loop_on_turn, loop);
}

void core_rpc_loop_run(struct core_rpc_loop *loop) {
  loop_check(loop);
  BASE_CHECK(!loop->started);
  loop->started = true;
  loop_of_this_thread = loop;
  socket_calls_bursts_set(true);
  server_start(loop);
  loop->watchdog = watchdog_loop_begin("the core thread");
  if (loop->watchdog != NULL)
    loop_on_turn(loop);
  for (;;) {
    int64_t due_ms = timer_heap_due_ms(&loop->timers);
    gpr_timespec deadline =
        due_ms == INT64_MAX ? gpr_inf_future(GPR_CLOCK_MONOTONIC) : timespec_from_monotonic_ms(due_ms);
    grpc_event event = grpc_completion_queue_next(loop->queue, deadline, NULL);
    if (event.type == GRPC_QUEUE_SHUTDOWN)
      break;
    if (event.type == GRPC_OP_COMPLETE) {
      struct rpc_tag *tag = event.tag;
      tag->complete(tag, event.success != 0);
    }
    if (loop->timers.count > 0 && loop->phase != LOOP_ENDED)
      (void)timer_heap_run(&loop->timers, clock_monotonic_ms());
  }
  watchdog_loop_end(&loop->watchdog);
  socket_calls_bursts_set(false);
  loop_of_this_thread = NULL;
}

void core_rpc_loop_free(struct core_rpc_loop **loop_handle) {
  struct core_rpc_loop *loop = BASE_TAKE(*loop_handle);
  if (loop == NULL)
    return;
  loop_check(loop);
  if (!loop->started) { /* the server must be shut down in order even when it never served */
    core_rpc_loop_stop(loop, 0);
    core_rpc_loop_run(loop);
  }
  BASE_CHECK(loop->phase == LOOP_ENDED);
  io_thread_stop(&loop->io);
  hangup_watch_free(&loop->hangups);
  while (loop->channels != NULL) {
    struct core_rpc_channel *channel = loop->channels;
    core_rpc_channel_close(&channel);
  }
  peer_table_free(&loop->peers);
  listeners_free_all(loop);
  io_thread_free(&loop->io);
  timer_heap_clear(&loop->timers);
  health_free(loop);
  reflection_free(loop);
  server_free(loop);
  grpc_call_unref(loop->wake_call);
  grpc_channel_destroy(loop->wake_channel);
  grpc_server_destroy(loop->server);
  grpc_server_credentials_release(loop->credentials);
  grpc_completion_queue_destroy(loop->queue);
  grpc_shutdown_blocking();
  loop->magic = 0;
  base_free(loop);
}
