/* child.c: the life of one child as a table [state][event] → function that returns the next state.
 *
 *                 START     READY   STOP      KILL    TRACE     EXIT      TIMER     ALIVE
 *   down          spawn     -       -         -       -         -         -         -
 *   starting      -         up      end       kill    trace     death     too late  -
 *   up            -         -       end       kill    trace     death     silent    feed
 *   stopping      -         -       -         kill    -         death     kill      -
 *   back-off      spawn     -       cancel    cancel  cancel    -         spawn     -
 *   tracing       -         -       end       kill    -         death     kill      -
 *
 * The process is held by its pidfd; its number is never used to signal it but for its session's stragglers, while the
 * dead leader is not yet collected and the number cannot be anyone else's. Nothing here allocates after child_init. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/clock.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"
#include "sdk/base/watchdog.h"
#include "supervisor/supervisor_internal.h"

/* From the end of the control channel to the end of the core, which closes it on its way out. */
#define LEAVING_MS 1000
/* For a process to write its last words between SIGABRT and SIGKILL. */
#define TRACE_MS 500
#define PIPE_READ_BYTES 16384
#define PIPE_READS_MAX 8 /* in one turn of the loop, so that a talkative child starves nobody */

static void timer_arm(struct child *child, uint32_t delay_ms) {
  struct timeval delay = {.tv_sec = delay_ms / 1000, .tv_usec = (suseconds_t)(delay_ms % 1000) * 1000};
  event_add(&child->timer, &delay);
}

static void send_signal(struct child *child, int number) {
  if (pidfd_send_signal(child->pidfd, number, NULL, 0) != 0 && errno != ESRCH)
    log_event(LOG_ERROR, "supervisor", "a signal could not be sent", LOG_TEXT("module", child->id),
              LOG_INT("signal", number), LOG_TEXT("error", strerrorname_np(errno)));
}

static void read_pipe(struct child *child) {
  char data[PIPE_READ_BYTES];
  for (unsigned i = 0; i < PIPE_READS_MAX; i++) {
    ssize_t count = read(child->pipe_read, data, sizeof(data));
    if (count <= 0)
      return;
    words_feed(&child->words, child->id, STDERR_FILENO, data, (size_t)count);
  }
}

bool child_restarts(const struct child *child, const struct child_death *death) {
  if (child->held || child->role != CHILD_CURRENT || child->supervisor->phase != SUPERVISOR_RUNNING)
    return false;
  bool left = death->cause == supervisor_control_v1_ExitCause_EXIT_CAUSE_STATUS;
  if (left && death->status == EXIT_STATUS_STAY_DOWN)
    return false;
  bool failed =
      death->cause != supervisor_control_v1_ExitCause_EXIT_CAUSE_CLEAN && !(left && death->status == EXIT_STATUS_USAGE);
  return child->restart == CONFIG_RESTART_ALWAYS || (child->restart == CONFIG_RESTART_ON_FAILURE && failed);
}

/* It said, or the kernel did, that another start now would end the same way. */
static bool death_is_hopeless(const struct child_death *death) {
  bool left = death->cause == supervisor_control_v1_ExitCause_EXIT_CAUSE_STATUS;
  return death->cause == supervisor_control_v1_ExitCause_EXIT_CAUSE_SPAWN ||
         (left && (death->status == EXIT_STATUS_USAGE || death->status == EXIT_STATUS_ENVIRONMENT));
}

/* Decides what follows a death and records it in *death. */
static void plan(struct child *child, struct child_death *death, bool restart) {
  death->next_step = supervisor_control_v1_NextStep_NEXT_STEP_DOWN;
  death->delay_ms = 0;
  if (child->is_core && core_program_goes_back(child->supervisor, death)) { /* whatever it says of itself */
    death->next_step = supervisor_control_v1_NextStep_NEXT_STEP_RESTART_NOW;
    return;
  }
  if (!restart)
    return;
  const struct backoff_life life = {.uptime_ms = death->uptime_ms,
                                    .ready_ms = death->ready_ms,
                                    .ready = death->was_ready,
                                    .hopeless = death_is_hopeless(death)};
  death->delay_ms = backoff_next(&child->backoff, &life, (uint32_t)id_random_u64());
  death->next_step = death->delay_ms == 0 ? supervisor_control_v1_NextStep_NEXT_STEP_RESTART_NOW
                                          : supervisor_control_v1_NextStep_NEXT_STEP_RESTART_LATER;
}

static enum child_state wait_or_settle(struct child *child, const struct child_death *death) {
  if (death->next_step == supervisor_control_v1_NextStep_NEXT_STEP_RESTART_LATER &&
      child->supervisor->phase == SUPERVISOR_RUNNING) { /* the news itself may have begun the stop */
    timer_arm(child, death->delay_ms);
    return CHILD_BACKOFF;
  }
  return CHILD_DOWN;
}

