/* twin_test.c: the HTTP/JSON twin over real sockets (TRN-2): JSON in and out, errors, streams, identity, cancelling. */
#include <sys/socket.h>
#include <sys/un.h>

#include "core/rpc/core_rpc_pbc.h"
#include "core/rpc/http/core_rpc_http.h"
#include "core/rpc/test_harness.h"
#include "core/spi/session/v1/session.pb-c.h"

#define SERVICE "/core.spi.session.v1.SessionEventService/"

/* ---- the services ---- */

static void session_create(struct core_rpc_call *call, void *user) {
  struct arena *arena = arena_create(0);
  size_t length;
  const char *metadata = core_rpc_call_metadata(call, "gatehouse-channel-secret", &length);
  (void)user;
  const Core__Spi__Session__V1__CreateSessionRequest *request =
      (const void *)core_rpc_call_unpack(call, &core__spi__session__v1__create_session_request__descriptor, arena);
  if (request != NULL) {
    Core__Spi__Session__V1__Session session = CORE__SPI__SESSION__V1__SESSION__INIT;
    Core__Spi__Session__V1__CreateSessionResponse response = CORE__SPI__SESSION__V1__CREATE_SESSION_RESPONSE__INIT;
    session.session_id =
        arena_printf(arena, "%s %d", core_rpc_call_peer(call)->listener, core_rpc_call_peer(call)->pid);
    session.protocol_family = request->protocol_family;
    session.server_id = arena_printf(arena, "%.*s", (int)length, metadata == NULL ? "" : metadata);
    session.expires_at_ms = core_rpc_call_remaining_ms(call);
    response.session = &session;
    core_rpc_call_reply_message(call, &response.base);
  }
  arena_free(&arena);
}

static void session_get(struct core_rpc_call *call, void *user) {
  struct error err;
  (void)user;
  error_set(&err, ERR_RATE_LIMIT_EXCEEDED, "say \"please\"");
  err.retry_after_ms = 1500;
  core_rpc_call_fail(call, &err);
}

struct replay {
  uint64_t next, last;
};
static atomic_uint replay_ended;

static void replay_more(struct core_rpc_call *call, void *user) {
  struct replay *replay = user;
  static uint8_t data[600];
  Core__Spi__Session__V1__SessionEvent event = CORE__SPI__SESSION__V1__SESSION_EVENT__INIT;
  event.data = (ProtobufCBinaryData){.data = data, .len = sizeof(data)};
  for (event.event_id = replay->next; event.event_id <= replay->last; event.event_id = ++replay->next)
    if (!core_rpc_call_send_message(call, &event.base))
      return;
  if (replay->last % 10 == 7)
    core_rpc_call_fail_code(call, ERR_SESSION_NOT_FOUND);
  else
    core_rpc_call_finish(call);
}

static void replay_cancel(struct core_rpc_call *call, void *user) {
  (void)user;
  core_rpc_call_finish(call);
}

static void replay_free(void *user) {
  base_free(user);
  atomic_fetch_add(&replay_ended, 1);
}

static void session_replay(struct core_rpc_call *call, void *user) {
  static const struct core_rpc_call_events events = {
      .on_cancel = replay_cancel, .on_writable = replay_more, .on_free = replay_free};
  struct arena *arena = arena_create(0);
  (void)user;
  const Core__Spi__Session__V1__ReplayEventsRequest *request =
      (const void *)core_rpc_call_unpack(call, &core__spi__session__v1__replay_events_request__descriptor, arena);
  if (request != NULL) {
    struct replay *replay = BASE_NEW(struct replay);
    *replay = (struct replay){.next = 1, .last = request->after_event_id};
    core_rpc_call_events_set(call, &events, replay);
    replay_more(call, replay);
  }
  arena_free(&arena);
}

static const struct core_rpc_method methods[] = {
    {SERVICE "CreateSession", CORE_RPC_UNARY, session_create, NULL},
    {SERVICE "GetSession", CORE_RPC_UNARY, session_get, NULL},
    {SERVICE "ReplayEvents", CORE_RPC_SERVER_STREAM, session_replay, NULL},
    {SERVICE "DeleteSession", CORE_RPC_UNARY, test_hold, &test_service_state},
};

