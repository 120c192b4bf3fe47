/* http1_test.c: HTTP/1.1 over real sockets: what is refused and how, sizes, times, pipelining, disconnects. */
#include <check.h>

#include "sdk/base/test_statics.h"
#include "sdk/http/http_test_support.h"

static struct http_server_limits limits_default(void) {
  struct http_server_options options;
  http_server_options_init(&options);
  return options.limits;
}

#define HOST "Host: h\r\n"

static const struct {
  const char *name;
  const char *bytes;
  int status;
  bool closed; /* the server closes the connection after the reply */
} messages[] = {
    {"simple", "GET / HTTP/1.1\r\n" HOST "\r\n", 200, false},
    {"leading empty lines", "\r\n\r\nGET / HTTP/1.1\r\n" HOST "\r\n", 200, false},
    {"connection close", "GET / HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n", 200, true},
    {"http/1.0 without host", "GET / HTTP/1.0\r\n\r\n", 200, true},
    {"http/1.0 keep-alive", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200, false},
    {"absolute form", "GET http://other:81/x?y HTTP/1.1\r\n" HOST "\r\n", 200, false},
    {"absolute form with credentials", "GET http://u:p@other/ HTTP/1.1\r\n" HOST "\r\n", 400, true},
    {"unknown method reaches the handler", "PROPFIND / HTTP/1.1\r\n" HOST "\r\n", 200, false},
    {"made-up method reaches the handler", "X-!Y / HTTP/1.1\r\n" HOST "\r\n", 200, false},
    {"asterisk for options", "OPTIONS * HTTP/1.1\r\n" HOST "\r\n", 200, false},
    {"asterisk for get", "GET * HTTP/1.1\r\n" HOST "\r\n", 400, true},
    {"upgrade ignored", "GET / HTTP/1.1\r\n" HOST "Connection: upgrade\r\nUpgrade: h2c\r\n\r\n", 200, false},
    {"connect", "CONNECT h:1 HTTP/1.1\r\n" HOST "\r\n", 501, true},
    {"bad method", "G@T / HTTP/1.1\r\n" HOST "\r\n", 400, true},
    {"no version", "GET /\r\n\r\n", 400, true},
    {"http/2 version", "GET / HTTP/2.0\r\n" HOST "\r\n", 505, true},
    {"http/9 version", "GET / HTTP/9.9\r\n" HOST "\r\n", 505, true},
    {"two spaces", "GET  / HTTP/1.1\r\n" HOST "\r\n", 400, true},
    {"space in target", "GET /a b HTTP/1.1\r\n" HOST "\r\n", 400, true},
    {"high byte in target", "GET /\xc3\xa4 HTTP/1.1\r\n" HOST "\r\n", 400, true},
    {"fragment", "GET /a#b HTTP/1.1\r\n" HOST "\r\n", 400, true},
    {"broken escape", "GET /%zz HTTP/1.1\r\n" HOST "\r\n", 400, true},
    {"cut escape", "GET /%4 HTTP/1.1\r\n" HOST "\r\n", 400, true},
    {"escaped nul", "GET /%00 HTTP/1.1\r\n" HOST "\r\n", 400, true},
    {"escaped bad utf-8", "GET /%ff HTTP/1.1\r\n" HOST "\r\n", 400, true},
    {"dot dot", "GET /a/../b HTTP/1.1\r\n" HOST "\r\n", 400, true},
    {"escaped dot dot", "GET /a/%2e%2e/b HTTP/1.1\r\n" HOST "\r\n", 400, true},
    {"missing host", "GET / HTTP/1.1\r\n\r\n", 400, true},
    {"two hosts", "GET / HTTP/1.1\r\n" HOST HOST "\r\n", 400, true},
    {"bad host", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, true},
    {"space before colon", "GET / HTTP/1.1\r\nHost : h\r\n\r\n", 400, true},
    {"no colon", "GET / HTTP/1.1\r\n" HOST "nonsense\r\n\r\n", 400, true},
    {"empty name", "GET / HTTP/1.1\r\n" HOST ": x\r\n\r\n", 400, true},
    {"folded field", "GET / HTTP/1.1\r\n" HOST "X: a\r\n b\r\n\r\n", 400, true},
    {"control byte in value", "GET / HTTP/1.1\r\n" HOST "X: a\001b\r\n\r\n", 400, true},
    {"bare lf", "GET / HTTP/1.1\n" HOST "\r\n", 400, true},
    {"bare lf at the end", "GET / HTTP/1.1\r\n" HOST "\n", 400, true},
    {"bare cr in value", "GET / HTTP/1.1\r\n" HOST "X: a\rb\r\n\r\n", 400, true},
    {"same length twice", "POST / HTTP/1.1\r\n" HOST "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400, true},
    {"other length twice", "POST / HTTP/1.1\r\n" HOST "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400, true},
    {"length list", "POST / HTTP/1.1\r\n" HOST "Content-Length: 1, 1\r\n\r\nx", 400, true},
    {"negative length", "POST / HTTP/1.1\r\n" HOST "Content-Length: -1\r\n\r\nx", 400, true},
    {"signed length", "POST / HTTP/1.1\r\n" HOST "Content-Length: +1\r\n\r\nx", 400, true},
    {"hex length", "POST / HTTP/1.1\r\n" HOST "Content-Length: 0x1\r\n\r\nx", 400, true},
    {"huge length", "POST / HTTP/1.1\r\n" HOST "Content-Length: 99999999999999999999999\r\n\r\nx", 400, true},
    {"length over the limit", "POST / HTTP/1.1\r\n" HOST "Content-Length: 999999999999\r\n\r\nx", 413, true},
    {"coding and length", "POST / HTTP/1.1\r\n" HOST "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     400, true},
    {"coding twice",
     "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, true},
    {"unknown coding", "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, true},
    {"coding in http/1.0", "POST / HTTP/1.0\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, true},
    {"chunked", "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 200, false},
    {"chunk extension", "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n", 200,
     false},
    {"trailer", "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n", 200,
     false},
    {"bad chunk size", "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n", 400, true},
    {"huge chunk size", "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffffff\r\n", 400,
     true},
    {"chunk ends with lf", "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", 400,
     true},
    {"lf in chunk extension", "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n3;a\nb\r\nabc\r\n0\r\n\r\n",
     400, true},
    {"last chunk ends with lf", "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\n", 400,
     true},
    {"folded trailer", "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0\r\nX: a\r\n b\r\n\r\n", 400,
     true},
    {"chunk longer than said", "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
     400, true},
    {"unknown expectation", "POST / HTTP/1.1\r\n" HOST "Expect: tea\r\nContent-Length: 1\r\n\r\nx", 417, true},
    {"hook refuses before the body", "POST /denied HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\n", 401, true},
    {"hook refuses without body", "GET /denied HTTP/1.1\r\n" HOST "\r\n", 401, false},
    {"limit of the hook", "POST /small HTTP/1.1\r\n" HOST "Content-Length: 11\r\n\r\n12345678901", 413, true},
    {"limit of the hook, chunked",
     "POST /small HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nb\r\n12345678901\r\n0\r\n\r\n", 413, true},
    {"binary rubbish", "\x16\x03\x01\x02\x01\n\r\n", 400, true},
};

static void check_message(struct fixture *f, size_t index, size_t piece) {
  int fd = raw_connect(f);
  raw_send(f, fd, messages[index].bytes, strlen(messages[index].bytes), piece);
  struct buf reply = {0};
  bool closed = raw_read(f, fd, &reply, messages[index].closed ? NULL : "\r\n\r\n", 2500);
  ck_assert_msg(status_of(&reply) == messages[index].status, "%s (pieces of %zu): %d, reply: %s", messages[index].name,
                piece, status_of(&reply), reply.length > 0 ? reply.data : "none");
  ck_assert_msg(closed == messages[index].closed, "%s: closed=%d", messages[index].name, closed);
  if (messages[index].status >= 400)
    ck_assert_msg(strstr(reply.data, "\"code\":\"") != NULL, "%s: no code", messages[index].name);
  close(fd);
  buf_free(&reply);
}

START_TEST(each_message_gets_its_status_and_its_end) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  check_message(&f, (size_t)_i, 0);
  check_message(&f, (size_t)_i, 1);
  ck_assert(TURN_UNTIL(&f, http_server_connection_count(f.server) == 0));
  ck_assert_uint_eq(http_server_in_flight(f.server), 0);
  fixture_close(&f);
}
END_TEST

static void exchange(struct fixture *f, const char *request, const char *until, struct buf *reply) {
  int fd = raw_connect(f);
  raw_send(f, fd, request, strlen(request), 0);
  raw_read(f, fd, reply, until, 3000);
  close(fd);
}

START_TEST(nul_in_a_value_is_refused) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  static const char bytes[] = "GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n";
  int fd = raw_connect(&f);
  raw_send(&f, fd, bytes, sizeof(bytes) - 1, 0);
  struct buf reply = {0};
  ck_assert(raw_read(&f, fd, &reply, NULL, 2500));
  ck_assert_int_eq(status_of(&reply), 400);
  close(fd);
  buf_free(&reply);
  fixture_close(&f);
}
END_TEST

START_TEST(the_request_shows_what_was_sent) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  struct buf reply = {0};
  exchange(&f,
           "PUT /%64escribe?a=1&q=x%20y+z HTTP/1.1\r\nhOST: example:80\r\nX-Many:  one \t\r\nx-many: two\r\n"
           "Content-Length: 3\r\n\r\nabc",
           "|11", &reply);
  ck_assert_ptr_nonnull(strstr(reply.data, "PUT|/describe|a=1&q=x%20y+z|example:80|x y z|one|3|11"));
  buf_free(&reply);
  exchange(&f, "GET http://abs.example/describe HTTP/1.1\r\n" HOST "\r\n", "|11", &reply);
  ck_assert_ptr_nonnull(strstr(reply.data, "GET|/describe||abs.example|-|-|0|11"));
  buf_free(&reply);
  fixture_close(&f);
}
END_TEST

START_TEST(nothing_of_a_request_stays_in_the_buffer_it_was_read_into) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  struct buf reply = {0};
  int fd = raw_connect(&f);
  const char *request =
      "POST /echo HTTP/1.1\r\n" HOST "Authorization: Bearer of-all-secrets\r\nContent-Length: 5\r\n\r\nquiet";
  raw_send(&f, fd, request, strlen(request), 0);
  ck_assert(!raw_read(&f, fd, &reply, "quiet", 2500)); /* answered, and the connection lives */
  ck_assert(!statics_hold("Bearer of-all-secrets"));
  ck_assert(!statics_hold("quiet"));
  close(fd);
  buf_free(&reply);
  fixture_close(&f);
}
END_TEST

START_TEST(head_and_204_send_no_body) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  struct buf reply = {0};
  exchange(&f, "HEAD / HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n", NULL, &reply);
  ck_assert_ptr_nonnull(strstr(reply.data, "Content-Length: 5\r\n"));
  ck_assert_str_eq(strstr(reply.data, "\r\n\r\n"), "\r\n\r\n");
  buf_free(&reply);
  exchange(&f, "GET /empty HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n", NULL, &reply);
  ck_assert_int_eq(status_of(&reply), 204);
  ck_assert_ptr_null(strstr(reply.data, "Content-Length"));
  ck_assert_str_eq(strstr(reply.data, "\r\n\r\n"), "\r\n\r\n");
  buf_free(&reply);
  fixture_close(&f);
}
END_TEST

START_TEST(errors_carry_code_and_retry_after) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  struct buf reply = {0};
  exchange(&f, "GET /error HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n", NULL, &reply);
  ck_assert_int_eq(status_of(&reply), 429);
  ck_assert_ptr_nonnull(strstr(reply.data, "retry-after: 2\r\n"));
  ck_assert_ptr_nonnull(strstr(reply.data, "application/problem+json"));
  ck_assert_ptr_nonnull(strstr(reply.data, "\"code\":\"rate_limit.exceeded\""));
  buf_free(&reply);
  fixture_close(&f);
}
END_TEST

static void check_oversize(size_t target_bytes, size_t field_bytes, unsigned fields, int status) {
  struct fixture f = {0};
  struct http_server_limits limits = limits_default();
  limits.uri_bytes_max = 100;
  limits.header_bytes_max = 2000;
  limits.header_field_bytes_max = 500;
  limits.header_count_max = 10;
  fixture_open_with(&f, &limits, NULL);
  struct buf text = {0};
  buf_printf(&text, "GET /%0*d HTTP/1.1\r\nHost: h\r\n", (int)target_bytes, 0);
  for (unsigned i = 0; i < fields; i++)
    buf_printf(&text, "X-%u: %0*d\r\n", i, (int)field_bytes, 0);
  buf_append_text(&text, "\r\n");
  struct buf reply = {0};
  exchange(&f, text.data, NULL, &reply);
  ck_assert_int_eq(status_of(&reply), status);
  buf_free(&reply);
  buf_free(&text);
  fixture_close(&f);
}

START_TEST(sizes_are_bounded) {
  check_oversize(200, 1, 0, 414);
  check_oversize(5000, 1, 0, 414);
  check_oversize(1, 600, 1, 431);
  check_oversize(1, 450, 8, 431);
  check_oversize(1, 1, 12, 431);
}
END_TEST

START_TEST(pipelined_requests_are_answered_in_order) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  int fd = raw_connect(&f);
  const char *text = "GET /pending HTTP/1.1\r\n" HOST "\r\n"
                     "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\ntwo"
                     "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 5\r\nConnection: close\r\n\r\nthree";
  raw_send(&f, fd, text, strlen(text), 0);
  ck_assert(TURN_UNTIL(&f, f.pending != NULL));
  ck_assert_uint_eq(f.handled, 1);
  http_response_send(f.pending, 200, "text/plain", "one", 3);
  struct buf reply = {0};
  ck_assert(raw_read(&f, fd, &reply, NULL, 3000));
  ck_assert_uint_eq(occurrences(&reply, "HTTP/1.1 200"), 3);
  ck_assert(strstr(reply.data, "one") < strstr(reply.data, "two"));
  ck_assert(strstr(reply.data, "two") < strstr(reply.data, "three"));
  close(fd);
  buf_free(&reply);
  fixture_close(&f);
}
END_TEST

