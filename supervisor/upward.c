/* upward.c: the supervisor as a service of somebody above it: systemd's Type=notify, spoken without libsystemd
 * (sd_notify(3)): datagrams of assignments to $NOTIFY_SOCKET, a path or an abstract name.
 *
 *   STATUS=      whenever what is served changes
 *   READY=1      once: the core is ready and every module that is to run is; or, so that one bad module does not keep
 *                a gateway from being started, the core is ready and who is missing has been down for good or had its
 *                start timeout. STATUS then names it
 *   RELOADING=1  with MONOTONIC_USEC, and READY=1 when the reload is over, whatever came of it
 *   STOPPING=1   with EXIT_STATUS; ERRNO when the start failed on a system call
 *   WATCHDOG=1   at half the interval of $WATCHDOG_USEC, from our loop, while the core is alive or being started
 *
 * A core that hangs gets no pings sent for it, so that whoever watches us starts everything again; with
 * core.watchdog_ms set, and shorter, we start it again ourselves before it comes to that. Nothing here blocks,
 * allocates after the start, or fails the caller.
 *
 * The queue above may be full (Linux has room for ten datagrams unless told otherwise): READY and STATUS are said again
 * until they find room, with what is true by then. The next ping, and the end, come anyway. */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "sdk/base/clock.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"
#include "supervisor/supervisor_internal.h"

#define WATCHDOG_SHORTEST_US 2000
#define AGAIN_MS 100

bool upward_address(const char *text, struct sockaddr_un *address, socklen_t *length) {
  *address = (struct sockaddr_un){.sun_family = AF_UNIX};
  if (!text || (text[0] != '/' && text[0] != '@') || text[1] == '\0' || strlen(text) >= sizeof(address->sun_path))
    return false;
  memcpy(address->sun_path, text, strlen(text));
  if (text[0] == '@')
    address->sun_path[0] = '\0'; /* abstract: its bytes are exactly the name, without an end */
  *length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(text) + (text[0] == '/'));
  return true;
}

uint64_t upward_watchdog_us(const char *interval_us, const char *for_pid, pid_t self) {
  uint64_t number, pid;
  if (!interval_us || !str_parse_u64(interval_us, &number) || number < WATCHDOG_SHORTEST_US || number > INT64_MAX)
    return 0;
  if (for_pid && (!str_parse_u64(for_pid, &pid) || pid != (uint64_t)self))
    return 0;
  return number;
}

/* One line stays one line. */
static void clean(char *text) {
  for (; *text; text++)
    if ((unsigned char)*text < 0x20 || *text == 0x7f)
      *text = ' ';
}

/* False: there is no room for it at the moment. */
static bool say(struct supervisor *supervisor, const char *text) {
  struct upward *upward = &supervisor->upward;
  return upward->fd < 0 ||
         sendto(upward->fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT, (struct sockaddr *)&upward->address,
                upward->length) >= 0 ||
         (errno != EAGAIN && errno != ENOBUFS);
}

static void say_again_later(struct supervisor *supervisor) {
  static const struct timeval pause = {.tv_usec = AGAIN_MS * 1000};
  event_add(&supervisor->upward.news_event, &pause);
}

/* ---- what is served -------------------------------------------------------------------------------------------------
 */

static bool core_serves(const struct supervisor *supervisor) {
  return supervisor->children[0].state == CHILD_UP;
}

static bool module_serves(const struct child *child) {
  return child->ready && child_is_running(child) && child->state != CHILD_STOPPING;
}

/* It is to run at all, as the process that serves for its module. */
static bool module_is_wanted(const struct child *child) {
  return child->config && child->config->enabled && !child->removed && child->role == CHILD_CURRENT;
}

/* It is not there and may still come by itself. */
static bool module_is_awaited(const struct child *child) {
  return module_is_wanted(child) && !module_serves(child) && !child->held &&
         (child->state != CHILD_DOWN || child->starts == 0);
}

static bool doors_are_settled(const struct supervisor *supervisor) {
  if (!core_serves(supervisor))
    return false;
  for (size_t i = 1; i < supervisor->child_count && !supervisor->upward.patience_is_over; i++)
    if (module_is_awaited(&supervisor->children[i]))
      return false;
  return true;
}