/* ---- the frame ---- */

static atomic_uint peers_accepted, peers_closed;
static atomic_bool peers_refused;

static bool peer_accept(struct core_rpc_peer *peer, void *user) {
  (void)user;
  (void)peer;
  if (atomic_load(&peers_refused))
    return false;
  atomic_fetch_add(&peers_accepted, 1);
  return true;
}

static void peer_close(struct core_rpc_peer *peer, void *user) {
  (void)user;
  (void)peer;
  atomic_fetch_add(&peers_closed, 1);
}

static char *twin_path;

static void twin_start(struct harness *harness) {
  harness_prepare(harness, NULL);
  core_rpc_server_register(harness->loop, methods, sizeof(methods) / sizeof(methods[0]));
  twin_path = base_asprintf("%s/core.http.sock", harness->directory);
  ck_assert_ptr_nonnull(core_rpc_http_listen(harness->loop,
                                             &(struct core_rpc_listen_options){.path = twin_path,
                                                                               .name = "twin",
                                                                               .owner_uid = (uid_t)-1,
                                                                               .owner_gid = (gid_t)-1,
                                                                               .on_accept = peer_accept,
                                                                               .on_close = peer_close},
                                             NULL));
  harness_go(harness);
}

static void twin_stop(struct harness *harness) {
  harness_stop(harness, 500);
  base_free(twin_path);
}

static int twin_connect(void) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  memcpy(address.sun_path, twin_path, strlen(twin_path) + 1);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ck_assert_int_eq(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
  return fd;
}

static void twin_send(int fd, const char *verb, const char *path, const char *headers, const char *body) {
  char *text = base_asprintf("%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n%s\r\n%s", verb, path,
                             strlen(body), headers, body);
  ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
  base_free(text);
}

static struct buf twin_read_all(int fd) {
  struct buf answer = {0};
  char part[65536];
  for (ssize_t count; (count = read(fd, part, sizeof(part))) > 0;)
    buf_append(&answer, part, (size_t)count);
  close(fd);
  return answer;
}

static struct buf twin_ask(const char *verb, const char *path, const char *headers, const char *body) {
  int fd = twin_connect();
  char *all = base_asprintf("Connection: close\r\n%s", headers);
  twin_send(fd, verb, path, all, body);
  base_free(all);
  return twin_read_all(fd);
}

static unsigned count_of(const char *text, const char *word) {
  unsigned count = 0;
  while ((text = strstr(text, word)) != NULL) {
    count++;
    text += strlen(word);
  }
  return count;
}

/* ---- cases ---- */

START_TEST(a_unary_call_carries_json_metadata_identity_and_deadline) {
  struct harness harness;
  twin_start(&harness);
  struct buf answer = twin_ask("POST", SERVICE "CreateSession",
                               "Gatehouse-Channel-Secret: s3cret\r\nX-Timeout-Ms: 60000\r\nCookie: no\r\n"
                               "Content-Type: application/json; charset=utf-8\r\n",
                               "{\"protocolFamily\":\"mcp\"}");
  ck_assert_int_eq(strncmp(answer.data, "HTTP/1.1 200 ", 13), 0);
  char *session = base_asprintf("\"sessionId\":\"twin %d\",\"protocolFamily\":\"mcp\",", getpid());
  ck_assert_ptr_nonnull(strstr(answer.data, session));
  ck_assert_ptr_nonnull(strstr(answer.data, "\"serverId\":\"s3cret\""));
  const char *remaining = strstr(answer.data, "\"expiresAtMs\":\"");
  ck_assert_ptr_nonnull(remaining);
  long remaining_ms = strtol(remaining + 15, NULL, 10);
  ck_assert_msg(remaining_ms > 30000 && remaining_ms <= 60000, "%ld", remaining_ms);
  base_free(session);
  buf_free(&answer);
  answer = twin_ask("POST", "/grpc.health.v1.Health/Check", "grpc-timeout: 5S\r\n", "");
  ck_assert_ptr_nonnull(strstr(answer.data, "{\"status\":\"SERVING\"}"));
  buf_free(&answer);
  twin_stop(&harness);
}
END_TEST

