/* connection_test.c: what happens to calls when connections come, go, drain and are refused; closing inside callbacks;
 * health. */
#include "sdk/rpc/rpc_test_fixture.h"

START_TEST(the_death_of_the_server_fails_all_calls_at_once) {
  struct support_result others[10] = {{0}};
  for (int i = 0; i < 10; i++)
    rpc_call_unary(channel, "/test.Echo/Hang", NULL, 0, NULL, support_unary_done, &others[i]);
  SUPPORT_RUN_UNTIL(base, support_handled == 10);
  int64_t start_ms = clock_monotonic_ms();
  server_stop();
  for (int i = 0; i < 10; i++) {
    SUPPORT_RUN_UNTIL(base, others[i].done);
    ck_assert_int_eq(others[i].status.code, RPC_UNAVAILABLE);
    ck_assert_str_eq(others[i].status.error.code, "rpc.peer.gone");
  }
  ck_assert_int_lt(clock_monotonic_ms() - start_ms, 1000);
  ck_assert_uint_eq(support_cancelled, 10);
  ck_assert_uint_eq(disconnected, 1);
}
END_TEST

START_TEST(a_call_fails_fast_without_a_server_and_waits_when_asked) {
  server_stop();
  call_unary("/test.Echo/Unary", NULL, 0, NULL);
  ck_assert_int_eq(result.status.code, RPC_UNAVAILABLE);
  ck_assert_str_eq(result.status.error.code, "rpc.connect.failed");
  struct support_result patient = {0};
  rpc_call_unary(channel, "/test.Echo/Unary", (const uint8_t *)"x", 1,
                 &(struct rpc_call_options){.wait_for_ready = true}, support_unary_done, &patient);
  call_unary("/test.Echo/Unary", NULL, 0, &(struct rpc_call_options){.wait_for_ready = true, .deadline_ms = 30});
  ck_assert_int_eq(result.status.code, RPC_DEADLINE_EXCEEDED);
  ck_assert(!patient.done);
  server_start(NULL);
  SUPPORT_RUN_UNTIL(base, patient.done);
  ck_assert_int_eq(patient.status.code, RPC_OK);
  buf_free(&patient.reply);
}
END_TEST

START_TEST(a_restarted_server_is_found_again) {
  for (int round = 0; round < 5; round++) {
    call_unary("/test.Echo/Unary", "x", 1, &(struct rpc_call_options){.wait_for_ready = true});
    ck_assert_int_eq(result.status.code, RPC_OK);
    server_stop();
    SUPPORT_RUN_UNTIL(base, disconnected == (unsigned)round + 1);
    server_start(NULL);
  }
  ck_assert_uint_eq(connected, 5);
}
END_TEST

static void drained(void *arg, bool clean) {
  *(int *)arg = clean ? 1 : 2;
}

START_TEST(a_drain_lets_calls_finish_and_sends_clients_away) {
  rpc_health_set(health, "", RPC_HEALTH_SERVING);
  struct support_result watch = {0}, stream = {0};
  struct rpc_call *call = rpc_call_open(channel, "/test.Echo/Bidi", NULL, &support_stream_handler, &stream);
  rpc_call_send(call, (const uint8_t *)"a", 1);
  struct rpc_call *watcher =
      rpc_call_open(channel, "/grpc.health.v1.Health/Watch", NULL, &support_stream_handler, &watch);
  rpc_call_send(watcher, NULL, 0);
  rpc_call_half_close(watcher);
  SUPPORT_RUN_UNTIL(base, stream.messages == 1 && watch.messages == 1);
  int outcome = 0;
  rpc_server_drain(server, 10000, drained, &outcome);
  ck_assert_int_ne(access(path, F_OK), 0);
  SUPPORT_RUN_UNTIL(base, disconnected == 1 && watch.done);
  ck_assert_int_eq(watch.status.code, RPC_UNAVAILABLE);
  ck_assert_int_eq(outcome, 0);
  call_unary("/test.Echo/Unary", NULL, 0, NULL);
  ck_assert_int_eq(result.status.code, RPC_UNAVAILABLE);
  rpc_call_send(call, (const uint8_t *)"b", 1);
  rpc_call_half_close(call);
  SUPPORT_RUN_UNTIL(base, stream.done && outcome != 0);
  ck_assert_int_eq(outcome, 1);
  ck_assert_int_eq(stream.status.code, RPC_OK);
  ck_assert_uint_eq(stream.messages, 2);
  buf_free(&stream.reply);
  buf_free(&watch.reply);
}
END_TEST

START_TEST(a_drain_ends_at_its_deadline) {
  struct support_result held = {0};
  rpc_call_unary(channel, "/test.Echo/Hang", NULL, 0, NULL, support_unary_done, &held);
  SUPPORT_RUN_UNTIL(base, support_handled == 1);
  int outcome = 0;
  rpc_server_drain(server, 60, drained, &outcome);
  SUPPORT_RUN_UNTIL(base, outcome != 0);
  ck_assert_int_eq(outcome, 2);
  server_stop();
  SUPPORT_RUN_UNTIL(base, held.done);
  ck_assert_int_eq(held.status.code, RPC_UNAVAILABLE);
}
END_TEST