START_TEST(bytes_read_ahead_are_bounded_and_a_disconnect_is_still_seen) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  int fd = raw_connect(&f);
  const char *first = "GET /pending HTTP/1.1\r\n" HOST "\r\n";
  raw_send(&f, fd, first, strlen(first), 0);
  ck_assert(TURN_UNTIL(&f, f.pending != NULL));
  char waste[4096] = {0};
  memset(waste, 'x', sizeof(waste));
  for (int i = 0; i < 40; i++) /* more than is read ahead, less than the socket's buffers hold: the FIN gets through */
    raw_send(&f, fd, waste, sizeof(waste), 0);
  ck_assert_uint_eq(f.closes, 0);
  close(fd);
  ck_assert(TURN_UNTIL(&f, f.closes == 1));
  http_request_abort(f.pending);
  ck_assert(TURN_UNTIL(&f, http_server_connection_count(f.server) == 0));
  fixture_close(&f);
}
END_TEST

START_TEST(a_disconnect_is_told_once_while_the_reply_is_pending) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  int fd = raw_connect(&f);
  const char *text = "GET /pending HTTP/1.1\r\n" HOST "\r\nGET / HTTP/1.1\r\n" HOST "\r\n";
  raw_send(&f, fd, text, strlen(text), 0);
  ck_assert(TURN_UNTIL(&f, f.pending != NULL));
  struct linger reset = {.l_onoff = 1};
  if (_i == 1)
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
  close(fd);
  ck_assert(TURN_UNTIL(&f, f.closes == 1));
  ck_assert_int_eq(f.close_reason, _i == 1 ? HTTP_CLOSE_PEER : HTTP_CLOSE_HALF);
  http_response_send(f.pending, 200, "text/plain", "late", 4); /* discarded or failing, never a crash */
  ck_assert(TURN_UNTIL(&f, http_server_connection_count(f.server) == 0));
  ck_assert_uint_eq(f.closes, 1);
  ck_assert_uint_eq(http_server_in_flight(f.server), 0);
  fixture_close(&f);
}
END_TEST