static void on_exit_event(evutil_socket_t fd, short what, void *context) {
  (void)fd;
  (void)what;
  child_happens(context, CHILD_EVENT_EXIT);
}

/* ---- actions --------------------------------------------------------------------------------------------------------
 */

static enum child_state do_spawn(struct child *child);

/* At once, later, or not at all. */
static enum child_state follow(struct child *child, const struct child_death *death) {
  if (death->next_step == supervisor_control_v1_NextStep_NEXT_STEP_RESTART_NOW &&
      child->supervisor->phase == SUPERVISOR_RUNNING)
    return do_spawn(child);
  return wait_or_settle(child, death);
}

static enum child_state spawn_failed(struct child *child, const struct spawn_result *result) {
  struct child_death death = {.cause = supervisor_control_v1_ExitCause_EXIT_CAUSE_SPAWN,
                              .wall_us = clock_wall_us(),
                              .generation = child->generation,
                              .error_name = strerrorname_np(result->error),
                              .step = result->step};
  plan(child, &death, child_restarts(child, &death));
  child->last_death = death;
  child->deaths++;
  child->state = CHILD_DOWN; /* what is called from here on finds it so */
  supervisor_child_died(child, &death);
  return follow(child, &death);
}

static enum child_state do_spawn(struct child *child) {
  struct supervisor *supervisor = child->supervisor;
  struct spawn_result result;
  event_del(&child->timer);
  if (supervisor->phase != SUPERVISOR_RUNNING)
    return CHILD_DOWN;
  if (child->is_core)
    core_program_happens(supervisor, CORE_EVENT_SPAWN, "");
  if (child->is_core && !link_open(supervisor)) {
    timer_arm(child, BACKOFF_LONGEST_MS / 30);
    return CHILD_BACKOFF;
  }
  child->generation = rundir_generation_next(supervisor);
  child->ready = child->restart_wanted = false;
  child->config_given = 0;
  child->ending = supervisor_control_v1_ExitCause_EXIT_CAUSE_UNSPECIFIED;
  child->status[0] = '\0';
  words_reset(&child->words);
  child->starts++;
  image_renew(supervisor, child);
  sandbox_cgroup_begin(&child->image.sandbox);
  if (!spawn_run(&child->image, child->generation, &result)) {
    if (child->is_core)
      link_close(supervisor);
    return spawn_failed(child, &result);
  }
  child->pid = result.pid;
  child->pidfd = result.pidfd;
  child->spawned_us = clock_monotonic_us();
  event_assign(&child->exit_event, supervisor->base, child->pidfd, EV_READ, on_exit_event, child);
  event_add(&child->exit_event, NULL);
  if (child->is_core)
    link_attach(supervisor, child->generation);
  if (child->start_watched)
    timer_arm(child, child->start_timeout_ms);
  supervisor_child_spawned(child);
  return CHILD_STARTING;
}

static void become_ready(struct child *child) {
  if (child->ready)
    return;
  child->ready = true;
  child->ready_us = clock_monotonic_us();
  upward_news(child->supervisor);
}

void child_proven(struct child *child) {
  become_ready(child);
  if (!child->proven_us)
    child->proven_us = clock_monotonic_us();
}

static enum child_state do_ready(struct child *child) {
  become_ready(child);
  child->alive_us = clock_monotonic_us();
  event_del(&child->timer);
  if (child->watchdog_ms > 0)
    timer_arm(child, child->watchdog_ms);
  return CHILD_UP;
}

static enum child_state do_feed(struct child *child) {
  child->alive_us = clock_monotonic_us();
  if (child->watchdog_ms > 0)
    timer_arm(child, child->watchdog_ms);
  return CHILD_UP;
}

static enum child_state do_end(struct child *child) {
  child->ending = supervisor_control_v1_ExitCause_EXIT_CAUSE_STOPPED;
  send_signal(child, SIGTERM);
  send_signal(child, SIGCONT); /* a stopped process cannot hear */
  timer_arm(child, child->grace_ms);
  return CHILD_STOPPING;
}

static enum child_state do_kill(struct child *child) {
  if (child->state != CHILD_TRACING) /* whose end has its reason already */
    child->ending = supervisor_control_v1_ExitCause_EXIT_CAUSE_KILLED;
  send_signal(child, SIGKILL);
  return child->state;
}

/* It hangs, or is given up: it may say where, but not for long. */
static enum child_state trace(struct child *child, supervisor_control_v1_ExitCause cause) {
  child->ending = cause;
  send_signal(child, SIGABRT);
  send_signal(child, SIGCONT); /* a stopped process cannot hear */
  timer_arm(child, TRACE_MS);
  return CHILD_TRACING;
}

static enum child_state do_trace(struct child *child) {
  return trace(child, supervisor_control_v1_ExitCause_EXIT_CAUSE_KILLED);
}