void upward_status_write(const struct supervisor *supervisor, char *target, size_t target_bytes) {
  char missing[UPWARD_STATUS_BYTES / 2] = "";
  size_t ready = 0, wanted = 0, length = 0;
  for (size_t i = 1; i < supervisor->child_count; i++) {
    const struct child *child = &supervisor->children[i];
    wanted += module_is_wanted(child);
    ready += module_is_wanted(child) && module_serves(child);
    if (module_is_wanted(child) && !module_serves(child) && length < sizeof(missing))
      length +=
          (size_t)snprintf(missing + length, sizeof(missing) - length, "%s%s", length ? ", " : "", child->config->id);
  }
  bool whole = core_serves(supervisor) && ready == wanted;
  const char *word = whole ? "serving" : supervisor->upward.announced ? "degraded" : "starting";
  if (!core_serves(supervisor))
    snprintf(target, target_bytes, "%s: the core is %s", word,
             supervisor->children[0].deaths ? "down; it is being started again" : "being started");
  else if (missing[0])
    snprintf(target, target_bytes, "%s: %zu of %zu modules ready; not ready: %s", word, ready, wanted, missing);
  else if (wanted)
    snprintf(target, target_bytes, "%s: %zu of %zu modules ready", word, ready, wanted);
  else
    str_copy(target, target_bytes, word);
}

static void tell(struct supervisor *supervisor) {
  struct upward *upward = &supervisor->upward;
  char status[UPWARD_STATUS_BYTES], text[UPWARD_STATUS_BYTES + 32];
  if (supervisor->phase != SUPERVISOR_RUNNING)
    return;
  bool first = !upward->announced && doors_are_settled(supervisor);
  upward->announced |= first;
  upward_status_write(supervisor, status, sizeof(status));
  upward->ready_owed |= first;
  if (!upward->ready_owed && str_equal(status, upward->status))
    return;
  snprintf(text, sizeof(text), "%sSTATUS=%s", upward->ready_owed ? "READY=1\n" : "", status);
  if (!say(supervisor, text)) {
    say_again_later(supervisor);
    return;
  }
  str_copy(upward->status, sizeof(upward->status), status);
  upward->ready_owed = false;
}

static void on_news(evutil_socket_t fd, short what, void *context) {
  (void)fd;
  (void)what;
  tell(context);
}

static void on_patience_over(evutil_socket_t fd, short what, void *context) {
  struct supervisor *supervisor = context;
  (void)fd;
  (void)what;
  supervisor->upward.patience_is_over = true;
  tell(supervisor);
}

/* How long the first READY=1 waits for modules after the core is there: as long as the slowest of them may take. */
static void patience_begin(struct supervisor *supervisor) {
  uint32_t longest_ms = 0;
  for (size_t i = 1; i < supervisor->child_count; i++)
    if (module_is_wanted(&supervisor->children[i]) && supervisor->children[i].start_timeout_ms > longest_ms)
      longest_ms = supervisor->children[i].start_timeout_ms;
  struct timeval delay = {.tv_sec = longest_ms / 1000, .tv_usec = (suseconds_t)(longest_ms % 1000) * 1000};
  event_add(&supervisor->upward.patience_event, &delay);
}

void upward_news(struct supervisor *supervisor) {
  struct upward *upward = &supervisor->upward;
  if (upward->fd < 0)
    return;
  if (!upward->announced && !upward->patience_is_over && core_serves(supervisor) &&
      !event_pending(&upward->patience_event, EV_TIMEOUT, NULL))
    patience_begin(supervisor);
  event_active(&upward->news_event, EV_TIMEOUT, 1); /* once for all that happens in this turn, and after it */
}

/* ---- beginnings and ends --------------------------------------------------------------------------------------------
 */

void upward_stopping(struct supervisor *supervisor, const char *reason) {
  char text[UPWARD_STATUS_BYTES], why[UPWARD_STATUS_BYTES / 2];
  str_copy(why, sizeof(why), reason);
  clean(why);
  snprintf(text, sizeof(text), "STOPPING=1\nSTATUS=stopping: %s\nEXIT_STATUS=%d", why, supervisor->exit_status);
  (void)say(supervisor, text);
}

void upward_failed(struct supervisor *supervisor, const struct error *err, int error) {
  char text[UPWARD_STATUS_BYTES + ERROR_MESSAGE_MAX], why[ERROR_MESSAGE_MAX], number[32] = "";
  str_copy(why, sizeof(why), err->message);
  clean(why);
  if (error > 0)
    snprintf(number, sizeof(number), "\nERRNO=%d", error);
  snprintf(text, sizeof(text), "STOPPING=1\nSTATUS=cannot be started: %s\nEXIT_STATUS=%d%s", why,
           supervisor->exit_status, number);
  (void)say(supervisor, text);
}

