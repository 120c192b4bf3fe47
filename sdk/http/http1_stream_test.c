/* http1_stream_test.c: over HTTP/1.1: streamed bodies and replies, server-sent events, back-pressure, adopting
 * descriptors, connection limits, drain. */
#include "sdk/base/test.h"

#include "sdk/http/http_test_support.h"

#define HOST "Host: h\r\n"

static struct http_server_limits limits_default(void) {
  struct http_server_options options;
  http_server_options_init(&options);
  return options.limits;
}

START_TEST(a_streamed_body_arrives_in_pieces) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  int fd = raw_connect(&f);
  const char *text =
      "POST /upload HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n3\r\nfgh\r\n0\r\n\r\n";
  raw_send(&f, fd, text, strlen(text), 1);
  struct buf reply = {0};
  raw_read(&f, fd, &reply, "streamed", 3000);
  ck_assert_uint_eq(f.streamed_bytes, 8);
  ck_assert(f.streamed_end);
  close(fd);
  buf_free(&reply);
  fixture_close(&f);
}
END_TEST

START_TEST(a_streamed_body_that_breaks_is_told) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  int fd = raw_connect(&f);
  const char *text = "POST /upload HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\nzz\r\n";
  raw_send(&f, fd, text, strlen(text), 0);
  ck_assert(TURN_UNTIL(&f, f.closes == 1));
  ck_assert_int_eq(f.close_reason, HTTP_CLOSE_MALFORMED);
  http_request_abort(f.pending);
  ck_assert(TURN_UNTIL(&f, http_server_connection_count(f.server) == 0));
  close(fd);
  fixture_close(&f);
}
END_TEST

START_TEST(a_streamed_reply_is_chunked) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  int fd = raw_connect(&f);
  const char *text = "GET /stream HTTP/1.1\r\n" HOST "\r\n";
  raw_send(&f, fd, text, strlen(text), 0);
  ck_assert(TURN_UNTIL(&f, f.pending != NULL));
  ck_assert(http_response_write(f.pending, "hello", 5));
  http_response_end(f.pending);
  struct buf reply = {0};
  raw_read(&f, fd, &reply, "0\r\n\r\n", 3000);
  ck_assert_ptr_nonnull(strstr(reply.data, "\r\n\r\n5\r\nhello\r\n0\r\n\r\n"));
  close(fd);
  buf_free(&reply);
  fixture_close(&f);
}
END_TEST

/* A failed write dooms the connection, which is freed a turn later: the handler that gives up in between, and the next
 * one, which gets the same request object, must not meet it there. */
START_TEST(a_stream_that_is_ended_after_its_client_reset_is_forgotten) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  const struct linger reset = {.l_onoff = 1, .l_linger = 0};
  const char *text = "GET /stream HTTP/1.1\r\n" HOST "\r\n";
  void (*const ends[])(struct http_request *) = {http_response_end, http_request_abort};
  for (size_t i = 0; i < 2; i++) {
    int fd = raw_connect(&f);
    raw_send(&f, fd, text, strlen(text), 0);
    ck_assert(TURN_UNTIL(&f, f.pending != NULL));
    ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
    close(fd);
    while (http_response_write(f.pending, "hello", 5)) /* no turn in between: the write finds out */
      continue;
    ends[i](BASE_TAKE(f.pending));
    ck_assert_uint_eq(http_server_in_flight(f.server), 0);
    ck_assert(TURN_UNTIL(&f, http_server_connection_count(f.server) == 0));
    ck_assert_uint_eq(f.closes, 0);
  }
  fixture_close(&f);
}
END_TEST

START_TEST(sse_frames_events_and_keeps_alive) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  int fd = raw_connect(&f);
  const char *text = "GET /sse HTTP/1.0\r\n\r\n"; /* without chunks, for readability */
  raw_send(&f, fd, text, strlen(text), 0);
  ck_assert(TURN_UNTIL(&f, f.pending != NULL));
  ck_assert(http_sse_event(f.pending, "7", "note", "a\nb\r\nc", 6));
  ck_assert(!http_sse_event(f.pending, "7\n8", NULL, "x", 1));
  ck_assert(http_sse_retry(f.pending, 250));
  struct buf reply = {0};
  raw_read(&f, fd, &reply, ": keep-alive\n\n", 3000);
  http_response_end(f.pending);
  ck_assert(raw_read(&f, fd, &reply, NULL, 3000));
  ck_assert_ptr_nonnull(strstr(reply.data, "x-accel-buffering: no"));
  ck_assert_ptr_nonnull(strstr(reply.data, "event: note\nid: 7\ndata: a\ndata: b\ndata: c\n\nretry: 250\n\n"));
  ck_assert_ptr_nonnull(strstr(reply.data, ": keep-alive\n\n"));
  close(fd);
  buf_free(&reply);
  fixture_close(&f);
}
END_TEST