START_TEST(a_half_closing_client_still_gets_its_replies) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  int fd = raw_connect(&f);
  const char *text = "GET /pending HTTP/1.1\r\n" HOST "\r\nGET / HTTP/1.1\r\n" HOST "\r\n";
  raw_send(&f, fd, text, strlen(text), 0);
  shutdown(fd, SHUT_WR);
  ck_assert(TURN_UNTIL(&f, f.closes == 1));
  ck_assert_int_eq(f.close_reason, HTTP_CLOSE_HALF);
  ck_assert(!http_request_is_gone(f.pending));
  http_response_send(f.pending, 200, "text/plain", "late", 4);
  struct buf reply = {0};
  ck_assert(raw_read(&f, fd, &reply, NULL, 3000));
  ck_assert_ptr_nonnull(strstr(reply.data, "late"));
  ck_assert_ptr_nonnull(strstr(reply.data, "hello"));
  close(fd);
  buf_free(&reply);
  fixture_close(&f);
}
END_TEST

START_TEST(on_close_set_after_the_disconnect_is_called_from_the_loop) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  int fd = raw_connect(&f);
  const char *text = "GET /pending HTTP/1.1\r\n" HOST "\r\n";
  raw_send(&f, fd, text, strlen(text), 0);
  ck_assert(TURN_UNTIL(&f, f.pending != NULL));
  http_request_on_close(f.pending, NULL, NULL);
  close(fd);
  for (int i = 0; i < 20; i++)
    turn(&f);
  http_request_on_close(f.pending, fixture_on_close, &f);
  ck_assert_uint_eq(f.closes, 0);
  ck_assert(TURN_UNTIL(&f, f.closes == 1));
  http_request_abort(f.pending);
  fixture_close(&f);
}
END_TEST

