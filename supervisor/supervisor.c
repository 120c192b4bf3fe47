/* supervisor.c: start order, signals, the order of the stop, and what follows from a child's news.
 *
 * A supervisor whose loop hangs restarts nobody and cannot be asked: it says where and ends (sdk/base/watchdog.h). Its
 * children end with it, and whoever started it (systemd, a container's runtime) starts everything again. */
#include "supervisor/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sdk/base/alloc.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"
#include "sdk/base/watchdog.h"
#include "supervisor/supervisor_internal.h"

struct child *supervisor_child_find(struct supervisor *supervisor, const char *id) {
  for (size_t i = 0; i < supervisor->child_count; i++)
    if (!supervisor->children[i].removed && str_equal(supervisor->children[i].id, id))
      return &supervisor->children[i];
  return NULL;
}

/* ---- stopping -------------------------------------------------------------------------------------------------------
 */

static bool modules_are_down(const struct supervisor *supervisor) {
  for (size_t i = 1; i < supervisor->child_count; i++)
    if (supervisor->children[i].state != CHILD_DOWN)
      return false;
  return true;
}

/* Modules first, then the core, then we. Called whenever something may have become true. */
static void stop_further(struct supervisor *supervisor) {
  struct child *core = &supervisor->children[0];
  if (supervisor->phase == SUPERVISOR_STOPPING_MODULES && modules_are_down(supervisor)) {
    supervisor->phase = SUPERVISOR_STOPPING_CORE;
    child_stop(core, 0, false);
  }
  if (supervisor->phase == SUPERVISOR_STOPPING_CORE && core->state == CHILD_DOWN)
    event_base_loopbreak(supervisor->base);
}

void supervisor_stop(struct supervisor *supervisor, int exit_status, const char *reason) {
  if (supervisor->phase != SUPERVISOR_RUNNING) {
    log_event(LOG_WARN, "supervisor", "stopping at once", LOG_TEXT("reason", reason));
    for (size_t i = 0; i < supervisor->child_count; i++)
      if (child_is_running(&supervisor->children[i]) && (i > 0 || supervisor->phase == SUPERVISOR_STOPPING_CORE))
        child_happens(&supervisor->children[i], CHILD_EVENT_KILL);
    return;
  }
  log_event(LOG_INFO, "supervisor", "stopping", LOG_TEXT("reason", reason));
  supervisor->phase = SUPERVISOR_STOPPING_MODULES;
  supervisor->exit_status = exit_status;
  upward_stopping(supervisor, reason);
  for (size_t i = 1; i < supervisor->child_count; i++)
    child_stop(&supervisor->children[i], 0, false);
  stop_further(supervisor);
}

/* Orphans of children come to us (subreaper, or process 1 of a container): collected here. Our own children are left to
 * their pidfd. */
static void collect_strays(struct supervisor *supervisor) {
  for (;;) {
    siginfo_t info = {0};
    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0)
      return;
    for (size_t i = 0; i < supervisor->child_count; i++)
      if (supervisor->children[i].pid == info.si_pid && child_is_running(&supervisor->children[i]))
        return; /* its own event comes, and calls us again */
    if (supervisor->core_describe.pid == info.si_pid || supervisor->alerts.pid == info.si_pid)
      return; /* as well */
    waitid(P_PID, (id_t)info.si_pid, &info, WEXITED | WNOHANG);
  }
}

/* ---- news of children -----------------------------------------------------------------------------------------------
 */

void supervisor_child_spawned(struct child *child) {
  log_event(LOG_INFO, "supervisor", "started", LOG_TEXT("module", child->id), LOG_INT("generation", child->generation),
            LOG_INT("pid", child->pid), LOG_INT("starts", child->starts));
  upward_news(child->supervisor);
  link_say_spawned(child->supervisor, child);
}

void supervisor_child_notified(struct child *child) {
  log_event(LOG_INFO, "supervisor", child->ready ? "ready" : "status", LOG_TEXT("module", child->id),
            LOG_INT("generation", child->generation), LOG_TEXT("status", child->status));
  upward_news(child->supervisor);
  if (child->is_core && child->ready)
    reload_core_ready(child->supervisor);
  link_say_notified(child->supervisor, child);
}

static void log_death(const struct child *child, const struct child_death *death) {
  if (death->cause == supervisor_control_v1_ExitCause_EXIT_CAUSE_SPAWN)
    log_event(LOG_ERROR, "supervisor", "could not be started", LOG_TEXT("module", child->id),
              LOG_TEXT("program", child->image.path), LOG_TEXT("step", death->step),
              LOG_TEXT("error", death->error_name), LOG_INT("next_ms", death->delay_ms));
  else
    log_event(death->cause == supervisor_control_v1_ExitCause_EXIT_CAUSE_STOPPED ? LOG_INFO : LOG_WARN, "supervisor",
              "ended", LOG_TEXT("module", child->id), LOG_INT("generation", death->generation),
              LOG_INT("cause", death->cause), LOG_INT("status", death->status), LOG_INT("signal", death->signal),
              LOG_INT("uptime_ms", death->uptime_ms), LOG_INT("next_step", death->next_step),
              LOG_INT("next_ms", death->delay_ms));
}

