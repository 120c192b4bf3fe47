/* socket_calls_test.c: the calls that gRPC makes on a connected Unix socket, as socket_calls.c answers them, and that
 * everybody else's go straight on. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/rpc/socket_calls.h"
#include "sdk/base/test.h"

#ifndef TCP_INQ
#define TCP_INQ 36
#endif

enum { OURS, PEER };

static int ends[2], poller;

static void setup(void) {
  ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
  poller = epoll_create1(EPOLL_CLOEXEC);
  ck_assert_int_ge(poller, 0);
}

static void teardown(void) {
  close(ends[OURS]);
  close(ends[PEER]);
  close(poller);
}

static int tell_rest(int fd) {
  int one = 1;
  return setsockopt(fd, IPPROTO_TCP, TCP_INQ, &one, sizeof(one));
}

/* One read as gRPC does it; *rest is -1 when nothing was told. */
static ssize_t read_message(int fd, size_t room, int *rest) {
  static char bytes[4096];
  union {
    char space[CMSG_SPACE(sizeof(int)) + 24];
    struct cmsghdr align;
  } control;
  struct iovec piece = {.iov_base = bytes, .iov_len = room};
  struct msghdr message = {
      .msg_iov = &piece, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof(control.space)};
  ssize_t count = recvmsg(fd, &message, 0);
  *rest = -1;
  struct cmsghdr *header = count > 0 ? CMSG_FIRSTHDR(&message) : NULL;
  if (header && header->cmsg_level == IPPROTO_TCP && header->cmsg_type == TCP_INQ)
    memcpy(rest, CMSG_DATA(header), sizeof(*rest));
  return count;
}

static void send_with_descriptor(int fd, const char *text) {
  union {
    char space[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
  } control;
  memset(&control, 0, sizeof(control));
  struct iovec piece = {.iov_base = (char *)(uintptr_t)text, .iov_len = strlen(text)};
  struct msghdr message = {
      .msg_iov = &piece, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof(control.space)};
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(header), &fd, sizeof(fd));
  ck_assert_int_eq(sendmsg(fd, &message, 0), (ssize_t)strlen(text));
}

START_TEST(a_read_tells_whether_something_may_be_left) {
  setup();
  int rest;
  ck_assert_int_eq(tell_rest(ends[OURS]), 0);
  ck_assert_int_eq(write(ends[PEER], "12345", 5), 5);
  ck_assert_int_eq(read_message(ends[OURS], 3, &rest), 3);
  ck_assert_int_eq(rest, 1);
  ck_assert_int_eq(read_message(ends[OURS], 3, &rest), 2);
  ck_assert_int_eq(rest, 0);
  ck_assert_int_eq(read_message(ends[OURS], 3, &rest), -1);
  ck_assert_int_eq(errno, EAGAIN);
  ck_assert_int_eq(rest, -1);
  close(ends[PEER]);
  ck_assert_int_eq(read_message(ends[OURS], 3, &rest), 0);
  teardown();
}
END_TEST

/* The kernel ends a read at a message that has descriptors, so that one is short although more follows. */
START_TEST(descriptors_of_a_peer_are_dropped_and_the_bytes_behind_them_are_found) {
  setup();
  int rest, lowest = dup(0);
  ck_assert_int_eq(tell_rest(ends[OURS]), 0);
  send_with_descriptor(ends[PEER], "abc");
  ck_assert_int_eq(write(ends[PEER], "de", 2), 2);
  ck_assert_int_eq(read_message(ends[OURS], 100, &rest), 3);
  ck_assert_int_eq(rest, 1);
  ck_assert_int_eq(read_message(ends[OURS], 100, &rest), 2);
  ck_assert_int_eq(rest, 0);
  close(lowest);
  int next = dup(0);
  ck_assert_int_eq(next, lowest); /* no descriptor came in */
  close(next);
  teardown();
}
END_TEST

