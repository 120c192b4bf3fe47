/* raw_peer_test.c: peers that speak HTTP/2 by hand, so that they can do what no library would: call and never read, end
 * in the same moment in which they speak, or in which they are called. */
#include <sys/socket.h>
#include <sys/un.h>

#include "core/rpc/test_harness.h"

enum { FRAME_DATA = 0, FRAME_HEADERS = 1, FRAME_SETTINGS = 4, FRAME_WINDOW_UPDATE = 8, FRAME_OF_NO_MEANING = 0xf0 };

static int raw_connect(const struct harness *harness) {
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  ck_assert_int_lt(snprintf(address.sun_path, sizeof(address.sun_path), "%s", harness->path), sizeof(address.sun_path));
  ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
  return fd;
}

static void frame_append(struct buf *out, uint8_t type, uint8_t flags, uint8_t stream, const void *bytes,
                         size_t length) {
  const uint8_t head[] = {
      (uint8_t)(length >> 16), (uint8_t)(length >> 8), (uint8_t)length, type, flags, 0, 0, 0, stream};
  buf_append(out, head, sizeof(head));
  buf_append(out, bytes, length);
}

static void field_append(struct buf *out, const char *name, const char *value) {
  buf_append_char(out, 0); /* literal, not indexed, new name */
  buf_append_char(out, (char)strlen(name));
  buf_append(out, name, strlen(name));
  buf_append_char(out, (char)strlen(value));
  buf_append(out, value, strlen(value));
}

