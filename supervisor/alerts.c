/* alerts.c: tells operators what they have to know, by a program of theirs (LIF-8, LIF-10, LIF-11). The core raises an
 * alert by an order (RaiseAlert); that a process dies again and again, the core among them, is found here. For each
 * alert `alerts.program` is run once, confined like a module, with the alert as JSON on its standard input and in a few
 * variables of its environment, and with nothing else.
 *
 * One runs at a time, in the order in which they were raised. Status 0 means that it was told; else it is run again
 * after a pause, `alerts.attempts` times at most. So each alert is told at least once, within these bounds: a program
 * that always fails, a queue that is full (ALERTS_WAITING_MAX; how many were lost is said with the next), and the end
 * of the supervisor. What lasts is told once until it ended, also when a new core raises it again; what is raised again
 * while it waits is one alert with a count. More than `alerts.per_minute` runs wait.
 *
 * Nothing waits for any of it: raising copies into a fixed queue and sets a timer, also on the restart path, and the
 * program is started from the loop, after what is due has been done. It is killed with its session after
 * `alerts.timeout_ms`. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sdk/base/alloc.h"
#include "sdk/base/buf.h"
#include "sdk/base/clock.h"
#include "sdk/base/io.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"
#include "supervisor/supervisor_internal.h"

#define NAME "alerts"
#define SOON_MS 20    /* so that a restart that is due comes first */
#define STORM_WAITS 3 /* pauses in a row before a restart: see backoff.h */
#define CALM_MS 10000 /* of being ready, and a storm is over */
#define MINUTE_US 60000000

#define BIT(condition) (1u << CONFIG_ALERT_##condition)

const char *const alert_variable_names[ALERT_VARIABLE_COUNT] = {[ALERT_VARIABLE_ID] = "ID",
                                                                [ALERT_VARIABLE_CONDITION] = "CONDITION",
                                                                [ALERT_VARIABLE_SEVERITY] = "SEVERITY",
                                                                [ALERT_VARIABLE_MODULE] = "MODULE",
                                                                [ALERT_VARIABLE_GENERATION] = "GENERATION",
                                                                [ALERT_VARIABLE_REASON] = "REASON",
                                                                [ALERT_VARIABLE_ATTEMPT] = "ATTEMPT"};

static void arm(struct event *timer, int64_t delay_us) {
  const struct timeval delay = {.tv_sec = delay_us / 1000000, .tv_usec = delay_us % 1000000};
  event_add(timer, &delay);
}

/* ---- what is news ---------------------------------------------------------------------------------------------------
 */

/* NULL: there is no place, and everything counts as news. */
static struct alert_subject *subject_of(struct alerts *alerts, const char *module) {
  for (size_t i = 0; i < ALERT_SUBJECTS_MAX; i++) {
    struct alert_subject *subject = &alerts->subjects[i];
    if (!subject->module[0])
      str_copy(subject->module, sizeof(subject->module), module);
    if (str_equal(subject->module, module))
      return subject;
  }
  return NULL;
}

/* Whether it is to be told, by what was told before of that module. */
static bool is_news(struct alert_subject *subject, enum config_alert condition, uint64_t generation, bool wanted) {
  unsigned before = subject->open;
  switch (condition) {
  case CONFIG_ALERT_QUARANTINED: /* nothing less is to be said any more */
    subject->open = wanted ? BIT(QUARANTINED) : 0;
    return wanted && !(before & BIT(QUARANTINED));
  case CONFIG_ALERT_DEGRADED:
  case CONFIG_ALERT_RESTART_STORM:
    subject->open |= wanted ? 1u << condition : 0;
    return wanted && !(before >> condition & 1);
  case CONFIG_ALERT_RELEASED:
    subject->open &= ~BIT(QUARANTINED);
    return wanted;
  case CONFIG_ALERT_RECOVERED:
    subject->open &= BIT(QUARANTINED);
    return wanted && (before & (BIT(DEGRADED) | BIT(RESTART_STORM)));
  default: /* a new core may say once more what the one before did */
    if (!wanted || (generation && subject->event == condition && subject->event_generation == generation))
      return false;
    subject->event = condition;
    subject->event_generation = generation;
    return true;
  }
}

static void waiting_remove(struct alerts *alerts, size_t index) {
  memmove(&alerts->waiting[index], &alerts->waiting[index + 1],
          (--alerts->waiting_count - index) * sizeof(alerts->waiting[0]));
}