START_TEST(others_sockets_are_as_they_are) {
  setup();
  int one = 1, rest, tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ck_assert_int_eq(setsockopt(tcp, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one)), 0);
  close(tcp);
  ck_assert_int_ne(tell_rest(tcp), 0);
  int alone = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ck_assert_int_ne(tell_rest(alone), 0); /* not connected */
  close(alone);
  ck_assert_int_eq(write(ends[PEER], "1", 1), 1);
  ck_assert_int_eq(read_message(ends[OURS], 3, &rest), 1); /* nobody asked to be told */
  ck_assert_int_eq(rest, -1);
  ck_assert_int_eq(tell_rest(ends[OURS]), 0);
  int number = ends[OURS];
  close(ends[OURS]);
  close(ends[PEER]);
  ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  ck_assert_int_eq(ends[OURS], number); /* and the next owner of the number was not told either */
  ck_assert_int_eq(write(ends[PEER], "1", 1), 1);
  ck_assert_int_eq(read_message(number, 3, &rest), 1);
  ck_assert_int_eq(rest, -1);
  teardown();
}
END_TEST

static uint32_t events_now(void) {
  struct epoll_event event = {0};
  int count = epoll_wait(poller, &event, 1, 0);
  if (count == 1)
    ck_assert_ptr_eq(event.data.ptr, ends);
  return count == 1 ? event.events : 0;
}

static ssize_t send_block(void) {
  static char block[4096];
  struct iovec piece = {.iov_base = block, .iov_len = sizeof(block)};
  struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
  return sendmsg(ends[OURS], &message, MSG_NOSIGNAL);
}

static void drain_peer(void) {
  char block[4096];
  while (read(ends[PEER], block, sizeof(block)) > 0) {
  }
}

START_TEST(writability_is_told_only_to_who_waits_for_it) {
  setup();
  struct epoll_event event = {.events = (uint32_t)(EPOLLIN | EPOLLOUT | EPOLLET), .data.ptr = ends};
  ck_assert_int_eq(epoll_ctl(poller, EPOLL_CTL_ADD, ends[OURS], &event), 0);
  ck_assert_uint_eq(events_now(), 0);
  for (int round = 0; round < 3; round++) {
    ck_assert_int_gt(send_block(), 0);
    drain_peer();
    ck_assert_uint_eq(events_now(), 0); /* the peer's reading woke nobody */
    while (send_block() >= 0) {
    }
    ck_assert_int_eq(errno, EAGAIN);
    ck_assert_uint_eq(events_now(), 0);
    drain_peer();
    ck_assert_uint_eq(events_now() & EPOLLOUT, EPOLLOUT);
    ck_assert_uint_eq(events_now(), 0); /* one edge */
  }
  ck_assert_int_gt(send_block(), 0);
  ck_assert_int_eq(write(ends[PEER], "1", 1), 1);
  ck_assert_uint_eq(events_now(), EPOLLIN);
  teardown();
}
END_TEST

START_TEST(room_made_before_the_watch_began_is_told) {
  setup();
  struct epoll_event event = {.events = (uint32_t)(EPOLLIN | EPOLLOUT | EPOLLET), .data.ptr = ends};
  ck_assert_int_eq(epoll_ctl(poller, EPOLL_CTL_ADD, ends[OURS], &event), 0);
  while (send_block() >= 0) {
  }
  drain_peer();
  ck_assert_uint_eq(events_now() & EPOLLOUT, EPOLLOUT);
  teardown();
}
END_TEST

/* The peer's last words and its end arrive as one edge: a short read must not be taken for an empty socket then. */
START_TEST(the_end_that_comes_with_bytes_is_read) {
  setup();
  struct epoll_event event = {.events = (uint32_t)(EPOLLIN | EPOLLOUT | EPOLLET), .data.ptr = ends};
  int rest;
  ck_assert_int_eq(epoll_ctl(poller, EPOLL_CTL_ADD, ends[OURS], &event), 0);
  ck_assert_int_eq(tell_rest(ends[OURS]), 0);
  ck_assert_int_eq(write(ends[PEER], "12", 2), 2);
  ck_assert_int_eq(shutdown(ends[PEER], SHUT_WR), 0);
  ck_assert_uint_eq(events_now() & EPOLLIN, EPOLLIN);
  ck_assert_int_eq(read_message(ends[OURS], 100, &rest), 2);
  ck_assert_int_eq(rest, 1);
  ck_assert_int_eq(read_message(ends[OURS], 100, &rest), 0);
  teardown();
}
END_TEST