START_TEST(slow_requests_time_out) {
  static const struct {
    const char *bytes;
    int status;
  } cases[] = {
      {"GET / HTTP/1.1\r\nHost:", 408},
      {"POST / HTTP/1.1\r\n" HOST "Content-Length: 10\r\n\r\nabc", 408},
      {"", 0}, /* idle: closed without a word */
  };
  struct fixture f = {0};
  struct http_server_limits limits = limits_default();
  limits.header_timeout_ms = limits.body_timeout_ms = limits.idle_timeout_ms = 50;
  fixture_open_with(&f, &limits, NULL);
  int fd = raw_connect(&f);
  raw_send(&f, fd, cases[_i].bytes, strlen(cases[_i].bytes), 0);
  struct buf reply = {0};
  ck_assert(raw_read(&f, fd, &reply, NULL, 3000));
  ck_assert_int_eq(status_of(&reply), cases[_i].status);
  close(fd);
  buf_free(&reply);
  fixture_close(&f);
}
END_TEST

START_TEST(expect_continue_is_answered) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  int fd = raw_connect(&f);
  const char *head = "POST /echo HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n";
  raw_send(&f, fd, head, strlen(head), 0);
  struct buf reply = {0};
  raw_read(&f, fd, &reply, "100 Continue\r\n\r\n", 3000);
  ck_assert_int_eq(status_of(&reply), 100);
  raw_send(&f, fd, "abc", 3, 0);
  raw_read(&f, fd, &reply, "abc", 3000);
  ck_assert_ptr_nonnull(strstr(reply.data, "HTTP/1.1 200"));
  close(fd);
  buf_free(&reply);
  fixture_close(&f);
}
END_TEST