/* The newest that waits of that module, where the new one says the same or more: it takes its place. */
static struct alert *waiting_of(struct alerts *alerts, enum config_alert condition, const char *module) {
  for (size_t i = alerts->waiting_count; i > (alerts->pid ? 1 : 0); i--) {
    struct alert *alert = &alerts->waiting[i - 1];
    bool lesser =
        condition == CONFIG_ALERT_QUARANTINED && ((BIT(DEGRADED) | BIT(RESTART_STORM)) >> alert->condition & 1);
    if (str_equal(alert->module, module))
      return alert->condition == condition || lesser ? alert : NULL;
  }
  return NULL;
}

void alerts_raise(struct supervisor *supervisor, enum config_alert condition, const char *module, uint64_t generation,
                  int64_t at_ms, const char *reason) {
  struct alerts *alerts = &supervisor->alerts;
  struct alert_subject unknown = {0}, *subject = subject_of(alerts, module), *known = subject ? subject : &unknown;
  const struct alert_subject before = *known;
  if (!alerts->configured || supervisor->phase != SUPERVISOR_RUNNING ||
      !is_news(known, condition, generation, config_alert_is_wanted(supervisor->config, condition)))
    return;
  struct alert *alert = waiting_of(alerts, condition, module);
  if (!alert && alerts->waiting_count == ALERTS_WAITING_MAX) {
    *known = before; /* it may be said again */
    alerts->lost++;
    log_event(LOG_ERROR, "supervisor", "an alert is lost: too many wait", LOG_TEXT("module", module),
              LOG_TEXT("condition", config_alert_name(condition)), LOG_TEXT("reason", reason));
    link_say_alerts(supervisor);
    return;
  }
  if (!alert) {
    alert = &alerts->waiting[alerts->waiting_count++];
    *alert = (struct alert){.number = ++alerts->raised};
    str_copy(alert->module, sizeof(alert->module), module);
  }
  alert->condition = condition;
  alert->generation = generation;
  alert->at_ms = at_ms;
  alert->count++;
  str_copy(alert->reason, sizeof(alert->reason), reason);
  if (!alerts->pid && !evtimer_pending(&alerts->run_timer, NULL))
    arm(&alerts->run_timer, SOON_MS * 1000);
  link_say_alerts(supervisor);
}

/* ---- processes that die again and again -----------------------------------------------------------------------------
 */

void alerts_child_died(const struct child *child, const struct child_death *death) {
  struct supervisor *supervisor = child->supervisor;
  char reason[ALERT_REASON_BYTES];
  if (death->delay_ms == 0 || child->backoff.waits < STORM_WAITS || child->role != CHILD_CURRENT)
    return;
  if (death->error_name)
    snprintf(reason, sizeof(reason), "it cannot be started: %s in %s", death->error_name, death->step);
  else
    snprintf(reason, sizeof(reason),
             "%u deaths since the gateway was started, the last by %s %d; %u starts in a row paused", child->deaths,
             death->signal ? "signal" : "status", death->signal ? death->signal : death->status, child->backoff.waits);
  alerts_raise(supervisor, CONFIG_ALERT_RESTART_STORM, child->is_core ? child->id : child->module_id, death->generation,
               death->wall_us / 1000, reason);
  if (supervisor->alerts.configured)
    arm(&supervisor->alerts.calm_timer, (int64_t)CALM_MS * 1000);
}

static const struct child *current_of(const struct supervisor *supervisor, const char *module) {
  for (size_t i = 0; i < supervisor->child_count; i++) {
    const struct child *child = &supervisor->children[i];
    if (!child->removed && child->role == CHILD_CURRENT &&
        str_equal(child->is_core ? child->id : child->module_id, module))
      return child;
  }
  return NULL;
}