/* ---- bursts ---- */

static void bursts_begin(void) {
  setup();
  struct epoll_event event = {.events = (uint32_t)(EPOLLIN | EPOLLOUT | EPOLLET), .data.ptr = ends};
  ck_assert_int_eq(epoll_ctl(poller, EPOLL_CTL_ADD, ends[OURS], &event), 0);
  socket_calls_bursts_set(true);
}

static void bursts_end(void) {
  socket_calls_bursts_set(false);
  teardown();
}

static ssize_t send_text(const char *text) {
  struct iovec piece = {.iov_base = (char *)(uintptr_t)text, .iov_len = strlen(text)};
  struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
  return sendmsg(ends[OURS], &message, MSG_NOSIGNAL);
}

static const char *peer_reads(void) {
  static char text[64];
  ssize_t count = read(ends[PEER], text, sizeof(text) - 1);
  text[count < 0 ? 0 : count] = '\0';
  return text;
}

START_TEST(the_first_write_of_a_burst_goes_at_once_and_the_others_together) {
  bursts_begin();
  for (int round = 0; round < 3; round++) {
    ck_assert_int_eq(send_text("a"), 1);
    ck_assert_str_eq(peer_reads(), "a");
    ck_assert_int_eq(send_text("b"), 1);
    ck_assert_int_eq(send_text("c"), 1);
    ck_assert_str_eq(peer_reads(), "");
    ck_assert_uint_eq(events_now(), 0); /* the wait ends the burst */
    ck_assert_str_eq(peer_reads(), "bc");
  }
  for (int i = 0; i < 10; i++)
    ck_assert_int_eq(send_text(i == 0 ? "0" : "x"), 1);
  ck_assert_str_eq(peer_reads(), "0xxxxxxxx"); /* eight together, without a wait */
  socket_calls_bursts_set(false);
  ck_assert_str_eq(peer_reads(), "x");
  ck_assert_int_eq(send_text("y"), 1);
  ck_assert_int_eq(send_text("z"), 1);
  ck_assert_str_eq(peer_reads(), "yz"); /* no bursts: each at once */
  bursts_end();
}
END_TEST

START_TEST(the_end_of_a_socket_writes_what_is_pending) {
  bursts_begin();
  ck_assert_int_eq(send_text("a"), 1);
  ck_assert_int_eq(send_text("b"), 1);
  ck_assert_int_eq(shutdown(ends[OURS], SHUT_WR), 0);
  ck_assert_str_eq(peer_reads(), "ab");
  bursts_end();
  bursts_begin();
  ck_assert_int_eq(send_text("a"), 1);
  ck_assert_int_eq(send_text("b"), 1);
  ck_assert_int_eq(close(ends[OURS]), 0);
  ck_assert_str_eq(peer_reads(), "ab");
  bursts_end();
}
END_TEST

/* Its last words are there to be read, whatever is written meanwhile. */
START_TEST(a_peer_that_is_gone_is_found_out_by_reading_and_not_by_a_write) {
  bursts_begin();
  int rest;
  ck_assert_int_eq(send_text("a"), 1);
  ck_assert_str_eq(peer_reads(), "a");
  ck_assert_int_eq(send_text("b"), 1);
  ck_assert_int_eq(write(ends[PEER], "12", 2), 2);
  close(ends[PEER]);
  (void)events_now();
  ck_assert_int_eq(send_text("c"), 1);
  ck_assert_int_eq(read_message(ends[OURS], 100, &rest), 2);
  ck_assert_int_eq(read_message(ends[OURS], 100, &rest), 0);
  bursts_end();
}
END_TEST

START_TEST(a_peer_that_only_stopped_reading_is_found_out_by_a_write) {
  bursts_begin();
  ck_assert_int_eq(shutdown(ends[PEER], SHUT_RD), 0);
  ck_assert_int_eq(send_text("a"), -1);
  ck_assert_int_eq(errno, EPIPE);
  bursts_end();
}
END_TEST

