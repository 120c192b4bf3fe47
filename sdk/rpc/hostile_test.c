/* hostile_test.c: peers that do not play by the rules. Whatever they send costs their own connection: the process
 * lives, memory stays bounded, and a well-behaved client is served all the time. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "sdk/rpc/rpc_internal.h"
#include "sdk/rpc/rpc_test_support.h"

#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define SETTINGS "\0\0\0\4\0\0\0\0\0"

static struct event_base *base;
static struct rpc_server *server;
static struct rpc_channel *channel;
static int enemy; /* the hostile peer's end */

static int enemy_join(void) {
  int pair[2];
  ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
  ck_assert(rpc_server_accept_fd(server, pair[1], NULL));
  return pair[0];
}

static void setup(void) {
  base = event_base_new();
  server = rpc_server_create(base, &(struct rpc_server_options){.receive_buffer_bytes_max = 1 << 20});
  rpc_server_register(server, support_methods, SUPPORT_METHOD_COUNT, NULL);
  channel = rpc_channel_create_from_fd(base, enemy_join(), NULL);
  enemy = enemy_join();
}

static void teardown(void) {
  rpc_channel_close(&channel);
  rpc_server_close(&server);
  if (enemy >= 0)
    close(enemy);
  event_base_free(base);
}

static void friend_is_served(void) {
  struct support_result result = {0};
  rpc_call_unary(channel, "/test.Echo/Unary", (const uint8_t *)"hi", 2, NULL, support_unary_done, &result);
  SUPPORT_RUN_UNTIL(base, result.done);
  ck_assert_int_eq(result.status.code, RPC_OK);
  buf_free(&result.reply);
}

/* Sends what fits while the server runs; what the server says is read, or not. */
static void enemy_send(const void *data, size_t length, bool reads) {
  static char trash[65536];
  size_t sent = 0;
  for (int idle = 0; sent < length && idle < 200;) {
    ssize_t count = send(enemy, (const char *)data + sent, length - sent, MSG_NOSIGNAL);
    if (count > 0)
      sent += (size_t)count, idle = 0;
    else if (errno == EAGAIN)
      idle++;
    else
      return; /* the server has hung up */
    event_base_loop(base, EVLOOP_NONBLOCK);
    while (reads && recv(enemy, trash, sizeof(trash), 0) > 0) {
    }
  }
  for (int i = 0; i < 10; i++)
    event_base_loop(base, EVLOOP_NONBLOCK);
}