static enum child_state do_start_timeout(struct child *child) {
  log_event(LOG_ERROR, "supervisor", "not ready in time: killed", LOG_TEXT("module", child->id),
            LOG_INT("generation", child->generation));
  return trace(child, supervisor_control_v1_ExitCause_EXIT_CAUSE_START_TIMEOUT);
}

static enum child_state do_watchdog(struct child *child) {
  log_event(LOG_ERROR, "supervisor", "no sign of life: killed", LOG_TEXT("module", child->id),
            LOG_INT("generation", child->generation));
  return trace(child, supervisor_control_v1_ExitCause_EXIT_CAUSE_WATCHDOG);
}

static enum child_state do_cancel(struct child *child) {
  event_del(&child->timer);
  return CHILD_DOWN;
}

static void describe(const struct child *child, const siginfo_t *info, struct child_death *death) {
  *death = (struct child_death){.wall_us = clock_wall_us(),
                                .generation = child->generation,
                                .uptime_ms = (uint64_t)(clock_monotonic_us() - child->spawned_us) / 1000,
                                .pid = child->pid,
                                .was_ready = child->ready};
  if (info->si_code == CLD_EXITED)
    death->status = info->si_status;
  else
    death->signal = info->si_status;
  if (child->ready)
    death->ready_ms = (uint64_t)(clock_monotonic_us() - child->ready_us) / 1000;
  bool by_us = child->ending == supervisor_control_v1_ExitCause_EXIT_CAUSE_STOPPED || death->signal == SIGKILL ||
               (child->state == CHILD_TRACING && death->signal == SIGABRT);
  if (child->ending != supervisor_control_v1_ExitCause_EXIT_CAUSE_UNSPECIFIED && by_us)
    death->cause = child->ending; /* one that left by itself just before our SIGKILL keeps its own cause */
  else if (death->status == EXIT_STATUS_MEMORY || sandbox_cgroup_ran_out(&child->image.sandbox, death->signal))
    death->cause = supervisor_control_v1_ExitCause_EXIT_CAUSE_MEMORY;
  else if (death->status == EXIT_STATUS_HANG)
    death->cause = supervisor_control_v1_ExitCause_EXIT_CAUSE_WATCHDOG;
  else if (death->signal)
    death->cause = supervisor_control_v1_ExitCause_EXIT_CAUSE_SIGNAL;
  else
    death->cause = death->status ? supervisor_control_v1_ExitCause_EXIT_CAUSE_STATUS
                                 : supervisor_control_v1_ExitCause_EXIT_CAUSE_CLEAN;
}

_Static_assert((int)EXIT_STATUS_MEMORY == BASE_EXIT_OUT_OF_MEMORY && (int)EXIT_STATUS_HANG == WATCHDOG_EXIT_HANG,
               "what our own processes end with");

static enum child_state do_death(struct child *child) {
  siginfo_t info = {0};
  struct child_death death;
  event_del(&child->exit_event);
  event_del(&child->timer);
  kill(-child->pid, SIGKILL); /* what it left behind in its session, before its number is free again */
  while (waitid(P_PIDFD, (id_t)child->pidfd, &info, WEXITED) != 0 && errno == EINTR)
    continue;
  describe(child, &info, &death);
  close(child->pidfd);
  child->pidfd = -1;
  child->pid = 0;
  child->proven_us = 0;
  bool ordered = child->state == CHILD_STOPPING;
  if (child->is_core)
    link_close(child->supervisor);
  if (child->runtime_socket)
    rundir_socket_remove(child);
  if (ordered) {
    bool again = child->restart_wanted && !child->held && child->supervisor->phase == SUPERVISOR_RUNNING;
    death.next_step =
        again ? supervisor_control_v1_NextStep_NEXT_STEP_RESTART_NOW : supervisor_control_v1_NextStep_NEXT_STEP_DOWN;
  } else {
    child->deaths++;
    plan(child, &death, child_restarts(child, &death));
  }
  child->last_death = death;
  child->state = CHILD_DOWN; /* what is called from here on finds it so */
  read_pipe(child);
  words_finish(&child->words, child->id, STDERR_FILENO);
  child->last_words = child->words.kept;
  supervisor_child_died(child, &death);
  return follow(child, &death);
}

/* ---- the machine ----------------------------------------------------------------------------------------------------
 */

typedef enum child_state child_action(struct child *child);