/* ---- what went into a connection ---- */

START_TEST(a_connection_tells_what_went_into_it_before_its_end) {
  struct socket_tally *tally;
  int rest;
  setup();
  tally = socket_tally_begin(ends[OURS]);
  struct epoll_event event = {.events = (uint32_t)(EPOLLIN | EPOLLOUT | EPOLLET), .data.ptr = ends};
  ck_assert_int_eq(epoll_ctl(poller, EPOLL_CTL_ADD, ends[OURS], &event), 0);
  socket_calls_bursts_set(true);
  ck_assert_uint_eq(socket_tally_taken(tally), 0);
  ck_assert_int_eq(send_text("abc"), 3);
  ck_assert_int_eq(send_text("de"), 2); /* waits for the end of the burst */
  uint64_t before = socket_tally_taken(tally);
  ck_assert_uint_eq(before, 5);
  close(ends[PEER]);
  ck_assert_int_eq(send_text("fgh"), 3);
  ck_assert(!socket_tally_is_unsent(tally, before));          /* nobody has seen the end */
  ck_assert_int_eq(read_message(ends[OURS], 100, &rest), -1); /* what it had not read */
  ck_assert(socket_tally_is_over(tally));
  ck_assert(socket_tally_is_unsent(tally, before));
  ck_assert(socket_tally_is_unsent(tally, 3));
  ck_assert(!socket_tally_is_unsent(tally, 2)); /* "abc" went */
  socket_calls_bursts_set(false);
  ck_assert(socket_tally_is_unsent(tally, 3));
  socket_tally_release(&tally);
  teardown();
}
END_TEST

/* It reads on after it has said that it says nothing more: what is said of its calls must stay true. */
START_TEST(nothing_goes_into_a_connection_whose_end_was_read) {
  int rest;
  setup();
  struct socket_tally *tally = socket_tally_begin(ends[OURS]);
  struct socket_tally *second = socket_tally_hold(tally);
  ck_assert_int_eq(shutdown(ends[PEER], SHUT_WR), 0);
  ck_assert_int_eq(read_message(ends[OURS], 100, &rest), 0);
  ck_assert_int_eq(send_text("never"), 5);
  ck_assert_str_eq(peer_reads(), "");
  ck_assert(socket_tally_is_unsent(tally, 0));
  socket_tally_release(&tally);
  teardown();
  ck_assert(socket_tally_is_over(second));
  socket_tally_release(&second);
}
END_TEST

/* What counted as written and cannot be must not be followed by anything, or the peer would read a stream with a hole.
 */
START_TEST(a_socket_that_lost_what_was_pending_carries_nothing_more) {
  bursts_begin();
  ck_assert_int_eq(__real_epoll_ctl(poller, EPOLL_CTL_DEL, ends[OURS], NULL), 0); /* room cannot be awaited */
  ck_assert_int_eq(send_text("a"), 1);
  char block[4096] = {0};
  while (write(ends[OURS], block, sizeof(block)) > 0) {
  }
  ck_assert_int_eq(send_text("b"), 1);
  ck_assert_uint_eq(events_now(), 0);
  drain_peer();
  (void)send_text("behind the hole");
  ck_assert_str_eq(peer_reads(), "");
  bursts_end();
}
END_TEST

static void *send_from_another_thread(void *argument) {
  ck_assert_int_eq(send_text(argument), 1);
  return NULL;
}

START_TEST(another_threads_write_keeps_its_place) {
  bursts_begin();
  pthread_t thread;
  ck_assert_int_eq(send_text("a"), 1);
  ck_assert_int_eq(send_text("b"), 1);
  ck_assert_int_eq(pthread_create(&thread, NULL, send_from_another_thread, (char *)(uintptr_t) "c"), 0);
  ck_assert_int_eq(pthread_join(thread, NULL), 0);
  ck_assert_int_eq(send_text("d"), 1);
  ck_assert_uint_eq(events_now(), 0);
  ck_assert_str_eq(peer_reads(), "abcd");
  bursts_end();
}
END_TEST