/* A look, for as long as there is a storm. */
static void on_calm(evutil_socket_t fd, short what, void *context) {
  struct supervisor *supervisor = context;
  struct alerts *alerts = &supervisor->alerts;
  (void)fd;
  (void)what;
  for (size_t i = 0; i < ALERT_SUBJECTS_MAX; i++) {
    struct alert_subject *subject = &alerts->subjects[i];
    if (!(subject->open & BIT(RESTART_STORM)))
      continue;
    const struct child *child = current_of(supervisor, subject->module);
    if (!child) /* it was taken out of the configuration */
      subject->open &= ~BIT(RESTART_STORM);
    else if (child_is_running(child) && child->ready &&
             clock_monotonic_us() - child->ready_us >= (int64_t)CALM_MS * 1000)
      alerts_raise(supervisor, CONFIG_ALERT_RECOVERED, subject->module, child->generation, clock_wall_ms(),
                   "it has been ready for ten seconds");
    if (subject->open & BIT(RESTART_STORM))
      arm(&alerts->calm_timer, (int64_t)CALM_MS * 1000 / 4);
  }
}

/* ---- a run ----------------------------------------------------------------------------------------------------------
 */

static void text_member(struct buf *document, const char *key, const char *text) {
  buf_printf(document, ",\"%s\":", key);
  buf_append_json_string(document, text, strlen(text));
}

/* What the program reads: a file in memory, so that nobody waits for a reader. -1: errno tells. */
static int document_open(const struct supervisor *supervisor, const struct alert *alert, const char *id) {
  const struct alerts *alerts = &supervisor->alerts;
  struct buf document = {0};
  char at[CLOCK_RFC3339_BYTES], host[65] = "";
  clock_format_rfc3339(alert->at_ms * 1000, at);
  if (gethostname(host, sizeof(host) - 1) != 0)
    host[0] = '\0';
  buf_append_text(&document, "{\"id\":");
  buf_append_json_string(&document, id, strlen(id));
  text_member(&document, "condition", config_alert_name(alert->condition));
  text_member(&document, "severity", config_alert_severity(alert->condition));
  text_member(&document, "module", alert->module);
  text_member(&document, "reason", alert->reason);
  text_member(&document, "at", at);
  text_member(&document, "host", host);
  buf_printf(&document, ",\"generation\":%llu,\"count\":%u,\"attempt\":%u,\"lost\":%llu}\n",
             (unsigned long long)alert->generation, alert->count, alert->attempts,
             (unsigned long long)(alerts->lost - alerts->lost_told));
  int fd = memfd_create("alert", MFD_CLOEXEC);
  if (fd >= 0 &&
      (write(fd, document.data, document.length) != (ssize_t)document.length || lseek(fd, 0, SEEK_SET) != 0)) {
    close(fd);
    fd = -1;
  }
  buf_free(&document);
  return spawn_descriptor_raise(fd);
}

static void variable_set(const struct alerts *alerts, enum alert_variable variable, const char *text) {
  str_copy(alerts->variables[variable], ALERT_REASON_BYTES, text);
}

static void variables_set(const struct alerts *alerts, const struct alert *alert, const char *id) {
  char number[24];
  variable_set(alerts, ALERT_VARIABLE_ID, id);
  variable_set(alerts, ALERT_VARIABLE_CONDITION, config_alert_name(alert->condition));
  variable_set(alerts, ALERT_VARIABLE_SEVERITY, config_alert_severity(alert->condition));
  variable_set(alerts, ALERT_VARIABLE_MODULE, alert->module);
  variable_set(alerts, ALERT_VARIABLE_REASON, alert->reason);
  snprintf(number, sizeof(number), "%llu", (unsigned long long)alert->generation);
  variable_set(alerts, ALERT_VARIABLE_GENERATION, number);
  snprintf(number, sizeof(number), "%u", alert->attempts);
  variable_set(alerts, ALERT_VARIABLE_ATTEMPT, number);
}

static void run_next(struct supervisor *supervisor);

/* problem: ""; else why it was not told. */
static void run_ended(struct supervisor *supervisor, const char *problem) {
  struct alerts *alerts = &supervisor->alerts;
  const struct alert *alert = &alerts->waiting[0];
  bool told = !problem[0], over = told || alert->attempts >= (unsigned)supervisor->config->alerts_attempts;
  str_copy(alerts->problem, sizeof(alerts->problem), problem);
  log_event(told   ? LOG_INFO
            : over ? LOG_ERROR
                   : LOG_WARN,
            "supervisor",
            told   ? "an alert was told"
            : over ? "an alert was not told"
                   : "an alert was not told yet",
            LOG_TEXT("module", alert->module), LOG_TEXT("condition", config_alert_name(alert->condition)),
            LOG_INT("attempt", alert->attempts), LOG_TEXT("problem", problem), LOG_TEXT("reason", alert->reason));
  alerts->delivered += told;
  alerts->failed += over && !told;
  if (over)
    waiting_remove(alerts, 0);
  alerts->not_before_us = told ? 0 : clock_monotonic_us() + supervisor->config->alerts_retry_ms * 1000;
  run_next(supervisor);
  link_say_alerts(supervisor);
}

