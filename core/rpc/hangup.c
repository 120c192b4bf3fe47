/* hangup.c: notices that a connection is gone. gRPC owns the connection's descriptor and tells nobody when it closes,
 * so a duplicate is watched for hang-up only, in an epoll set of its own (libevent would mix in readability, which
 * never ends here) that is one readable event of the I/O thread. gRPC shuts a socket down before it closes it, so its
 * own closing shows as well.
 *
 * A hangup is linked and freed on the I/O thread; the core thread keeps a pointer from hangup_add() until
 * peer_closed(). */
#include <event2/event.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/rpc/core_rpc_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"

struct hangup {
  struct hangup_watch *watch;
  int fd;
  struct peer_entry *entry; /* NULL once peer_closed() was called */
  struct hangup *previous, *next;
};

struct hangup_watch {
  struct core_rpc_loop *loop;
  int epoll_fd;
  struct event *event;
  struct hangup *first;
};

static void hangup_free_on_io(void *argument) {
  struct hangup *hangup = argument;
  if (hangup->previous != NULL)
    hangup->previous->next = hangup->next;
  else
    hangup->watch->first = hangup->next;
  if (hangup->next != NULL)
    hangup->next->previous = hangup->previous;
  close(hangup->fd);
  base_free(hangup);
}

/* Core thread. */
static void hangup_report(void *argument) {
  struct hangup *hangup = argument;
  peer_closed(BASE_TAKE(hangup->entry));
  bool posted = core_rpc_io_post(hangup->watch->loop, hangup_free_on_io, hangup);
  BASE_CHECK(posted); /* the I/O thread outlives the core thread's loop */
}

/* I/O thread. The descriptor is left out of the set from here on; when the core loop has ended, hangup_watch_free
 * reports. */
static void hangup_on_io(struct hangup *hangup) {
  (void)epoll_ctl(hangup->watch->epoll_fd, EPOLL_CTL_DEL, hangup->fd, NULL);
  (void)core_rpc_post(hangup->watch->loop, hangup_report, hangup);
}

static void watch_on_ready(evutil_socket_t fd, short what, void *argument) {
  struct epoll_event events[64];
  (void)what;
  (void)argument;
  int count = epoll_wait(fd, events, sizeof(events) / sizeof(events[0]), 0);
  for (int i = 0; i < count; i++)
    hangup_on_io(events[i].data.ptr);
}

struct hangup_watch *hangup_watch_create(struct core_rpc_loop *loop) {
  struct hangup_watch *watch = BASE_NEW(struct hangup_watch);
  watch->loop = loop;
  watch->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  BASE_CHECK(watch->epoll_fd >= 0);
  return watch;
}

static void watch_start_on_io(struct hangup_watch *watch) {
  if (watch->event != NULL)
    return;
  watch->event = event_new(watch->loop->io.base, watch->epoll_fd, EV_READ | EV_PERSIST, watch_on_ready, watch);
  BASE_CHECK(watch->event != NULL && event_add(watch->event, NULL) == 0);
}

static void hangup_add_on_io(void *argument) {
  struct hangup *hangup = argument;
  struct hangup_watch *watch = hangup->watch;
  watch_start_on_io(watch);
  hangup->next = watch->first;
  if (hangup->next != NULL)
    hangup->next->previous = hangup;
  watch->first = hangup;
  struct epoll_event event = {.events = EPOLLRDHUP, .data.ptr = hangup};
  if (epoll_ctl(watch->epoll_fd, EPOLL_CTL_ADD, hangup->fd, &event) != 0) {
    shutdown(hangup->fd, SHUT_RDWR); /* a connection whose end cannot be seen is not kept */
    hangup_on_io(hangup);
  }
}

struct hangup *hangup_add(struct hangup_watch *watch, int fd, struct peer_entry *entry) {
  struct hangup *hangup = BASE_NEW(struct hangup);
  *hangup = (struct hangup){.watch = watch, .fd = fd, .entry = entry};
  bool posted = core_rpc_io_post(watch->loop, hangup_add_on_io, hangup);
  BASE_CHECK(posted);
  return hangup;
}

static void hangup_disconnect_on_io(void *argument) {
  const struct hangup *hangup = argument;
  shutdown(hangup->fd, SHUT_RDWR);
}

void hangup_disconnect(struct hangup *hangup) {
  bool posted = core_rpc_io_post(hangup->watch->loop, hangup_disconnect_on_io, hangup);
  BASE_CHECK(posted);
}

void hangup_watch_free(struct hangup_watch **watch_handle) {
  struct hangup_watch *watch = BASE_TAKE(*watch_handle);
  while (watch->first != NULL) {
    struct hangup *hangup = watch->first;
    if (hangup->entry != NULL)
      peer_closed(BASE_TAKE(hangup->entry));
    hangup_free_on_io(hangup);
  }
  if (watch->event != NULL)
    event_free(watch->event);
  close(watch->epoll_fd);
  base_free(watch);
}