START_TEST(passed_sockets_work_as_channel_and_connection) {
  int pair[2];
  ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  struct error err;
  ck_assert(rpc_server_accept_fd(server, pair[1], &err));
  rpc_channel_close(&channel);
  channel = rpc_channel_create_from_fd(base, pair[0], NULL);
  call_unary("/test.Echo/Unary", "hello", 5, NULL);
  ck_assert_int_eq(result.status.code, RPC_OK);
  ck_assert_str_eq(result.reply.data, "hello");
  server_stop();
  call_unary("/test.Echo/Unary", "hello", 5, &(struct rpc_call_options){.wait_for_ready = true});
  ck_assert_int_eq(result.status.code, RPC_UNAVAILABLE);
  ck_assert_str_eq(result.status.error.code, "rpc.peer.gone");
}
END_TEST

struct closer {
  struct rpc_channel **channel;
  struct rpc_server **server;
  unsigned ended;
};

static void close_in_callback(void *arg, const struct rpc_status *status, const uint8_t *reply, size_t length) {
  (void)status, (void)reply, (void)length;
  struct closer *closer = arg;
  closer->ended++;
  if (closer->channel != NULL)
    rpc_channel_close(closer->channel);
  if (closer->server != NULL)
    rpc_server_close(closer->server);
}

START_TEST(closing_everything_from_inside_a_callback_is_safe) {
  struct closer closer = {_i != 1 ? &channel : NULL, _i != 0 ? &server : NULL, 0};
  for (int i = 0; i < 5; i++)
    rpc_call_unary(channel, i == 2 ? "/test.Echo/Unary" : "/test.Echo/Hang", NULL, 0, NULL, close_in_callback, &closer);
  SUPPORT_RUN_UNTIL(base, closer.ended == 5);
}
END_TEST

static void cancel_in_message(void *arg, const uint8_t *message, size_t length) {
  (void)message, (void)length;
  struct rpc_call **call = arg;
  if (*call != NULL)
    rpc_call_cancel(BASE_TAKE(*call));
  else
    ck_abort_msg("a message after cancel");
}

START_TEST(cancelling_a_stream_inside_its_message_callback_is_safe) {
  struct rpc_stream_handler handler = {.on_message = cancel_in_message};
  struct rpc_call *call = NULL;
  call = rpc_call_open(channel, "/test.Echo/Stream", NULL, &handler, &call);
  rpc_call_send(call, (const uint8_t *)"100000 100", 10);
  rpc_call_half_close(call);
  SUPPORT_RUN_UNTIL(base, call == NULL && rpc_server_calls(server) == 0);
}
END_TEST

static struct rpc_server_call *late_call;

static void late(struct rpc_server_call *call, const uint8_t *message, size_t length, void *arg) {
  (void)message, (void)length, (void)arg;
  late_call = call;
}

START_TEST(a_handler_may_answer_long_after_everybody_left) {
  static const struct rpc_method methods[] = {{"/test.Late/Answer", RPC_METHOD_UNARY, late}};
  rpc_server_register(server, methods, 1, NULL);
  struct rpc_call *call = rpc_call_unary(channel, "/test.Late/Answer", NULL, 0, NULL, support_unary_done, &result);
  SUPPORT_RUN_UNTIL(base, late_call != NULL);
  rpc_call_cancel(call);
  SUPPORT_RUN_UNTIL(base, rpc_server_call_is_cancelled(late_call));
  if (_i == 1)
    server_stop();
  ck_assert_int_eq(rpc_server_call_send(late_call, NULL, 0), RPC_SEND_REFUSED);
  rpc_server_call_pause(late_call);
  rpc_server_call_resume(late_call);
  rpc_server_call_reply(BASE_TAKE(late_call), (const uint8_t *)"x", 1);
}
END_TEST

START_TEST(the_socket_has_owner_only_permissions_and_one_server) {
  struct stat file;
  struct error err;
  ck_assert_int_eq(stat(path, &file), 0);
  ck_assert_int_eq(file.st_mode & 0777, 0600);
  struct rpc_server *second = rpc_server_create(base, NULL);
  ck_assert(!rpc_server_listen_unix(second, path, 0600, &err));
  ck_assert_str_eq(err.code, "rpc.listen.busy");
  char longer[200];
  memset(longer, 'a', sizeof(longer) - 1);
  longer[sizeof(longer) - 1] = '\0';
  ck_assert(!rpc_server_listen_unix(second, longer, 0600, &err));
  char stale[80];
  snprintf(stale, sizeof(stale), "%s/stale", directory);
  mode_t before = umask(0);
  ck_assert(rpc_server_listen_unix(second, stale, 0660, &err));
  umask(before);
  ck_assert_int_eq(stat(stale, &file), 0);
  ck_assert_int_eq(file.st_mode & 0777, 0660);
  rpc_server_close(&second);
  ck_assert_int_ne(access(stale, F_OK), 0);
}
END_TEST