/* A numbered stream through a socket that is full most of the time, written in bursts by the rules of gRPC: after
 * EAGAIN nothing is written until the poller tells. */
START_TEST(nothing_is_lost_or_overtaken_when_the_socket_is_full) {
  enum { WORDS = 1000000, WORDS_READ = 700 };
  bursts_begin();
  uint32_t sent = 0, seen = 0, words[WORDS_READ], piece_words[3000];
  bool waits = false;
  unsigned refusals = 0;
  while (seen < WORDS) {
    for (int i = 0; i < 12 && !waits && sent < WORDS; i++) {
      uint32_t count = 1 + (sent * 7 + (uint32_t)i) % (i == 11 ? 3000 : 400);
      count = count > WORDS - sent ? WORDS - sent : count;
      for (uint32_t j = 0; j < count; j++)
        piece_words[j] = sent + j;
      struct iovec piece = {.iov_base = piece_words, .iov_len = count * sizeof(uint32_t)};
      struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
      ssize_t written = sendmsg(ends[OURS], &message, MSG_NOSIGNAL);
      waits = written < 0;
      refusals += waits;
      ck_assert(written >= 0 || errno == EAGAIN);
      ck_assert_int_eq(written >= 0 ? written % (ssize_t)sizeof(uint32_t) : 0, 0);
      sent += written > 0 ? (uint32_t)written / (uint32_t)sizeof(uint32_t) : 0;
    }
    if (events_now() & EPOLLOUT)
      waits = false;
    ssize_t count = read(ends[PEER], words, sizeof(words));
    ck_assert_int_ge(count, 0);
    ck_assert_int_eq(count % (ssize_t)sizeof(uint32_t), 0);
    for (ssize_t i = 0; i < count / (ssize_t)sizeof(uint32_t); i++)
      ck_assert_uint_eq(words[i], seen++);
  }
  ck_assert_uint_gt(refusals, 10);
  ck_assert_uint_eq(sent, WORDS);
  bursts_end();
}
END_TEST

START_TEST(a_watch_of_anything_else_is_as_it_was_asked_for) {
  setup();
  int pipe_ends[2];
  ck_assert_int_eq(pipe(pipe_ends), 0);
  struct epoll_event event = {.events = (uint32_t)(EPOLLIN | EPOLLOUT | EPOLLET), .data.ptr = ends};
  ck_assert_int_eq(epoll_ctl(poller, EPOLL_CTL_ADD, pipe_ends[1], &event), 0);
  ck_assert_uint_eq(events_now(), EPOLLOUT);
  close(pipe_ends[0]);
  close(pipe_ends[1]);
  event.events = EPOLLOUT;
  ck_assert_int_eq(epoll_ctl(poller, EPOLL_CTL_ADD, ends[OURS], &event), 0);
  ck_assert_uint_eq(events_now(), EPOLLOUT);
  teardown();
}
END_TEST

TEST_MAIN("core_rpc.socket_calls", a_read_tells_whether_something_may_be_left,
          descriptors_of_a_peer_are_dropped_and_the_bytes_behind_them_are_found, others_sockets_are_as_they_are,
          writability_is_told_only_to_who_waits_for_it, room_made_before_the_watch_began_is_told,
          a_watch_of_anything_else_is_as_it_was_asked_for, the_end_that_comes_with_bytes_is_read,
          the_first_write_of_a_burst_goes_at_once_and_the_others_together, the_end_of_a_socket_writes_what_is_pending,
          a_peer_that_is_gone_is_found_out_by_reading_and_not_by_a_write,
          a_peer_that_only_stopped_reading_is_found_out_by_a_write, a_connection_tells_what_went_into_it_before_its_end,
          nothing_goes_into_a_connection_whose_end_was_read, a_socket_that_lost_what_was_pending_carries_nothing_more,
          another_threads_write_keeps_its_place, nothing_is_lost_or_overtaken_when_the_socket_is_full)