/* The connection, with windows that never fill, and one call on it. */
static void raw_call(int fd, const char *path, const char *message) {
  static const uint8_t settings[] = {0, 4, 0x7f, 0xff, 0xff, 0xff}, window[] = {0x7f, 0, 0, 0};
  struct buf out = {0}, part = {0};
  buf_append(&out, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
  frame_append(&out, FRAME_SETTINGS, 0, 0, settings, sizeof(settings));
  frame_append(&out, FRAME_WINDOW_UPDATE, 0, 0, window, sizeof(window));
  field_append(&part, ":method", "POST");
  field_append(&part, ":scheme", "http");
  field_append(&part, ":path", path);
  field_append(&part, ":authority", "raw");
  field_append(&part, "content-type", "application/grpc");
  field_append(&part, "te", "trailers");
  frame_append(&out, FRAME_HEADERS, 4, 1, part.data, part.length);
  buf_clear(&part);
  const uint8_t prefix[] = {0, 0, 0, 0, (uint8_t)strlen(message)};
  buf_append(&part, prefix, sizeof(prefix));
  buf_append(&part, message, strlen(message));
  frame_append(&out, FRAME_DATA, 1, 1, part.data, part.length);
  ck_assert_int_eq(write(fd, out.data, out.length), (ssize_t)out.length);
  buf_free(&part);
  buf_free(&out);
}

/* gRPC makes a thread that waits in the core thread's place once a socket is full; what the core thread writes to the
 * others goes out all the same. */
START_TEST(a_caller_that_does_not_read_delays_nobody_else) {
  enum { CALLS = 64 };
  static struct probe probes[CALLS];
  struct harness harness;
  harness_start(&harness);
  struct probe before = {.request = {.method = "/test.v1.Test/Echo", .kind = CORE_RPC_UNARY}};
  probe_run(&harness, &before); /* connected */
  int fd = raw_connect(&harness);
  raw_call(fd, "/test.v1.Test/Count", "1000000 10000");
  WAIT_UNTIL(__atomic_load_n(&test_service_state.produced, __ATOMIC_RELAXED) > 50);
  usleep(200000);
  for (unsigned round = 0; round < 10; round++) {
    for (unsigned i = 0; i < CALLS; i++) {
      probes[i] = (struct probe){
          .request = {.method = "/test.v1.Test/Echo", .kind = CORE_RPC_UNARY, .data = "text", .length = 4}};
      probe_begin(&harness, &probes[i]);
    }
    for (unsigned i = 0; i < CALLS; i++) {
      probe_wait(&probes[i]);
      ck_assert_int_eq(probes[i].grpc_status, 0);
      ck_assert_int_lt(probes[i].took_ms, 8000); /* gRPC's thread waits for ten seconds */
      buf_free(&probes[i].data);
    }
  }
  close(fd);
  WAIT_UNTIL(test_service_state.freed == 1);
  buf_free(&before.data);
  harness_stop(&harness, 1000);
}
END_TEST

struct ending {
  int fd;
  bool half; /* it only says that it sends no more */
};

/* On the core thread, so that one look of the poller finds both. */
static void speak_and_end(void *argument) {
  const struct ending *ending = argument;
  struct buf out = {0};
  frame_append(&out, FRAME_OF_NO_MEANING, 0, 0, "", 0); /* to which there is nothing to answer */
  ck_assert_int_eq(write(ending->fd, out.data, out.length), (ssize_t)out.length);
  buf_free(&out);
  if (ending->half)
    ck_assert_int_eq(shutdown(ending->fd, SHUT_WR), 0);
  else
    close(ending->fd);
}

START_TEST(a_caller_that_ends_while_it_speaks_is_gone_at_once) {
  struct harness harness;
  harness_start(&harness);
  for (unsigned i = 0; i < 2; i++) {
    struct ending ending = {.fd = raw_connect(&harness), .half = i == 1};
    raw_call(ending.fd, "/test.v1.Test/Hold", "");
    WAIT_UNTIL(__atomic_load_n(&test_service_state.held, __ATOMIC_RELAXED) == i + 1);
    usleep(50000); /* its end is watched */
    int64_t began_ms = clock_monotonic_ms();
    harness_on_core(&harness, speak_and_end, &ending);
    WAIT_UNTIL(__atomic_load_n(&test_service_state.cancelled, __ATOMIC_RELAXED) == i + 1);
    ck_assert_int_lt(clock_monotonic_ms() - began_ms, 8000);
    if (ending.half)
      close(ending.fd);
  }
  harness_stop(&harness, 1000);
}
END_TEST

/* ---- a server ---- */

struct server {
  struct harness harness;
  struct core_rpc_channel *channel;
  int listener, fd;
  struct probe first, second;
};

static void channel_make(void *argument) {
  struct server *server = argument;
  char path[108];
  snprintf(path, sizeof(path), "%s/peer.sock", server->harness.directory);
  server->channel = core_rpc_channel_create(server->harness.loop, path);
  ck_assert_ptr_nonnull(server->channel);
}

static void probe_prepare(struct server *server, struct probe *probe, const char *text) {
  *probe = (struct probe){
      .harness = &server->harness,
      .channel = server->channel,
      .request = {.method = "/test.v1.Test/Echo", .kind = CORE_RPC_UNARY, .data = text, .length = strlen(text)}};
}

static bool has_read(const struct server *server, const char *text) {
  char bytes[4096];
  ssize_t count = recv(server->fd, bytes, sizeof(bytes), MSG_PEEK | MSG_DONTWAIT);
  return count > 0 && memmem(bytes, (size_t)count, text, strlen(text)) != NULL;
}

/* With one call on it, which has come. */
static void server_start(struct server *server) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  memset(server, 0, sizeof(*server));
  harness_start(&server->harness);
  snprintf(address.sun_path, sizeof(address.sun_path), "%s/peer.sock", server->harness.directory);
  server->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ck_assert_int_eq(bind(server->listener, (struct sockaddr *)&address, sizeof(address)), 0);
  ck_assert_int_eq(listen(server->listener, 1), 0);
  harness_on_core(&server->harness, channel_make, server);
  server->fd = accept(server->listener, NULL, NULL);
  ck_assert_int_ge(server->fd, 0);
  struct buf out = {0};
  frame_append(&out, FRAME_SETTINGS, 0, 0, "", 0);
  ck_assert_int_eq(write(server->fd, out.data, out.length), (ssize_t)out.length);
  buf_free(&out);
  probe_prepare(server, &server->first, "the first");
  probe_begin(&server->harness, &server->first);
  WAIT_UNTIL(has_read(server, "the first"));
}

static void server_stop(struct server *server) {
  close(server->listener);
  buf_free(&server->first.data);
  harness_stop(&server->harness, 1000);
}