/* Statuses of the core that mean: another start cannot help. */
static bool core_gives_up(const struct child_death *death) {
  return death->cause == supervisor_control_v1_ExitCause_EXIT_CAUSE_STATUS &&
         (death->status == EXIT_STATUS_USAGE || death->status == EXIT_STATUS_STAY_DOWN);
}

void supervisor_child_died(struct child *child, const struct child_death *death) {
  struct supervisor *supervisor = child->supervisor;
  log_death(child, death);
  link_say_death(supervisor, child, death);
  collect_strays(supervisor);
  upward_news(supervisor);
  alerts_child_died(child, death);
  if (!child->is_core || supervisor->phase != SUPERVISOR_RUNNING || core_program_is_changing(supervisor))
    return;
  if (core_gives_up(death))
    supervisor_stop(supervisor, death->status, "the core gave up");
  else if (death->cause == supervisor_control_v1_ExitCause_EXIT_CAUSE_SPAWN && child->starts == 1)
    supervisor_stop(supervisor, EXIT_STATUS_ENVIRONMENT, "the core's program cannot be executed");
}

void supervisor_child_settled(struct child *child) {
  reload_child_settled(child);
  refusals_update(child->supervisor);
  stop_further(child->supervisor);
}

/* ---- signals --------------------------------------------------------------------------------------------------------
 */

static void on_terminate(evutil_socket_t number, short what, void *context) {
  (void)what;
  supervisor_stop(context, EXIT_STATUS_OK, number == SIGINT ? "SIGINT" : "SIGTERM");
}

static void on_hangup(evutil_socket_t number, short what, void *context) {
  (void)number;
  (void)what;
  reload_run(context);
}

static void on_child_signal(evutil_socket_t number, short what, void *context) {
  (void)number;
  (void)what;
  collect_strays(context);
}

static void catch_signals(struct supervisor *supervisor) {
  static const struct {
    int number;
    event_callback_fn call;
  } caught[] = {{SIGTERM, on_terminate}, {SIGINT, on_terminate}, {SIGHUP, on_hangup}, {SIGCHLD, on_child_signal}};
  signal(SIGPIPE, SIG_IGN);
  for (size_t i = 0; i < sizeof(caught) / sizeof(caught[0]); i++) {
    evsignal_assign(&supervisor->signal_events[i], supervisor->base, caught[i].number, caught[i].call, supervisor);
    evsignal_add(&supervisor->signal_events[i], NULL);
  }
}

/* ---- the watch over our own loop ------------------------------------------------------------------------------------
 */

static void on_turn(evutil_socket_t fd, short what, void *context) {
  const struct supervisor *supervisor = context;
  (void)fd;
  (void)what;
  watchdog_loop_feed(supervisor->watchdog);
}

static void watch_begin(struct supervisor *supervisor) {
  watchdog_start((uint32_t)supervisor->config->supervisor_hang_ms);
  uint32_t feed_ms = watchdog_feed_ms();
  const struct timeval period = {.tv_sec = feed_ms / 1000, .tv_usec = (suseconds_t)(feed_ms % 1000) * 1000};
  if (feed_ms == 0)
    return;
  event_assign(&supervisor->turn_event, supervisor->base, -1, EV_PERSIST, on_turn, supervisor);
  event_add(&supervisor->turn_event, &period);
  supervisor->watchdog = watchdog_loop_begin("the supervisor");
}

static void watch_end(struct supervisor *supervisor) {
  watchdog_loop_end(&supervisor->watchdog);
  event_end(&supervisor->turn_event);
}

/* ---- starting -------------------------------------------------------------------------------------------------------
 */

static void log_fatal(const char *message, const struct error *err) {
  log_error_value(LOG_FATAL, "supervisor", message, err);
}

static bool prepare_children(struct supervisor *supervisor, struct error *err) {
  const struct config *config = supervisor->config;
  supervisor->child_count = config->modules_count + 1;
  supervisor->children = base_calloc(SUPERVISOR_CHILDREN_MAX, sizeof(struct child)); /* they never move */
  for (size_t i = 0; i < supervisor->child_count; i++) {
    struct child *child = &supervisor->children[i];
    child->supervisor = supervisor;
    child->config = i > 0 ? &config->modules[i - 1] : NULL;
    if (!image_identity_prepare(supervisor, child, err))
      return false;
  }
  return true;
}