void upward_reload_begins(struct supervisor *supervisor) {
  char text[96];
  if (!supervisor->upward.announced)
    return; /* READY=1 would say too much at its end */
  snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%lld\nSTATUS=reading the configuration again",
           (long long)clock_monotonic_us());
  (void)say(supervisor, text);
}

void upward_reload_ends(struct supervisor *supervisor, const char *outcome) {
  char text[2 * UPWARD_STATUS_BYTES + 32], status[UPWARD_STATUS_BYTES], why[UPWARD_STATUS_BYTES];
  str_copy(why, sizeof(why), outcome);
  clean(why);
  upward_status_write(supervisor, status, sizeof(status));
  snprintf(text, sizeof(text), "%sSTATUS=%s; %s", supervisor->upward.announced ? "READY=1\n" : "", status, why);
  supervisor->upward.status[0] = '\0'; /* the next news is told, whatever was told before */
  bool said = say(supervisor, text);
  supervisor->upward.ready_owed = !said && supervisor->upward.announced;
  if (!said)
    say_again_later(supervisor);
}

/* ---- the watchdog ---------------------------------------------------------------------------------------------------
 */

bool upward_core_is_alive(const struct supervisor *supervisor, int64_t now_us) {
  const struct child *core = &supervisor->children[0];
  if (core->state != CHILD_UP)
    return true; /* its start, its stop and its back-off have time limits of their own */
  return (uint64_t)(now_us - core->alive_us) <= supervisor->upward.watchdog_us / 2;
}

static void on_watchdog(evutil_socket_t fd, short what, void *context) {
  struct supervisor *supervisor = context;
  struct upward *upward = &supervisor->upward;
  (void)fd;
  (void)what;
  bool alive = upward_core_is_alive(supervisor, clock_monotonic_us());
  if (alive)
    (void)say(supervisor, "WATCHDOG=1");
  else if (!upward->core_was_silent)
    log_event(LOG_ERROR, "supervisor", "the core gives no sign of life: the watchdog above is not fed any more");
  upward->core_was_silent = !alive;
}

uint32_t upward_heartbeat_ms(const struct supervisor *supervisor) {
  uint64_t half_ms = supervisor->upward.watchdog_us / 2000;
  return half_ms > UINT32_MAX ? UINT32_MAX : (uint32_t)half_ms;
}

/* ---- life -----------------------------------------------------------------------------------------------------------
 */

void upward_open(struct supervisor *supervisor) {
  struct upward *upward = &supervisor->upward;
  const char *path = getenv("NOTIFY_SOCKET");
  upward->fd = -1;
  if (str_is_empty(path))
    return;
  if (!upward_address(path, &upward->address, &upward->length)) {
    log_event(LOG_WARN, "supervisor", "NOTIFY_SOCKET is neither a path nor an abstract name: nobody is told",
              LOG_TEXT("socket", path));
    return;
  }
  upward->fd = spawn_descriptor_raise(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (upward->fd < 0)
    log_event(LOG_WARN, "supervisor", "no socket to notify with", LOG_TEXT("error", strerrorname_np(errno)));
  else
    upward->watchdog_us = upward_watchdog_us(getenv("WATCHDOG_USEC"), getenv("WATCHDOG_PID"), getpid());
}

void upward_watch(struct supervisor *supervisor) {
  struct upward *upward = &supervisor->upward;
  event_assign(&upward->news_event, supervisor->base, -1, 0, on_news, supervisor);
  event_assign(&upward->patience_event, supervisor->base, -1, 0, on_patience_over, supervisor);
  event_assign(&upward->watchdog_event, supervisor->base, -1, EV_PERSIST, on_watchdog, supervisor);
  if (upward->watchdog_us == 0)
    return;
  struct timeval half = {.tv_sec = (time_t)(upward->watchdog_us / 2000000),
                         .tv_usec = (suseconds_t)(upward->watchdog_us / 2 % 1000000)};
  event_add(&upward->watchdog_event, &half);
}

void upward_close(struct supervisor *supervisor) {
  struct upward *upward = &supervisor->upward;
  struct event *events[] = {&upward->news_event, &upward->patience_event, &upward->watchdog_event};
  for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++)
    event_end(events[i]);
  if (upward->fd >= 0)
    close(upward->fd);
  upward->fd = -1;
}
