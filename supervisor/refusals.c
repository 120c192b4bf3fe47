/* refusals.c: a module that is held down on purpose comes back when an operator wants, so its clients must not wait in
 * the queue of its listener (LIF-8). They are answered with one fixed text in their protocol's form and hung up on.
 * What they send is thrown away unread: the supervisor parses nothing. A module that is down for a moment is another
 * case: then they do wait, and are served.
 *
 * So many at a time as there are places, each for a short time, and nothing is allocated: whoever finds no place is
 * hung up on. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sdk/base/clock.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"
#include "supervisor/supervisor_internal.h"

#define ACCEPTS_PER_TURN 16
#define ACCEPT_PAUSE_MS 100
#define ANSWER_BYTES 1024
#define READS_PER_TURN 8
#define TURNS_MAX 64
#define REQUEST_MS 2000 /* for a client to begin its request, and again to take its answer and leave */

static const struct {
  const char *family, *type, *body;
} refusals[] = {
#define REFUSAL(family, type, body) {family, type, body},
#include "supervisor/refusals.def"
#undef REFUSAL
};

/* ---- one client ---- */

static void refused_close(struct refused *refused) {
  event_del(&refused->event);
  close(refused->fd);
  refused->fd = -1;
}

static void limit_begin(struct refused *refused) {
  refused->due_ms = clock_monotonic_ms() + REQUEST_MS;
}

/* Until its limit, whatever it sends: the event by itself would wait as long again for each byte. */
static void wait_further(struct refused *refused) {
  int64_t left_ms = refused->due_ms - clock_monotonic_ms();
  if (left_ms < 0)
    left_ms = 0;
  const struct timeval limit = {.tv_sec = left_ms / 1000, .tv_usec = left_ms % 1000 * 1000};
  event_add(&refused->event, &limit);
}

static void answer(struct refused *refused) {
  char body[ANSWER_BYTES / 2], text[ANSWER_BYTES];
  size_t row = 0;
  for (size_t i = 1; i < sizeof(refusals) / sizeof(refusals[0]); i++)
    if (str_equal(refusals[i].family, refused->family))
      row = i;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* the texts of refusals.def */
  int body_length = snprintf(body, sizeof(body), refusals[row].body, refused->code);
#pragma GCC diagnostic pop
  int length = snprintf(text, sizeof(text),
                        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: %s\r\nContent-Length: %d\r\n"
                        "Retry-After: 30\r\nConnection: close\r\n\r\n%s",
                        refusals[row].type, body_length, body);
  ssize_t ignored = send(refused->fd, text, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT);
  (void)ignored;
  shutdown(refused->fd, SHUT_WR);
  refused->answered = true;
}

/* Reads on after the answer until the client has left: closing with its bytes unread would take the answer back. */
static void on_client(evutil_socket_t fd, short what, void *context) {
  struct refused *refused = context;
  char waste[16384];
  if ((what & EV_TIMEOUT) || ++refused->turns > TURNS_MAX) {
    refused_close(refused);
    return;
  }
  for (unsigned i = 0; i < READS_PER_TURN; i++) {
    ssize_t count = recv((int)fd, waste, sizeof(waste), MSG_DONTWAIT);
    if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR)) {
      refused_close(refused);
      return;
    }
    if (count < 0)
      break;
    if (!refused->answered) {
      answer(refused);
      limit_begin(refused);
    }
  }
  wait_further(refused);
}

static void on_accept(evutil_socket_t fd, short what, void *context);

static void accept_watch(struct listener *listener) {
  event_assign(&listener->accept_event, listener->supervisor->base, listener->fd, EV_READ | EV_PERSIST, on_accept,
               listener);
  event_add(&listener->accept_event, NULL);
}

static void on_pause_over(evutil_socket_t fd, short what, void *context) {
  (void)fd, (void)what;
  accept_watch(context);
}