static child_action *const machine[CHILD_STATE_COUNT][CHILD_EVENT_COUNT] = {
    [CHILD_DOWN] = {[CHILD_EVENT_START] = do_spawn},
    [CHILD_STARTING] = {[CHILD_EVENT_READY] = do_ready,
                        [CHILD_EVENT_STOP] = do_end,
                        [CHILD_EVENT_KILL] = do_kill,
                        [CHILD_EVENT_TRACE] = do_trace,
                        [CHILD_EVENT_EXIT] = do_death,
                        [CHILD_EVENT_TIMER] = do_start_timeout},
    [CHILD_UP] = {[CHILD_EVENT_STOP] = do_end,
                  [CHILD_EVENT_KILL] = do_kill,
                  [CHILD_EVENT_TRACE] = do_trace,
                  [CHILD_EVENT_EXIT] = do_death,
                  [CHILD_EVENT_TIMER] = do_watchdog,
                  [CHILD_EVENT_ALIVE] = do_feed},
    [CHILD_STOPPING] = {[CHILD_EVENT_KILL] = do_kill, [CHILD_EVENT_EXIT] = do_death, [CHILD_EVENT_TIMER] = do_kill},
    [CHILD_BACKOFF] = {[CHILD_EVENT_START] = do_spawn,
                       [CHILD_EVENT_STOP] = do_cancel,
                       [CHILD_EVENT_KILL] = do_cancel,
                       [CHILD_EVENT_TRACE] = do_cancel,
                       [CHILD_EVENT_TIMER] = do_spawn},
    [CHILD_TRACING] = {[CHILD_EVENT_STOP] = do_end,
                       [CHILD_EVENT_KILL] = do_kill,
                       [CHILD_EVENT_EXIT] = do_death,
                       [CHILD_EVENT_TIMER] = do_kill},
};

void child_happens(struct child *child, enum child_event event) {
  BASE_CHECK_MAGIC(child, CHILD_MAGIC);
  child_action *action = machine[child->state][event];
  if (!action)
    return;
  child->state = action(child);
  if (child->state == CHILD_DOWN)
    supervisor_child_settled(child);
}

void child_stop(struct child *child, uint32_t grace_ms, bool restart) {
  child->grace_ms = grace_ms ? grace_ms : child->stop_grace_ms;
  child->restart_wanted = restart;
  child_happens(child, CHILD_EVENT_STOP);
}

void child_hold(struct child *child, bool held, const char *reason, const char *code) {
  child->held = held;
  bool plain = code[strspn(code, "abcdefghijklmnopqrstuvwxyz._")] == '\0'; /* it goes into JSON as it is */
  str_copy(child->hold_code, sizeof(child->hold_code), held && plain ? code : "");
  upward_news(child->supervisor);
  str_copy(child->hold_reason, sizeof(child->hold_reason), held ? reason : "");
  if (held && child->state == CHILD_BACKOFF)
    child_happens(child, CHILD_EVENT_STOP);
}

void child_expect_end(struct child *child) {
  if (child->state == CHILD_STARTING || child->state == CHILD_UP)
    timer_arm(child, LEAVING_MS);
}

bool child_is_running(const struct child *child) {
  return child->state == CHILD_STARTING || child->state == CHILD_UP || child->state == CHILD_STOPPING ||
         child->state == CHILD_TRACING;
}

static void on_timer(evutil_socket_t fd, short what, void *context) {
  (void)fd;
  (void)what;
  child_happens(context, CHILD_EVENT_TIMER);
}

static void on_pipe(evutil_socket_t fd, short what, void *context) {
  (void)fd;
  (void)what;
  read_pipe(context);
}

bool child_init(struct child *child, struct event_base *base, struct error *err) {
  int ends[2];
  child->magic = CHILD_MAGIC;
  child->pidfd = child->pipe_read = child->image.output_fd = -1;
  if (pipe2(ends, O_CLOEXEC) != 0)
    return error_set(err, ERR_IO, "a pipe cannot be made: %s", strerrorname_np(errno));
  child->pipe_read = spawn_descriptor_raise(ends[0]);
  child->image.output_fd = spawn_descriptor_raise(ends[1]);
  child->image.input_fd = child->supervisor->null_fd;
  if (child->pipe_read < 0 || child->image.output_fd < 0 || fcntl(child->pipe_read, F_SETFL, O_NONBLOCK) != 0)
    return error_set(err, ERR_IO, "a pipe cannot be kept: %s", strerrorname_np(errno));
  event_assign(&child->exit_event, base, -1, EV_READ, on_exit_event, child);
  event_assign(&child->pipe_event, base, child->pipe_read, EV_READ | EV_PERSIST, on_pipe, child);
  evtimer_assign(&child->timer, base, on_timer, child);
  event_add(&child->pipe_event, NULL);
  return true;
}

void child_free(struct child *child) {
  if (child->magic != CHILD_MAGIC)
    return;
  event_del(&child->exit_event);
  event_del(&child->pipe_event);
  event_del(&child->timer);
  if (child->pidfd >= 0)
    close(child->pidfd);
  if (child->pipe_read >= 0)
    close(child->pipe_read);
  if (child->image.output_fd >= 0)
    close(child->image.output_fd);
  child->magic = 0;
}