START_TEST(every_refusal_has_its_status_and_the_error_envelope) {
  static const struct {
    const char *verb, *path, *headers, *body, *status, *code;
  } rows[] = {
      {"GET", SERVICE "GetSession", "", "", "405", "http.malformed"},
      {"POST", "/core.spi.session.v1.SessionEventService/Nothing", "", "{}", "404", "rpc.method.unknown"},
      {"POST", "/", "", "{}", "404", "rpc.method.unknown"},
      {"POST", SERVICE "GetSession", "Content-Type: text/plain\r\n", "{}", "415", "http.malformed"},
      {"POST", SERVICE "GetSession", "", "{", "400", "json.malformed"},
      {"POST", SERVICE "GetSession", "", "[]", "400", ""},
      {"POST", SERVICE "GetSession", "", "{\"nothing\":1}", "400", "argument.invalid"},
      {"POST", SERVICE "GetSession", "grpc-timeout: soon\r\n", "{}", "400", "argument.invalid"},
      {"POST", SERVICE "GetSession", "x-timeout-ms: -1\r\n", "{}", "400", "argument.invalid"},
      {"POST", SERVICE "GetSession", "", "{}", "429", "rate_limit.exceeded"},
      {"POST", SERVICE "DeleteSession", "x-timeout-ms: 100\r\n", "{}", "504", "deadline.exceeded"},
      {"POST", SERVICE "TouchSession", "", "{}", "", "rpc.method.unknown"}, /* in the contract, not served */
      {"POST", SERVICE "ReplayEvents", "", "{\"afterEventId\":\"x\"}", "400", "argument.invalid"},
  };
  struct harness harness;
  twin_start(&harness);
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    struct buf answer = twin_ask(rows[i].verb, rows[i].path, rows[i].headers, rows[i].body);
    ck_assert_msg(answer.length > 12 && strncmp(answer.data + 9, rows[i].status, strlen(rows[i].status)) == 0,
                  "row %zu: %s", i, answer.data);
    char *code = base_asprintf("\"code\":\"%s", rows[i].code);
    ck_assert_msg(strstr(answer.data, "{\"error\":{\"category\":\"") != NULL && strstr(answer.data, code) != NULL,
                  "row %zu: %s", i, answer.data);
    base_free(code);
    buf_free(&answer);
  }
  struct buf limited = twin_ask("POST", SERVICE "GetSession", "", "{}");
  ck_assert_ptr_nonnull(strstr(limited.data,
                               "{\"error\":{\"category\":\"RATE_LIMITED\",\"code\":\"rate_limit.exceeded\","
                               "\"message\":\"say \\\"please\\\"\",\"origin\":\"core\",\"retryable\":true,"
                               "\"retryAfterMs\":1500,\"traceId\":\"\"}}"));
  ck_assert_ptr_nonnull(strcasestr(limited.data, "retry-after: 2"));
  buf_free(&limited);
  twin_stop(&harness);
}
END_TEST

START_TEST(a_stream_is_one_json_object_a_line_and_ends_with_its_error) {
  struct harness harness;
  twin_start(&harness);
  struct buf answer = twin_ask("POST", SERVICE "ReplayEvents", "", "{\"afterEventId\":\"2000\"}");
  ck_assert_ptr_nonnull(strstr(answer.data, "application/x-ndjson"));
  ck_assert_uint_eq(count_of(answer.data, "{\"eventId\":\""), 2000);
  ck_assert_ptr_nonnull(strstr(answer.data, "{\"eventId\":\"2000\""));
  ck_assert_ptr_null(strstr(answer.data, "\"error\""));
  buf_free(&answer);
  answer = twin_ask("POST", SERVICE "ReplayEvents", "", "{\"afterEventId\":\"7\"}");
  ck_assert_uint_eq(count_of(answer.data, "{\"eventId\":\""), 7);
  ck_assert_ptr_nonnull(strstr(answer.data, "{\"error\":{\"category\":\"NOT_FOUND\",\"code\":\"session.not_found\""));
  buf_free(&answer);
  answer = twin_ask("POST", SERVICE "ReplayEvents", "", "{}");
  ck_assert_int_eq(strncmp(answer.data, "HTTP/1.1 200 ", 13), 0);
  buf_free(&answer);
  twin_stop(&harness);
}
END_TEST