START_TEST(a_reader_that_never_reads_is_bounded_and_dropped) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  int fd = raw_connect(&f);
  const char *text = "GET /sse HTTP/1.1\r\n" HOST "\r\n";
  raw_send(&f, fd, text, strlen(text), 0);
  ck_assert(TURN_UNTIL(&f, f.pending != NULL));
  static char data[8192];
  memset(data, 'd', sizeof(data));
  size_t most = 0;
  unsigned events = 0;
  bool congested = false;
  while (events < 5000 && http_sse_event(f.pending, NULL, NULL, data, sizeof(data))) {
    events++;
    congested = congested || http_response_is_congested(f.pending);
    size_t queued = http_response_queued_bytes(f.pending);
    most = queued > most ? queued : most;
    turn(&f);
  }
  ck_assert(congested);
  ck_assert_uint_lt(events, 5000);
  ck_assert_uint_le(most, 4194304 + 8192 + 64);
  ck_assert_uint_eq(f.closes, 0); /* told from the loop, not from inside the call */
  ck_assert(TURN_UNTIL(&f, f.closes == 1));
  ck_assert_int_eq(f.close_reason, HTTP_CLOSE_SLOW);
  http_response_end(f.pending);
  close(fd);
  fixture_close(&f);
}
END_TEST

START_TEST(a_congested_stream_is_told_when_it_drained) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  int fd = raw_connect(&f);
  const char *text = "GET /stream HTTP/1.1\r\n" HOST "\r\n";
  raw_send(&f, fd, text, strlen(text), 0);
  ck_assert(TURN_UNTIL(&f, f.pending != NULL));
  static char data[65536];
  memset(data, 'd', sizeof(data));
  unsigned writes = 0;
  while (!http_response_is_congested(f.pending) && writes++ < 1000)
    ck_assert(http_response_write(f.pending, data, sizeof(data)));
  ck_assert(http_response_is_congested(f.pending));
  ck_assert_uint_eq(f.drained, 0);
  struct buf reply = {0};
  while (f.drained == 0 && !raw_read(&f, fd, &reply, NULL, 5))
    buf_clear(&reply);
  ck_assert_uint_eq(f.drained, 1);
  http_response_end(f.pending);
  close(fd);
  buf_free(&reply);
  fixture_close(&f);
}
END_TEST

START_TEST(a_client_that_stops_taking_its_reply_times_out) {
  struct fixture f = {0};
  struct http_server_limits limits = limits_default();
  limits.write_timeout_ms = 50;
  fixture_open_with(&f, &limits, NULL);
  int fd = raw_connect(&f);
  const char *text = "GET /big HTTP/1.1\r\n" HOST "\r\nGET /big HTTP/1.1\r\n" HOST "\r\n";
  raw_send(&f, fd, text, strlen(text), 0);
  ck_assert(TURN_UNTIL(&f, http_server_connection_count(f.server) == 0));
  struct http_server_stats stats;
  http_server_stats_get(f.server, &stats);
  ck_assert_uint_eq(stats.clients_dropped, 1);
  close(fd);
  fixture_close(&f);
}
END_TEST

START_TEST(drain_finishes_what_is_in_flight) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  int idle = raw_connect(&f);
  int busy = raw_connect(&f);
  const char *text = "GET /pending HTTP/1.1\r\n" HOST "\r\n";
  raw_send(&f, busy, text, strlen(text), 0);
  ck_assert(TURN_UNTIL(&f, f.pending != NULL && http_server_connection_count(f.server) == 2));
  http_server_drain(f.server, 5000, fixture_on_server_drained, &f);
  ck_assert(TURN_UNTIL(&f, http_server_connection_count(f.server) == 1));
  ck_assert(!f.server_drained);
  ck_assert_uint_eq(http_server_in_flight(f.server), 1);
  http_response_send(f.pending, 200, NULL, "done", 4);
  struct buf reply = {0};
  ck_assert(raw_read(&f, busy, &reply, NULL, 3000));
  ck_assert_ptr_nonnull(strstr(reply.data, "Connection: close"));
  ck_assert(TURN_UNTIL(&f, f.server_drained));
  close(idle);
  close(busy);
  buf_free(&reply);
  fixture_close(&f);
}
END_TEST