static void answer_first(const struct server *server) {
  struct buf out = {0}, part = {0};
  field_append(&part, ":status", "200");
  field_append(&part, "content-type", "application/grpc");
  frame_append(&out, FRAME_HEADERS, 4, 1, part.data, part.length);
  frame_append(&out, FRAME_DATA, 0, 1, "\0\0\0\0\4done", 9);
  buf_clear(&part);
  field_append(&part, "grpc-status", "0");
  frame_append(&out, FRAME_HEADERS, 5, 1, part.data, part.length);
  ck_assert_int_eq(write(server->fd, out.data, out.length), (ssize_t)out.length);
  buf_free(&part);
  buf_free(&out);
}

/* All in one turn of the core thread: it cannot have seen that end when it calls. */
static void read_all_and_end(void *argument) {
  struct server *server = argument;
  char bytes[4096];
  while (recv(server->fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0) {
  }
  close(server->fd);
}

static void end_and_be_called(void *argument) {
  struct server *server = argument;
  read_all_and_end(server);
  probe_begin_task(&server->second);
}

static void answer_end_and_be_called(void *argument) {
  struct server *server = argument;
  answer_first(server);
  end_and_be_called(server);
}

static void close_channel(void *argument) {
  struct server *server = argument;
  core_rpc_channel_close(&server->channel);
}

static void answer_end_and_be_left(void *argument) {
  struct server *server = argument;
  answer_first(server);
  end_and_be_called(server);
  core_rpc_channel_leave(&server->channel);
  ck_assert_ptr_null(server->channel);
}

static void assert_lost(const struct probe *probe, bool unsent) {
  ck_assert_str_eq(probe->err.code, "rpc.peer.gone");
  ck_assert(probe->err.retryable);
  ck_assert(probe->lost);
  ck_assert_int_eq(probe->unsent, unsent);
}

START_TEST(of_a_call_that_was_lost_it_is_known_whether_the_peer_can_have_begun) {
  struct server server;
  server_start(&server);
  probe_prepare(&server, &server.second, "the second");
  harness_on_core(&server.harness, end_and_be_called, &server);
  probe_wait(&server.first);
  probe_wait(&server.second);
  assert_lost(&server.first, false);
  assert_lost(&server.second, true);
  ck_assert(core_rpc_channel_is_lost(server.channel));
  server_stop(&server);
}
END_TEST

START_TEST(what_a_peer_answered_before_its_end_arrives_although_more_is_sent_to_it) {
  for (unsigned left = 0; left < 2; left++) {
    struct server server;
    server_start(&server);
    probe_prepare(&server, &server.second, "the second");
    harness_on_core(&server.harness, left ? answer_end_and_be_left : answer_end_and_be_called, &server);
    probe_wait(&server.first);
    probe_wait(&server.second);
    ck_assert_int_eq(server.first.grpc_status, 0);
    ck_assert_str_eq(server.first.data.data, "done");
    ck_assert(!server.first.lost);
    assert_lost(&server.second, true);
    server_stop(&server);
  }
}
END_TEST

START_TEST(a_call_on_a_channel_that_is_closed_is_lost_and_not_cancelled) {
  struct server server;
  server_start(&server);
  harness_on_core(&server.harness, close_channel, &server);
  probe_wait(&server.first);
  assert_lost(&server.first, false);
  close(server.fd);
  server_stop(&server);
}
END_TEST

static void leave_channel(void *argument) {
  struct server *server = argument;
  core_rpc_channel_leave(&server->channel);
}

/* A process of the peer's holds the connection open. */
START_TEST(a_channel_that_is_left_waits_a_second_at_most) {
  struct server server;
  server_start(&server);
  harness_on_core(&server.harness, leave_channel, &server);
  probe_wait(&server.first);
  assert_lost(&server.first, false);
  ck_assert_int_ge(server.first.took_ms, 900);
  close(server.fd);
  server_stop(&server);
}
END_TEST

TEST_MAIN("core_rpc.raw_peer", a_caller_that_does_not_read_delays_nobody_else,
          a_caller_that_ends_while_it_speaks_is_gone_at_once,
          of_a_call_that_was_lost_it_is_known_whether_the_peer_can_have_begun,
          what_a_peer_answered_before_its_end_arrives_although_more_is_sent_to_it,
          a_call_on_a_channel_that_is_closed_is_lost_and_not_cancelled, a_channel_that_is_left_waits_a_second_at_most)