START_TEST(reply_fields_with_line_breaks_are_refused) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  int fd = raw_connect(&f);
  const char *text = "GET /pending HTTP/1.1\r\n" HOST "\r\n";
  raw_send(&f, fd, text, strlen(text), 0);
  ck_assert(TURN_UNTIL(&f, f.pending != NULL));
  ck_assert(!http_response_header_add(f.pending, "x", "a\r\nSet-Cookie: b"));
  ck_assert(!http_response_header_add(f.pending, "x y", "a"));
  ck_assert(!http_response_header_add(f.pending, "Content-Length", "1"));
  ck_assert(http_response_header_add(f.pending, "X-Good", "a"));
  http_response_send(f.pending, 200, NULL, NULL, 0);
  struct buf reply = {0};
  raw_read(&f, fd, &reply, "\r\n\r\n", 3000);
  ck_assert_ptr_null(strstr(reply.data, "Set-Cookie"));
  ck_assert_ptr_nonnull(strstr(reply.data, "x-good: a\r\n"));
  close(fd);
  buf_free(&reply);
  fixture_close(&f);
}
END_TEST

static const char *render_own(void *context, int status, const struct error *error, const char *path,
                              struct buf *body) {
  (void)context;
  buf_printf(body, "own %d %s %s", status, error->code, path != NULL ? path : "-");
  return "text/x-own";
}