START_TEST(a_server_that_hands_over_serves_what_comes_on_open_connections) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  int silent = raw_connect(&f); /* whose first request is still on the way */
  ck_assert(TURN_UNTIL(&f, http_server_connection_count(f.server) == 1));
  http_server_hand_over(f.server, 5000, fixture_on_server_drained, &f);
  ck_assert_uint_eq(http_server_connection_count(f.server), 1);
  const char *text = "GET /pending HTTP/1.1\r\n" HOST "\r\n";
  raw_send(&f, silent, text, strlen(text), 0);
  ck_assert(TURN_UNTIL(&f, f.pending != NULL));
  http_response_send(f.pending, 200, NULL, "done", 4);
  struct buf reply = {0};
  ck_assert(raw_read(&f, silent, &reply, NULL, 3000));
  ck_assert_ptr_nonnull(strstr(reply.data, "200 OK"));
  ck_assert_ptr_nonnull(strstr(reply.data, "Connection: close"));
  ck_assert(TURN_UNTIL(&f, f.server_drained));
  close(silent);
  buf_free(&reply);
  fixture_close(&f);
}
END_TEST

START_TEST(the_drain_deadline_closes_the_rest) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  int fd = raw_connect(&f);
  const char *text = "GET /pending HTTP/1.1\r\n" HOST "\r\n";
  raw_send(&f, fd, text, strlen(text), 0);
  ck_assert(TURN_UNTIL(&f, f.pending != NULL));
  http_server_drain(f.server, 30, fixture_on_server_drained, &f);
  ck_assert(TURN_UNTIL(&f, f.server_drained));
  ck_assert_uint_eq(f.closes, 1);
  ck_assert_int_eq(f.close_reason, HTTP_CLOSE_SHUTDOWN);
  struct http_request *survivor = f.pending;
  http_server_free(&f.server);
  http_response_send(survivor, 200, NULL, "nobody", 6); /* outlives even the server */
  close(fd);
  fixture_close(&f);
}
END_TEST

START_TEST(only_listening_descriptors_are_taken) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  struct error err;
  ck_assert(!http_server_listen_fd(f.server, fd, NULL, &err));
  ck_assert(error_is(&err, ERR_IO));
  close(fd);
  http_server_drain(f.server, 0, NULL, NULL);
  int pair[2];
  ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  ck_assert(!http_server_adopt_fd(f.server, pair[0], NULL, NULL, 0, &err));
  ck_assert(error_is(&err, ERR_MODULE_DRAINING));
  close(pair[1]);
  fixture_close(&f);
}
END_TEST

START_TEST(a_connected_descriptor_is_adopted_with_its_first_bytes) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  int pair[2];
  ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
  const char *first = "POST /echo HTTP/1.1\r\nHost: h\r\nConte";
  const char *rest = "nt-Length: 3\r\n\r\nxyz";
  ck_assert(http_server_adopt_fd(f.server, pair[0], NULL, first, strlen(first), NULL));
  raw_send(&f, pair[1], rest, strlen(rest), 0);
  struct buf reply = {0};
  raw_read(&f, pair[1], &reply, "xyz", 3000);
  ck_assert_int_eq(status_of(&reply), 200);
  close(pair[1]);
  buf_free(&reply);
  fixture_close(&f);
}
END_TEST

START_TEST(connections_over_the_limit_are_turned_away) {
  struct fixture f = {0};
  struct http_server_limits limits = limits_default();
  limits.connections_max = 1;
  fixture_open_with(&f, &limits, NULL);
  int first = raw_connect(&f);
  ck_assert(TURN_UNTIL(&f, http_server_connection_count(f.server) == 1));
  int second = raw_connect(&f);
  struct buf reply = {0};
  ck_assert(raw_read(&f, second, &reply, NULL, 3000));
  ck_assert_int_eq(status_of(&reply), 503);
  ck_assert_ptr_nonnull(strstr(reply.data, "http.connections.limit"));
  close(first);
  close(second);
  buf_free(&reply);
  fixture_close(&f);
}
END_TEST

TEST_MAIN("http.http1_stream", a_streamed_body_arrives_in_pieces, a_streamed_body_that_breaks_is_told,
          a_stream_that_is_ended_after_its_client_reset_is_forgotten, a_streamed_reply_is_chunked,
          sse_frames_events_and_keeps_alive, a_reader_that_never_reads_is_bounded_and_dropped,
          a_congested_stream_is_told_when_it_drained, a_client_that_stops_taking_its_reply_times_out,
          drain_finishes_what_is_in_flight, a_server_that_hands_over_serves_what_comes_on_open_connections,
          the_drain_deadline_closes_the_rest, only_listening_descriptors_are_taken,
          a_connected_descriptor_is_adopted_with_its_first_bytes, connections_over_the_limit_are_turned_away)