/* Out of descriptors: whoever waits is still there after a moment, and asking at once again would only turn the loop.
 */
static void accept_pause(struct listener *listener) {
  static const struct timeval pause = {.tv_usec = ACCEPT_PAUSE_MS * 1000};
  event_del(&listener->accept_event);
  evtimer_assign(&listener->accept_event, listener->supervisor->base, on_pause_over, listener);
  event_add(&listener->accept_event, &pause);
}

static void on_accept(evutil_socket_t fd, short what, void *context) {
  struct listener *listener = context;
  struct supervisor *supervisor = listener->supervisor;
  (void)what;
  for (unsigned i = 0; i < ACCEPTS_PER_TURN; i++) {
    int client = accept4((int)fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (client < 0) {
      if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
        accept_pause(listener);
      return;
    }
    struct refused *refused = NULL;
    for (size_t place = 0; place < REFUSED_MAX && !refused; place++)
      if (supervisor->refused[place].fd < 0)
        refused = &supervisor->refused[place];
    if (!refused) {
      close(client);
      continue;
    }
    *refused = (struct refused){.fd = client, .family = listener->family, .code = listener->code};
    event_assign(&refused->event, supervisor->base, client, EV_READ | EV_PERSIST, on_client, refused);
    limit_begin(refused);
    wait_further(refused);
  }
}

/* ---- listeners ---- */

static bool has_listener(const struct child *child, const char *name) {
  for (size_t i = 0; i < child->config->listeners.count; i++)
    if (str_equal(child->config->listeners.items[i], name))
      return true;
  return false;
}

/* The module because of which a listener's clients are refused: all that have it are held and down; NULL: none. */
static const struct child *refuser_find(const struct supervisor *supervisor, const struct listener *listener) {
  const struct child *found = NULL;
  for (size_t i = 1; i < supervisor->child_count; i++) {
    const struct child *child = &supervisor->children[i];
    if (!has_listener(child, listener->config->name) || (child->role != CHILD_CURRENT && child->state == CHILD_DOWN))
      continue;
    if (!child->held || child->state != CHILD_DOWN || !child->hold_code[0])
      return NULL;
    found = child;
  }
  return found;
}

void refusals_update(struct supervisor *supervisor) {
  for (size_t i = 0; i < supervisor->config->listeners_count; i++) {
    struct listener *listener = &supervisor->listeners[i];
    const struct child *child =
        supervisor->phase == SUPERVISOR_RUNNING && listener->fd >= 0 ? refuser_find(supervisor, listener) : NULL;
    if (child) {
      listener->family = child->config->family;
      listener->code = child->hold_code;
    }
    if ((child != NULL) == listener->refuses)
      continue;
    listener->refuses = child != NULL;
    if (child) { /* the module, which shares the socket, may have made it wait, and finds it so again */
      listener->flags = fcntl(listener->fd, F_GETFL);
      fcntl(listener->fd, F_SETFL, listener->flags | O_NONBLOCK);
      accept_watch(listener);
    } else {
      event_del(&listener->accept_event);
      fcntl(listener->fd, F_SETFL, listener->flags);
    }
    log_event(LOG_INFO, "supervisor", child ? "clients are refused" : "clients are not refused any more",
              LOG_TEXT("listener", listener->config->name), LOG_TEXT("code", child ? child->hold_code : ""));
  }
}

void refusals_init(struct supervisor *supervisor) {
  for (size_t i = 0; i < REFUSED_MAX; i++)
    supervisor->refused[i].fd = -1;
}

void refusals_close(struct supervisor *supervisor) {
  for (size_t i = 0; i < supervisor->config->listeners_count; i++)
    if (supervisor->listeners && supervisor->listeners[i].refuses)
      event_del(&supervisor->listeners[i].accept_event);
  for (size_t i = 0; i < REFUSED_MAX; i++)
    if (supervisor->refused[i].fd >= 0)
      refused_close(&supervisor->refused[i]);
}