static void frame_append(struct buf *buf, uint8_t type, uint8_t flags, uint32_t stream, const void *payload,
                         size_t length) {
  uint8_t header[9] = {(uint8_t)(length >> 16), (uint8_t)(length >> 8),  (uint8_t)length,        type,           flags,
                       (uint8_t)(stream >> 24), (uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream};
  buf_append(buf, header, sizeof(header));
  buf_append(buf, payload, length);
}

static void literal_append(struct buf *buf, const char *name, const char *value, size_t value_length) {
  uint8_t head[2] = {0, (uint8_t)strlen(name)};
  buf_append(buf, head, 2);
  buf_append_text(buf, name);
  if (value_length < 127) {
    buf_append_char(buf, (char)value_length);
  } else {
    buf_append_char(buf, 127);
    size_t rest = value_length - 127;
    for (; rest >= 128; rest /= 128)
      buf_append_char(buf, (char)(rest % 128 + 128));
    buf_append_char(buf, (char)rest);
  }
  buf_append(buf, value, value_length);
}

static void request_append(struct buf *out, uint32_t stream, const char *path, bool end) {
  struct buf block = {0};
  literal_append(&block, ":method", "POST", 4);
  literal_append(&block, ":scheme", "http", 4);
  literal_append(&block, ":path", path, strlen(path));
  literal_append(&block, ":authority", "/run/x.sock", 11); /* the raw path, as some clients send it */
  literal_append(&block, "content-type", "application/grpc", 16);
  frame_append(out, 1, end ? 5 : 4, stream, block.data, block.length);
  buf_free(&block);
}

static void hello(struct buf *out) {
  buf_append(out, PREFACE, 24);
  buf_append(out, SETTINGS, 9);
}

static size_t enemy_read(char *target, size_t size) {
  size_t length = 0;
  for (int i = 0; i < 20; i++) {
    event_base_loop(base, EVLOOP_NONBLOCK);
    ssize_t count = recv(enemy, target + length, size - length, 0);
    if (count > 0)
      length += (size_t)count;
  }
  return length;
}

START_TEST(garbage_costs_only_its_own_connection) {
  uint8_t garbage[5000];
  uint32_t state = (uint32_t)_i * 2654435761u + 1;
  for (size_t i = 0; i < sizeof(garbage); i++)
    garbage[i] = (uint8_t)((state = state * 1664525u + 1013904223u) >> 24);
  if (_i % 2 == 1) { /* behind a valid beginning */
    memcpy(garbage, PREFACE, 24);
    memcpy(garbage + 24, SETTINGS, 9);
  }
  enemy_send(garbage, sizeof(garbage), true);
  friend_is_served();
}
END_TEST

START_TEST(half_a_frame_and_a_hang_up_leave_nothing_behind) {
  struct buf out = {0};
  hello(&out);
  request_append(&out, 1, "/test.Echo/Unary", false);
  frame_append(&out, 0, 0, 1, "\0\0\0\1\0partial", 12);
  enemy_send(out.data, out.length - (size_t)_i, true);
  close(enemy);
  enemy = -1;
  SUPPORT_RUN_UNTIL(base, rpc_server_connections(server) == 1 && rpc_server_calls(server) == 0);
  buf_free(&out);
  friend_is_served();
}
END_TEST

START_TEST(bad_message_prefixes_end_their_call) {
  static const struct {
    const char *prefix;
    size_t length;
    const char *grpc_status;
  } rows[] = {{"\0\xff\xff\xff\xff", 5, "8"},       /* claims 4 GB */
              {"\1\0\0\0\1x", 6, "12"},             /* compressed */
              {"\7\0\0\0\1x", 6, "13"},             /* no such flag */
              {"\0\0\0\0\1x\0\0\0\0\1y", 12, "13"}, /* two messages in a unary call */
              {"\0\0\0\0\5x", 6, "3"},              /* ends in the middle */
              {"", 0, "3"}};                        /* no message at all */
  struct buf out = {0};
  hello(&out);
  request_append(&out, 1, "/test.Echo/Unary", false);
  frame_append(&out, 0, 1, 1, rows[_i].prefix, rows[_i].length);
  enemy_send(out.data, out.length, false);
  buf_free(&out);
  static char answer[65536];
  size_t length = enemy_read(answer, sizeof(answer));
  nghttp2_hd_inflater *inflater;
  ck_assert_int_eq(nghttp2_hd_inflate_new(&inflater), 0);
  bool found = false;
  for (size_t at = 0; at + 9 <= length;) { /* the HEADERS frames */
    size_t size = (size_t)(uint8_t)answer[at] << 16 | (size_t)(uint8_t)answer[at + 1] << 8 | (uint8_t)answer[at + 2];
    const uint8_t *in = (const uint8_t *)answer + at + 9;
    size_t left = answer[at + 3] == 1 ? size : 0;
    while (left > 0) {
      nghttp2_nv header;
      int flags = 0;
      ssize_t taken = nghttp2_hd_inflate_hd2(inflater, &header, &flags, in, left, 1);
      ck_assert_int_ge(taken, 0);
      in += taken, left -= (size_t)taken;
      if ((flags & NGHTTP2_HD_INFLATE_EMIT) != 0 && header.namelen == 11 && memcmp(header.name, "grpc-status", 11) == 0)
        found = header.valuelen == strlen(rows[_i].grpc_status) &&
                memcmp(header.value, rows[_i].grpc_status, header.valuelen) == 0;
      if ((flags & NGHTTP2_HD_INFLATE_FINAL) != 0)
        break;
    }
    at += 9 + size;
  }
  nghttp2_hd_inflate_del(inflater);
  ck_assert(found);
  friend_is_served();
}
END_TEST

START_TEST(a_header_bomb_is_not_stored) {
  struct buf out = {0}, block = {0};
  hello(&out);
  /* One big entry in the dynamic table, then thousands of one-byte references to it. */
  static char big[3800];
  memset(big, 'b', sizeof(big));
  literal_append(&block, "x-bomb", big, sizeof(big));
  block.data[0] = 0x40; /* with indexing */
  for (int i = 0; i < 10000; i++)
    buf_append_char(&block, (char)(0x80 | 62));
  frame_append(&out, 1, 5, 1, block.data, block.length);
  enemy_send(out.data, out.length, true);
  buf_free(&block);
  buf_free(&out);
  friend_is_served();
}
END_TEST

START_TEST(endless_continuations_are_cut_off) {
  struct buf out = {0};
  hello(&out);
  frame_append(&out, 1, 0, 1, "\x82", 1);
  for (int i = 0; i < 100000; i++)
    frame_append(&out, 9, 0, 1, "\x82", 1);
  enemy_send(out.data, out.length, true);
  SUPPORT_RUN_UNTIL(base, rpc_server_connections(server) == 1);
  buf_free(&out);
  friend_is_served();
}
END_TEST

START_TEST(a_flood_of_resets_ends_the_connection) {
  struct buf out = {0};
  hello(&out);
  for (uint32_t id = 1; id < 2 * 40000; id += 2) {
    request_append(&out, id, "/test.Echo/Bidi", false);
    frame_append(&out, 3, 0, id, "\0\0\0\x08", 4);
  }
  enemy_send(out.data, out.length, true);
  SUPPORT_RUN_UNTIL(base, rpc_server_connections(server) == 1);
  ck_assert_uint_eq(rpc_server_calls(server), 0);
  buf_free(&out);
  friend_is_served();
}
END_TEST

START_TEST(a_flood_of_pings_without_reading_is_bounded) {
  struct buf out = {0};
  hello(&out);
  for (int i = 0; i < 100000; i++)
    frame_append(&out, 6, 0, 0, "12345678", 8);
  enemy_send(out.data, out.length, false);
  SUPPORT_RUN_UNTIL(base, rpc_server_connections(server) == 1);
  buf_free(&out);
  friend_is_served();
}
END_TEST

START_TEST(a_reader_that_stalls_stops_its_stream_only) {
  struct buf out = {0};
  hello(&out);
  request_append(&out, 1, "/test.Echo/Stream", false);
  frame_append(&out, 0, 1, 1,
               "\0\0\0\0\x0b"
               "100000 1000",
               16);
  support_streamed = 0;
  enemy_send(out.data, out.length, false);
  for (int i = 0; i < 100; i++)
    event_base_loop(base, EVLOOP_NONBLOCK);
  ck_assert_uint_gt(support_streamed, 0);
  ck_assert_uint_lt(support_streamed, 300);
  friend_is_served();
  close(enemy);
  enemy = -1;
  SUPPORT_RUN_UNTIL(base, rpc_server_calls(server) == 0);
  buf_free(&out);
}
END_TEST

START_TEST(unfinished_requests_together_are_bounded) {
  /* 100 requests that each send 60 KB of a 1 MB message and never end: more than receive_buffer_bytes_max. */
  static char part[15000];
  struct buf out = {0};
  hello(&out);
  for (uint32_t id = 1; id < 200; id += 2) {
    request_append(&out, id, "/test.Echo/Unary", false);
    memcpy(part, "\0\0\x10\0\0", 5);
    frame_append(&out, 0, 0, id, part, sizeof(part));
    for (int i = 0; i < 3; i++)
      frame_append(&out, 0, 0, id, part, sizeof(part));
  }
  enemy_send(out.data, out.length, true);
  buf_free(&out);
  ck_assert_uint_le(rpc_server_calls(server), 20);
  friend_is_served();
}
END_TEST

START_TEST(requests_that_are_not_grpc_are_turned_away) {
  static const struct {
    const char *method, *type;
    const char *extra, *extra_value;
  } rows[] = {
      {"GET", "application/grpc", "x-a", "b"},         {"POST", "text/html", "x-a", "b"},
      {"POST", "application/grpc", ":path", "/again"}, {"POST", "application/grpc", "X-Upper", "b"},
      {"POST", "application/grpc", "x-a", "a\nb"},     {"POST", "application/grpc", "grpc-timeout", "soon"},
      {"POST", "application/grpc", "x-a", "\x7f"},     {"POST", "application/grpc", "x-a", "1234567\x7f 9"},
      {"POST", "application/grpc", "x a", "b"},        {"POST", "application/grpc", "x-a", "\x01 345678"},
      {"POST", "application/grpc", "x-\x7f", "b"},     {"POST", "application/grpc", "x-a", "\t2345678 2345\x1f"},
      {"POST", "application/grpc", "", "b"},           {"POST", "application/grpc", "x-a", "\t \xff\x80\r5678"}};
  struct buf out = {0}, block = {0};
  support_handled = 0;
  hello(&out);
  literal_append(&block, ":method", rows[_i].method, strlen(rows[_i].method));
  literal_append(&block, ":path", "/test.Echo/Bidi", 15);
  literal_append(&block, "content-type", rows[_i].type, strlen(rows[_i].type));
  literal_append(&block, rows[_i].extra, rows[_i].extra_value, strlen(rows[_i].extra_value));
  frame_append(&out, 1, 4, 1, block.data, block.length);
  enemy_send(out.data, out.length, true);
  ck_assert_uint_eq(support_handled, 0);
  SUPPORT_RUN_UNTIL(base, rpc_server_calls(server) == 0);
  buf_free(&out);
  buf_free(&block);
  friend_is_served();
}
END_TEST

START_TEST(values_that_are_only_unusual_are_served) {
  static const char *const values[] = {"",        "\t", "1234567\t", "\t\t\t\t\t\t\t\t\t", " \x80\xff\x20\x7e\xa0 ~~",
                                       "12345678"};
  struct buf out = {0}, block = {0};
  support_handled = 0;
  hello(&out);
  literal_append(&block, ":method", "POST", 4);
  literal_append(&block, ":path", "/test.Echo/Bidi", 15);
  literal_append(&block, "content-type", "application/grpc", 16);
  literal_append(&block, "x-a", values[_i], strlen(values[_i]));
  frame_append(&out, 1, 4, 1, block.data, block.length);
  enemy_send(out.data, out.length, true);
  ck_assert_uint_eq(support_handled, 1);
  buf_free(&out);
  buf_free(&block);
  friend_is_served();
}
END_TEST

/* ---- a hostile server ---- */

static void channel_to_enemy(const struct rpc_channel_options *options, struct rpc_channel **victim) {
  int pair[2];
  ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
  close(enemy);
  enemy = pair[0];
  *victim = rpc_channel_create_from_fd(base, pair[1], options);
}

static void client_of_enemy(struct support_result *result, struct rpc_channel **victim) {
  channel_to_enemy(NULL, victim);
  rpc_call_unary(*victim, "/a.B/C", (const uint8_t *)"x", 1, &(struct rpc_call_options){.deadline_ms = 30000},
                 support_unary_done, result);
}

START_TEST(a_hostile_server_cannot_hurt_its_client) {
  static const struct {
    const char *headers[8];
    const char *data;
    size_t data_length;
    bool end_in_headers;
    enum rpc_code code;
  } rows[] = {
      {{":status", "200", "content-type", "application/grpc", "grpc-status", "0"}, "", 0, true, RPC_INTERNAL},
      {{":status", "200", "grpc-status", "99999999999"}, "", 0, true, RPC_UNKNOWN},
      {{":status", "200", "grpc-status", "7", "grpc-message", "no%zz%"}, "", 0, true, RPC_PERMISSION_DENIED},
      {{":status", "200", "grpc-status", "5", "grpc-status-details-bin", "////"}, "", 0, true, RPC_NOT_FOUND},
      {{":status", "200", "grpc-status", "5", "grpc-status-details-bin", "!"}, "", 0, true, RPC_NOT_FOUND},
      {{":status", "503"}, "", 0, true, RPC_UNAVAILABLE},
      {{":status", "404"}, "<html>", 6, false, RPC_UNIMPLEMENTED},
      {{":status", "200"}, "\0\0\0\0\1x", 6, false, RPC_UNKNOWN},
      {{":status", "200"}, "\1\0\0\0\1x", 6, false, RPC_UNIMPLEMENTED},
      {{":status", "200"}, "\0\x7f\xff\xff\xff", 5, false, RPC_RESOURCE_EXHAUSTED},
      {{":status", "200"}, "\0\0\0\0\1x\0", 7, false, RPC_INTERNAL},
  };
  struct support_result result = {0};
  struct rpc_channel *victim;
  client_of_enemy(&result, &victim);
  struct buf out = {0}, block = {0};
  buf_append(&out, SETTINGS, 9);
  enemy_send(out.data, out.length, true);
  buf_clear(&out);
  for (size_t i = 0; i + 1 < 8 && rows[_i].headers[i] != NULL; i += 2)
    literal_append(&block, rows[_i].headers[i], rows[_i].headers[i + 1], strlen(rows[_i].headers[i + 1]));
  frame_append(&out, 1, rows[_i].end_in_headers ? 5 : 4, 1, block.data, block.length);
  if (!rows[_i].end_in_headers)
    frame_append(&out, 0, 1, 1, rows[_i].data, rows[_i].data_length);
  enemy_send(out.data, out.length, true);
  SUPPORT_RUN_UNTIL(base, result.done);
  ck_assert_int_eq(result.status.code, rows[_i].code);
  ck_assert(error_is_set(&result.status.error));
  rpc_channel_close(&victim);
  buf_free(&out);
  buf_free(&block);
  buf_free(&result.reply);
}
END_TEST

START_TEST(a_server_that_sends_garbage_fails_the_call) {
  struct support_result result = {0};
  struct rpc_channel *victim;
  client_of_enemy(&result, &victim);
  enemy_send("HTTP/1.1 400 Bad Request\r\n\r\n", 28, true);
  SUPPORT_RUN_UNTIL(base, result.done);
  ck_assert_int_eq(result.status.code, RPC_UNAVAILABLE);
  rpc_channel_close(&victim);
}
END_TEST

START_TEST(a_refused_request_is_sent_once_more) {
  struct support_result result = {0};
  struct rpc_channel *victim;
  client_of_enemy(&result, &victim);
  struct buf out = {0};
  buf_append(&out, SETTINGS, 9);
  enemy_send(out.data, out.length, true);
  for (uint32_t id = 1; id <= 3; id += 2) {
    ck_assert(!result.done);
    buf_clear(&out);
    frame_append(&out, 3, 0, id, "\0\0\0\x07", 4); /* REFUSED_STREAM */
    enemy_send(out.data, out.length, true);
  }
  SUPPORT_RUN_UNTIL(base, result.done);
  ck_assert_int_eq(result.status.code, RPC_UNAVAILABLE);
  ck_assert(error_is(&result.status.error, ERR_RPC_REFUSED) && result.status.error.retryable);
  rpc_channel_close(&victim);
  buf_free(&out);
}
END_TEST

/* LIF-12: what a server that is about to end did not begin is told from what it did. */
START_TEST(a_call_that_an_ending_server_did_not_begin_is_refused) {
  static const struct {
    bool as_refused, begun, details;
    enum error_code code;
  } rows[] = {{true, false, false, ERR_RPC_REFUSED},
              {false, false, false, ERR_RPC_STATUS_CANCELLED},
              {true, true, false, ERR_RPC_STATUS_CANCELLED},
              {true, false, true, ERR_CANCELLED}};
  struct support_result result = {0};
  struct rpc_channel *victim;
  channel_to_enemy(&(struct rpc_channel_options){.cancelled_is_refused = rows[_i].as_refused}, &victim);
  struct rpc_call *call = rpc_call_open(victim, "/a.B/C", NULL, &support_stream_handler, &result);
  rpc_call_send(call, (const uint8_t *)"x", 1);
  rpc_call_half_close(call);
  struct buf out = {0}, block = {0};
  buf_append(&out, SETTINGS, 9);
  enemy_send(out.data, out.length, true);
  buf_clear(&out);
  literal_append(&block, ":status", "200", 3);
  if (rows[_i].begun) {
    frame_append(&out, 1, 4, 1, block.data, block.length);
    buf_clear(&block);
  }
  literal_append(&block, "grpc-status", "1", 1);
  literal_append(&block, "grpc-message", "CANCELLED", 9);
  if (rows[_i].details) {
    struct rpc_status said;
    uint8_t bytes[RPC_STATUS_BYTES_MAX];
    struct buf text = {0};
    rpc_status_set(&said, RPC_CANCELLED, ERR_CANCELLED, NULL);
    rpc_base64_encode(&text, bytes, rpc_status_encode(&said, bytes));
    literal_append(&block, "grpc-status-details-bin", text.data, text.length);
    buf_free(&text);
  }
  frame_append(&out, 1, 5, 1, block.data, block.length);
  enemy_send(out.data, out.length, true);
  SUPPORT_RUN_UNTIL(base, result.done);
  ck_assert(error_is(&result.status.error, rows[_i].code));
  ck_assert(rpc_channel_is_connected(victim) == (rows[_i].code != ERR_RPC_REFUSED));
  rpc_channel_close(&victim);
  buf_free(&out);
  buf_free(&block);
  buf_free(&result.reply);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("hostile");
  TCase *tests = tcase_create("hostile");
  tcase_set_timeout(tests, 60);
  tcase_add_checked_fixture(tests, setup, teardown);
  tcase_add_loop_test(tests, garbage_costs_only_its_own_connection, 0, 20);
  tcase_add_loop_test(tests, half_a_frame_and_a_hang_up_leave_nothing_behind, 0, 60);
  tcase_add_loop_test(tests, bad_message_prefixes_end_their_call, 0, 6);
  tcase_add_test(tests, a_header_bomb_is_not_stored);
  tcase_add_test(tests, endless_continuations_are_cut_off);
  tcase_add_test(tests, a_flood_of_resets_ends_the_connection);
  tcase_add_test(tests, a_flood_of_pings_without_reading_is_bounded);
  tcase_add_test(tests, a_reader_that_stalls_stops_its_stream_only);
  tcase_add_test(tests, unfinished_requests_together_are_bounded);
  tcase_add_loop_test(tests, requests_that_are_not_grpc_are_turned_away, 0, 14);
  tcase_add_loop_test(tests, values_that_are_only_unusual_are_served, 0, 6);
  tcase_add_loop_test(tests, a_hostile_server_cannot_hurt_its_client, 0, 11);
  tcase_add_test(tests, a_server_that_sends_garbage_fails_the_call);
  tcase_add_test(tests, a_refused_request_is_sent_once_more);
  tcase_add_loop_test(tests, a_call_that_an_ending_server_did_not_begin_is_refused, 0, 4);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_ENV);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? 0 : 1;
}