static void read_pipe(struct alerts *alerts) {
  char data[4096];
  ssize_t count = read(alerts->pipe_read, data, sizeof(data));
  if (count > 0)
    words_feed(&alerts->words, NAME, STDERR_FILENO, data, (size_t)count);
}

static void on_pipe(evutil_socket_t fd, short what, void *context) {
  (void)fd;
  (void)what;
  read_pipe(context);
}

static void on_exit_event(evutil_socket_t fd, short what, void *context) {
  struct supervisor *supervisor = context;
  struct alerts *alerts = &supervisor->alerts;
  char problem[ALERT_REASON_BYTES] = "";
  siginfo_t info = {0};
  (void)fd;
  (void)what;
  kill(-alerts->pid, SIGKILL); /* what it left behind in its session */
  while (waitid(P_PIDFD, (id_t)alerts->pidfd, &info, WEXITED) != 0 && errno == EINTR)
    continue;
  event_del(&alerts->limit_timer);
  close(alerts->pidfd);
  alerts->pid = 0;
  read_pipe(alerts);
  words_finish(&alerts->words, NAME, STDERR_FILENO);
  const char *last = words_line(&alerts->words.kept, alerts->words.kept.count ? alerts->words.kept.count - 1 : 0);
  if (alerts->late)
    snprintf(problem, sizeof(problem), "it took longer than %lld ms", (long long)supervisor->config->alerts_timeout_ms);
  else if (info.si_code != CLD_EXITED || info.si_status != 0)
    snprintf(problem, sizeof(problem), "it ended with %s %d%s%.160s", info.si_code == CLD_EXITED ? "status" : "signal",
             info.si_status, last ? ": " : "", last ? last : "");
  run_ended(supervisor, problem);
}

static void on_late(evutil_socket_t fd, short what, void *context) {
  struct alerts *alerts = &((struct supervisor *)context)->alerts;
  (void)fd;
  (void)what;
  alerts->late = true;
  pidfd_send_signal(alerts->pidfd, SIGKILL, NULL, 0);
}

static void run(struct supervisor *supervisor) {
  struct alerts *alerts = &supervisor->alerts;
  struct alert *alert = &alerts->waiting[0];
  struct spawn_result result = {.step = "document"};
  char id[ID_UUID_BYTES + 24], problem[ALERT_REASON_BYTES];
  snprintf(id, sizeof(id), "%s-%llu", supervisor->boot_id, (unsigned long long)alert->number);
  alert->attempts++;
  words_reset(&alerts->words);
  alerts->late = false;
  image_alerts_renew(supervisor);
  variables_set(alerts, alert, id);
  alerts->image.input_fd = document_open(supervisor, alert, id);
  bool started = alerts->image.input_fd >= 0 && spawn_run(&alerts->image, 0, &result);
  int error = result.error ? result.error : errno;
  if (alerts->image.input_fd >= 0)
    close(alerts->image.input_fd);
  if (!started) {
    snprintf(problem, sizeof(problem), "it cannot be started: %s in %s", strerrorname_np(error), result.step);
    run_ended(supervisor, problem);
    return;
  }
  alerts->lost_told = alerts->lost;
  alerts->pid = result.pid;
  alerts->pidfd = result.pidfd;
  event_assign(&alerts->exit_event, supervisor->base, alerts->pidfd, EV_READ, on_exit_event, supervisor);
  event_add(&alerts->exit_event, NULL);
  arm(&alerts->limit_timer, supervisor->config->alerts_timeout_ms * 1000);
}

/* The rate: each run takes its share of a minute from the credit, which time gives back; credit_us is when it would be
 * full again. A minute without a run and all `alerts.per_minute` are free at once. */
static int64_t rate_wait_us(const struct supervisor *supervisor, int64_t now_us) {
  int64_t share_us = MINUTE_US / supervisor->config->alerts_per_minute;
  int64_t free_at_us = supervisor->alerts.credit_us + share_us - MINUTE_US;
  return free_at_us > now_us ? free_at_us - now_us : 0;
}