START_TEST(the_module_may_render_the_servers_errors) {
  struct fixture f = {0};
  struct http_server_options options;
  http_server_options_init(&options);
  options.on_request = fixture_on_request;
  options.render_error = render_own;
  options.context = &f;
  f.base = http_event_base_new();
  f.server = http_server_create(f.base, &options);
  ck_assert(http_server_listen_fd(f.server, fixture_listen(&f.port), NULL, NULL));
  struct buf reply = {0};
  exchange(&f, "GET /a HTTP/1.1\r\n\r\n", NULL, &reply);
  ck_assert_ptr_nonnull(strstr(reply.data, "Content-Type: text/x-own\r\n"));
  ck_assert_ptr_nonnull(strstr(reply.data, "\r\n\r\nown 400 http.malformed -"));
  buf_free(&reply);
  fixture_close(&f);
}
END_TEST

START_TEST(abort_cuts_the_connection) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  struct buf reply = {0};
  exchange(&f, "GET /abort HTTP/1.1\r\n" HOST "\r\n", NULL, &reply);
  ck_assert_uint_eq(reply.length, 0);
  ck_assert(TURN_UNTIL(&f, http_server_connection_count(f.server) == 0));
  fixture_close(&f);
}
END_TEST

int main(void) {
  log_init("test", LOG_FATAL);
  Suite *suite = suite_create("http1");
  TCase *tcase = tcase_create("http1");
  tcase_set_timeout(tcase, 30);
  tcase_add_loop_test(tcase, each_message_gets_its_status_and_its_end, 0,
                      (int)(sizeof(messages) / sizeof(messages[0])));
  tcase_add_test(tcase, nul_in_a_value_is_refused);
  tcase_add_test(tcase, the_request_shows_what_was_sent);
  tcase_add_test(tcase, nothing_of_a_request_stays_in_the_buffer_it_was_read_into);
  tcase_add_test(tcase, head_and_204_send_no_body);
  tcase_add_test(tcase, errors_carry_code_and_retry_after);
  tcase_add_test(tcase, sizes_are_bounded);
  tcase_add_test(tcase, pipelined_requests_are_answered_in_order);
  tcase_add_test(tcase, bytes_read_ahead_are_bounded_and_a_disconnect_is_still_seen);
  tcase_add_loop_test(tcase, a_disconnect_is_told_once_while_the_reply_is_pending, 0, 2);
  tcase_add_test(tcase, a_half_closing_client_still_gets_its_replies);
  tcase_add_test(tcase, on_close_set_after_the_disconnect_is_called_from_the_loop);
  tcase_add_loop_test(tcase, slow_requests_time_out, 0, 3);
  tcase_add_test(tcase, expect_continue_is_answered);
  tcase_add_test(tcase, reply_fields_with_line_breaks_are_refused);
  tcase_add_test(tcase, the_module_may_render_the_servers_errors);
  tcase_add_test(tcase, abort_cuts_the_connection);
  suite_add_tcase(suite, tcase);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? 0 : 1;
}
