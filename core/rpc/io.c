/* io.c: the I/O thread: one libevent loop that accepts connections for this room and serves others by
 * core_rpc_io_post(). It owns its event base until io_thread_stop(), and is watched while the process has a watchdog.
 * Failing to get an event base or an eventfd at start is fatal. */
#include <event2/event.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/rpc/core_rpc_internal.h"
#include "sdk/base/check.h"
#include "sdk/base/watchdog.h"

enum { LAST_WRITES_MS = 10 }; /* for replies that were queued just before the end */

static void io_wake(void *argument) {
  const struct io_thread *io = argument;
  const uint64_t one = 1;
  ssize_t written = write(io->wake_fd, &one, sizeof(one));
  BASE_CHECK(written == sizeof(one));
}

static void io_on_wake(evutil_socket_t fd, short what, void *argument) {
  struct io_thread *io = argument;
  uint64_t count;
  (void)what;
  if (read(fd, &count, sizeof(count)) == sizeof(count))
    (void)post_queue_run(&io->posts);
}

static void io_on_turn(evutil_socket_t fd, short what, void *argument) {
  const struct io_thread *io = argument;
  (void)fd, (void)what;
  watchdog_loop_feed(io->watchdog);
}

static void *io_run(void *argument) {
  struct io_thread *io = argument;
  uint32_t feed_ms = watchdog_feed_ms();
  const struct timeval period = {.tv_sec = feed_ms / 1000, .tv_usec = (suseconds_t)(feed_ms % 1000) * 1000};
  struct event *turn = feed_ms > 0 ? event_new(io->base, -1, EV_PERSIST, io_on_turn, io) : NULL;
  (void)pthread_setname_np(pthread_self(), "core-io");
  if (turn != NULL) {
    event_add(turn, &period);
    io->watchdog = watchdog_loop_begin("the core's I/O thread");
  }
  event_base_loop(io->base, EVLOOP_NO_EXIT_ON_EMPTY);
  watchdog_loop_end(&io->watchdog);
  if (turn != NULL)
    event_free(turn);
  return NULL;
}

void io_thread_start(struct io_thread *io) {
  io->base = event_base_new();
  io->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  BASE_CHECK(io->base != NULL && io->wake_fd >= 0);
  io->wake_event = event_new(io->base, io->wake_fd, EV_READ | EV_PERSIST, io_on_wake, io);
  BASE_CHECK(io->wake_event != NULL && event_add(io->wake_event, NULL) == 0);
  post_queue_init(&io->posts, io_wake, io);
  int failed = pthread_create(&io->thread, NULL, io_run, io);
  BASE_CHECK(!failed);
}

static void io_end(void *argument) {
  struct io_thread *io = argument;
  const struct timeval linger = {.tv_usec = LAST_WRITES_MS * 1000};
  event_base_loopexit(io->base, &linger);
}

void io_thread_stop(struct io_thread *io) {
  bool posted = post_queue_push(&io->posts, io_end, io);
  BASE_CHECK(posted);
  pthread_join(io->thread, NULL);
  while (!post_queue_close(&io->posts))
    (void)post_queue_run(&io->posts);
}

void io_thread_free(struct io_thread *io) {
  event_free(io->wake_event);
  close(io->wake_fd);
  event_base_free(io->base);
}

struct event_base *core_rpc_io_base(struct core_rpc_loop *loop) {
  return loop_check(loop)->io.base;
}

bool core_rpc_io_post(struct core_rpc_loop *loop, core_rpc_task *task, void *argument) {
  return post_queue_push(&loop_check(loop)->io.posts, task, argument);
}