static void run_next(struct supervisor *supervisor) {
  struct alerts *alerts = &supervisor->alerts;
  int64_t now_us = clock_monotonic_us(), wait_us = rate_wait_us(supervisor, now_us);
  if (alerts->pid || alerts->waiting_count == 0)
    return;
  if (alerts->not_before_us - now_us > wait_us)
    wait_us = alerts->not_before_us - now_us;
  arm(&alerts->run_timer, wait_us);
}

static void on_run(evutil_socket_t fd, short what, void *context) {
  struct supervisor *supervisor = context;
  struct alerts *alerts = &supervisor->alerts;
  int64_t now_us = clock_monotonic_us();
  (void)fd;
  (void)what;
  if (alerts->pid || alerts->waiting_count == 0 || supervisor->phase != SUPERVISOR_RUNNING)
    return;
  if (alerts->not_before_us > now_us || rate_wait_us(supervisor, now_us) > 0) {
    run_next(supervisor);
    return;
  }
  if (alerts->credit_us < now_us)
    alerts->credit_us = now_us;
  alerts->credit_us += MINUTE_US / supervisor->config->alerts_per_minute;
  run(supervisor);
}

/* ---- life -----------------------------------------------------------------------------------------------------------
 */

void alerts_report_fill(const struct supervisor *supervisor, supervisor_control_v1_AlertReport *out) {
  const struct alerts *alerts = &supervisor->alerts;
  out->configured = alerts->configured;
  out->delivered = alerts->delivered;
  out->failed = alerts->failed;
  out->lost = alerts->lost;
  out->waiting = (uint32_t)alerts->waiting_count;
  str_copy(out->problem, sizeof(out->problem), alerts->problem);
}

bool alerts_identity_prepare(struct supervisor *supervisor, struct error *err) {
  const struct config *config = supervisor->config;
  supervisor->alerts.configured = !str_is_empty(config->alerts_program);
  return !supervisor->alerts.configured ||
         image_user_find(config->alerts_user, config->alerts_group, &supervisor->alerts.image, err);
}

bool alerts_prepare(struct supervisor *supervisor, struct error *err) {
  struct alerts *alerts = &supervisor->alerts;
  int ends[2];
  if (!alerts->configured)
    return true;
  if (pipe2(ends, O_CLOEXEC) != 0)
    return error_set(err, ERR_IO, "a pipe cannot be made: %s", strerrorname_np(errno));
  alerts->pipe_read = spawn_descriptor_raise(ends[0]);
  alerts->image.output_fd = spawn_descriptor_raise(ends[1]);
  if (alerts->pipe_read < 0 || alerts->image.output_fd < 0 || fcntl(alerts->pipe_read, F_SETFL, O_NONBLOCK) != 0)
    return error_set(err, ERR_IO, "a pipe cannot be kept: %s", strerrorname_np(errno));
  image_alerts_prepare(supervisor);
  event_assign(&alerts->pipe_event, supervisor->base, alerts->pipe_read, EV_READ | EV_PERSIST, on_pipe, alerts);
  evtimer_assign(&alerts->limit_timer, supervisor->base, on_late, supervisor);
  evtimer_assign(&alerts->run_timer, supervisor->base, on_run, supervisor);
  evtimer_assign(&alerts->calm_timer, supervisor->base, on_calm, supervisor);
  event_add(&alerts->pipe_event, NULL);
  return true;
}

void alerts_free(struct supervisor *supervisor) {
  struct alerts *alerts = &supervisor->alerts;
  struct event *events[] = {&alerts->exit_event, &alerts->pipe_event, &alerts->limit_timer, &alerts->run_timer,
                            &alerts->calm_timer};
  int *descriptors[] = {&alerts->pipe_read, &alerts->image.output_fd};
  if (alerts->waiting_count > 0)
    log_event(LOG_WARN, "supervisor", "alerts were not told before the end", LOG_INT("alerts", alerts->waiting_count));
  if (alerts->pid) {
    kill(-alerts->pid, SIGKILL);
    close(alerts->pidfd);
  }
  for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++)
    event_end(events[i]);
  for (size_t i = 0; i < sizeof(descriptors) / sizeof(descriptors[0]); i++)
    if (*descriptors[i] > 0)
      close(*descriptors[i]);
  image_free(&alerts->image);
}