static bool start_children(struct supervisor *supervisor, struct error *err) {
  core_program_init(supervisor);
  if (!alerts_prepare(supervisor, err))
    return false;
  for (size_t i = 1; i < supervisor->child_count; i++)
    image_module_begin(supervisor, &supervisor->children[i]);
  for (size_t i = 0; i < supervisor->child_count; i++) {
    struct child *child = &supervisor->children[i];
    if (child->is_core)
      image_core_prepare(supervisor, child);
    else
      image_module_prepare(supervisor, child);
    if (!child_init(child, supervisor->base, err))
      return false;
    child_hold(child, child->config && !child->config->enabled, "not enabled in the configuration", "");
  }
  child_happens(&supervisor->children[0], CHILD_EVENT_START);
  return true;
}

static bool prepare(struct supervisor *supervisor, struct error *err) {
  const struct config *config = supervisor->config;
  id_uuid_v4(supervisor->boot_id);
  supervisor->notify_path = base_asprintf("%s/notify.sock", config->run_dir);
  supervisor->null_fd = spawn_descriptor_raise(open("/dev/null", O_RDWR | O_CLOEXEC));
  supervisor->base = event_base_new();
  if (supervisor->null_fd < 0 || !supervisor->base)
    return error_set(err, ERR_IO, "the event loop cannot be made: %s", strerrorname_np(errno));
  prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  supervisor->listeners = base_calloc(config->listeners_count + 1, sizeof(struct listener));
  for (size_t i = 0; i < config->listeners_count; i++)
    supervisor->listeners[i].fd = -1;
  return prepare_children(supervisor, err) && alerts_identity_prepare(supervisor, err) &&
         rundir_prepare(supervisor, err) && rundir_config_write(supervisor, err) && listeners_open(supervisor, err) &&
         notify_open(supervisor, err);
}

static void release(struct supervisor *supervisor) {
  link_close(supervisor);
  core_describe_free(supervisor);
  alerts_free(supervisor);
  core_program_free(supervisor);
  refusals_close(supervisor);
  for (size_t i = 0; i < supervisor->child_count; i++) {
    child_free(&supervisor->children[i]);
    image_free(&supervisor->children[i].image);
    process_free(&supervisor->children[i]);
  }
  base_free(supervisor->children);
  notify_close(supervisor);
  if (supervisor->listeners)
    listeners_close(supervisor->listeners, supervisor->config->listeners_count);
  base_free(supervisor->listeners);
  for (size_t i = 0; i < sizeof(supervisor->signal_events) / sizeof(supervisor->signal_events[0]); i++)
    event_end(&supervisor->signal_events[i]);
  upward_close(supervisor);
  if (supervisor->base)
    event_base_free(supervisor->base);
  if (supervisor->watch_fd >= 0)
    close(supervisor->watch_fd);
  if (supervisor->null_fd >= 0)
    close(supervisor->null_fd);
  base_free(supervisor->notify_path);
  reload_free(supervisor);
  if (supervisor->lock_fd >= 0)
    close(supervisor->lock_fd); /* last: another supervisor may begin now */
}

int supervisor_run(const struct config *config, const struct config_source *source) {
  struct supervisor supervisor = {.config = config,
                                  .source = source,
                                  .lock_fd = -1,
                                  .null_fd = -1,
                                  .notify_fd = -1,
                                  .watch_fd = -1,
                                  .exit_status = EXIT_STATUS_OK};
  struct error err = {0};
  upward_open(&supervisor);
  link_init(&supervisor);
  refusals_init(&supervisor);
  if (!prepare(&supervisor, &err)) {
    int error = error_is(&err, ERR_SUPERVISOR_LISTEN) ? errno : 0;
    log_fatal("the gateway cannot be started", &err);
    supervisor.exit_status = error_is(&err, ERR_CONFIG_VALUE) || error_is(&err, ERR_SUPERVISOR_HANDED)
                                 ? EXIT_STATUS_USAGE
                                 : EXIT_STATUS_ENVIRONMENT;
    upward_failed(&supervisor, &err, error);
  } else {
    catch_signals(&supervisor);
    upward_watch(&supervisor);
    supervisor_check(config);
    privileges_drop(&supervisor);
    if (start_children(&supervisor, &err)) {
      watch_begin(&supervisor);
      if (supervisor.phase == SUPERVISOR_RUNNING || supervisor.children[0].state != CHILD_DOWN)
        event_base_dispatch(supervisor.base);
      watch_end(&supervisor);
      log_event(LOG_INFO, "supervisor", "stopped");
    } else {
      log_fatal("the gateway cannot be started", &err);
      supervisor.exit_status = EXIT_STATUS_ENVIRONMENT;
      upward_failed(&supervisor, &err, 0);
    }
  }
  release(&supervisor);
  return supervisor.exit_status;
}