START_TEST(one_connection_serves_many_calls_with_one_identity) {
  struct harness harness;
  twin_start(&harness);
  int fd = twin_connect();
  struct buf answers = {0};
  char part[4096];
  for (unsigned i = 1; i <= 20; i++) {
    twin_send(fd, "POST", "/grpc.health.v1.Health/Check", "", "{}");
    while (answers.length == 0 || count_of(answers.data, "SERVING") < i) {
      ssize_t count = read(fd, part, sizeof(part));
      ck_assert_int_gt(count, 0);
      buf_append(&answers, part, (size_t)count);
    }
  }
  ck_assert_uint_eq(atomic_load(&peers_accepted), 1);
  close(fd);
  buf_free(&answers);
  WAIT_UNTIL(atomic_load(&peers_closed) == 1);
  atomic_store(&peers_refused, true);
  struct buf refused = twin_ask("POST", "/grpc.health.v1.Health/Check", "", "{}");
  ck_assert_int_eq(strncmp(refused.data, "HTTP/1.1 401 ", 13), 0);
  ck_assert_ptr_nonnull(strstr(refused.data, "auth.channel.denied"));
  buf_free(&refused);
  twin_stop(&harness);
}
END_TEST

START_TEST(a_client_that_leaves_cancels_its_call) {
  struct harness harness;
  twin_start(&harness);
  int held = twin_connect(), stream = twin_connect();
  twin_send(held, "POST", SERVICE "DeleteSession", "", "{}");
  twin_send(stream, "POST", SERVICE "ReplayEvents", "", "{\"afterEventId\":\"100000000\"}");
  WAIT_UNTIL(test_service_state.held == 1);
  char byte;
  ck_assert_int_eq(read(stream, &byte, 1), 1);
  usleep(100000); /* the stream fills up what it may and waits */
  close(held);
  close(stream);
  WAIT_UNTIL(test_service_state.cancelled == 1 && atomic_load(&replay_ended) == 1);
  WAIT_UNTIL(atomic_load(&peers_closed) == 2);
  twin_stop(&harness);
}
END_TEST

START_TEST(stopping_lets_a_call_finish_and_answers_what_is_still_open_after_the_grace_time) {
  struct harness harness;
  twin_start(&harness);
  int held = twin_connect(), idle = twin_connect(), stream = twin_connect();
  twin_send(held, "POST", SERVICE "DeleteSession", "", "{}");
  twin_send(stream, "POST", SERVICE "ReplayEvents", "", "{\"afterEventId\":\"100000000\"}");
  WAIT_UNTIL(test_service_state.held == 1);
  core_rpc_loop_stop(harness.loop, 100);
  struct buf answer = twin_read_all(idle); /* closed although nothing was asked */
  ck_assert_uint_eq(answer.length, 0);
  answer = twin_read_all(held);
  ck_assert_int_eq(strncmp(answer.data, "HTTP/1.1 503 ", 13), 0);
  ck_assert_ptr_nonnull(strstr(answer.data, "call.cancelled"));
  buf_free(&answer);
  pthread_join(harness.thread, NULL);
  core_rpc_loop_free(&harness.loop);
  answer = twin_read_all(stream);
  buf_free(&answer);
  harness_remove_directory(&harness);
  base_free(twin_path);
}
END_TEST

TEST_MAIN("core_rpc_http.twin", a_unary_call_carries_json_metadata_identity_and_deadline,
          every_refusal_has_its_status_and_the_error_envelope,
          a_stream_is_one_json_object_a_line_and_ends_with_its_error,
          one_connection_serves_many_calls_with_one_identity, a_client_that_leaves_cancels_its_call,
          stopping_lets_a_call_finish_and_answers_what_is_still_open_after_the_grace_time)