static bool peer_refuse(const struct rpc_peer *peer, void *arg) {
  ck_assert_uint_eq(peer->uid, getuid());
  ck_assert_int_eq(peer->pid, getpid());
  return *(bool *)arg;
}

START_TEST(a_peer_that_is_not_authorized_is_disconnected) {
  bool allow = false;
  server_stop();
  server_start(&(struct rpc_server_options){.authorize_peer = peer_refuse, .arg = &allow});
  call_unary("/test.Echo/Unary", NULL, 0, NULL);
  ck_assert_int_eq(result.status.code, RPC_UNAVAILABLE);
  allow = true;
  call_unary("/test.Echo/Unary", NULL, 0, &(struct rpc_call_options){.wait_for_ready = true});
  ck_assert_int_eq(result.status.code, RPC_OK);
}
END_TEST

START_TEST(connections_beyond_the_limit_are_closed) {
  server_stop();
  server_start(&(struct rpc_server_options){.connections_max = 1});
  call_unary("/test.Echo/Unary", NULL, 0, NULL);
  ck_assert_int_eq(result.status.code, RPC_OK);
  struct rpc_channel *second = rpc_channel_create(base, path, NULL);
  struct support_result refused = {0};
  rpc_call_unary(second, "/test.Echo/Unary", NULL, 0, NULL, support_unary_done, &refused);
  SUPPORT_RUN_UNTIL(base, refused.done);
  ck_assert_int_eq(refused.status.code, RPC_UNAVAILABLE);
  rpc_channel_close(&second);
  ck_assert_uint_eq(rpc_server_connections(server), 1);
}
END_TEST

START_TEST(health_check_answers_what_was_set) { /* LIF-4 */
  static const struct {
    const char *request;
    size_t length;
    enum rpc_code code;
    const char *reply;
  } rows[] = {{"", 0, RPC_OK, "\x08\x01"},
              {"\x0a\x01"
               "a",
               3, RPC_OK, "\x08\x02"},
              {"\x0a\x01"
               "b",
               3, RPC_NOT_FOUND, ""},
              {"\x0a\x7f", 2, RPC_INVALID_ARGUMENT, ""},
              {"\xff", 1, RPC_INVALID_ARGUMENT, ""}};
  rpc_health_set(health, "", RPC_HEALTH_SERVING);
  rpc_health_set(health, "a", RPC_HEALTH_NOT_SERVING);
  call_unary("/grpc.health.v1.Health/Check", rows[_i].request, rows[_i].length, NULL);
  ck_assert_int_eq(result.status.code, rows[_i].code);
  ck_assert_str_eq(result.reply.data != NULL ? result.reply.data : "", rows[_i].reply);
}
END_TEST

START_TEST(health_watch_follows_changes) { /* LIF-4 */
  struct rpc_call *call =
      rpc_call_open(channel, "/grpc.health.v1.Health/Watch", NULL, &support_stream_handler, &result);
  rpc_call_send(call, (const uint8_t *)"\x0a\x01w", 3);
  rpc_call_half_close(call);
  SUPPORT_RUN_UNTIL(base, result.messages == 1);
  rpc_health_set(health, "w", RPC_HEALTH_SERVING);
  SUPPORT_RUN_UNTIL(base, result.messages == 2);
  rpc_health_set(health, "w", RPC_HEALTH_SERVING);
  rpc_health_set(health, "other", RPC_HEALTH_SERVING);
  rpc_health_set(health, "w", RPC_HEALTH_NOT_SERVING);
  SUPPORT_RUN_UNTIL(base, result.messages == 3);
  ck_assert_str_eq(result.reply.data, "\x08\x03\x08\x01\x08\x02");
  rpc_call_cancel(call);
  SUPPORT_RUN_UNTIL(base, rpc_server_calls(server) == 0);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("rpc connection");
  TCase *tests = tcase_create("rpc connection");
  tcase_set_timeout(tests, 60);
  tcase_add_checked_fixture(tests, setup, teardown);
  tcase_add_test(tests, the_death_of_the_server_fails_all_calls_at_once);
  tcase_add_test(tests, a_call_fails_fast_without_a_server_and_waits_when_asked);
  tcase_add_test(tests, a_restarted_server_is_found_again);
  tcase_add_test(tests, a_drain_lets_calls_finish_and_sends_clients_away);
  tcase_add_test(tests, a_drain_ends_at_its_deadline);
  tcase_add_test(tests, passed_sockets_work_as_channel_and_connection);
  tcase_add_loop_test(tests, closing_everything_from_inside_a_callback_is_safe, 0, 3);
  tcase_add_test(tests, cancelling_a_stream_inside_its_message_callback_is_safe);
  tcase_add_loop_test(tests, a_handler_may_answer_long_after_everybody_left, 0, 2);
  tcase_add_test(tests, the_socket_has_owner_only_permissions_and_one_server);
  tcase_add_test(tests, a_peer_that_is_not_authorized_is_disconnected);
  tcase_add_test(tests, connections_beyond_the_limit_are_closed);
  tcase_add_loop_test(tests, health_check_answers_what_was_set, 0, 5);
  tcase_add_test(tests, health_watch_follows_changes);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_ENV);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? 0 : 1;
}
