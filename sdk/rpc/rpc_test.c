/* rpc_test.c: calls and streams between a client and a server of this room: what arrives, deadlines, cancellation,
 * limits. TRN-1, TRN-3, TRN-4, TRN-6, ERR-1, ERR-2. */
#include "sdk/base/test_statics.h"
#include "sdk/rpc/rpc_test_fixture.h"

START_TEST(unary_calls_of_any_size_come_back) {
  static const size_t sizes[] = {0, 1, 5, 16379, 16384, 65535, 300000, 4 << 20};
  size_t size = sizes[_i];
  uint8_t *request = base_alloc(size + 1);
  for (size_t i = 0; i < size; i++)
    request[i] = (uint8_t)(i * 7);
  for (int round = 0; round < 3; round++) {
    call_unary("/test.Echo/Unary", request, size, NULL);
    ck_assert_int_eq(result.status.code, RPC_OK);
    ck_assert(!error_is_set(&result.status.error));
    ck_assert_uint_eq(result.reply.length, size);
    ck_assert(size == 0 || memcmp(result.reply.data, request, size) == 0);
  }
  base_free(request);
  ck_assert_uint_eq(rpc_channel_in_flight(channel), 0);
}
END_TEST

START_TEST(nothing_of_a_call_stays_in_the_buffer_it_was_read_into) {
  static const char text[] = "a credential within a plan";
  call_unary("/test.Echo/Unary", text, sizeof(text), NULL);
  ck_assert_str_eq(result.reply.data, text);
  ck_assert(!statics_hold("a credential within a plan"));
}
END_TEST

START_TEST(many_calls_at_once_all_end) {
  enum { CALLS = 1000 };
  static struct support_result results[CALLS];
  memset(results, 0, sizeof(results));
  for (int i = 0; i < CALLS; i++)
    rpc_call_unary(channel, "/test.Echo/Unary", (const uint8_t *)&i, sizeof(i), NULL, support_unary_done, &results[i]);
  SUPPORT_RUN_UNTIL(base, rpc_channel_in_flight(channel) == 0);
  for (int i = 0; i < CALLS; i++) {
    ck_assert_int_eq(results[i].status.code, RPC_OK);
    ck_assert(memcmp(results[i].reply.data, &i, sizeof(i)) == 0);
    buf_free(&results[i].reply);
  }
}
END_TEST

START_TEST(an_error_arrives_with_its_whole_envelope) {
  call_unary("/test.Echo/Fail", NULL, 0, NULL);
  ck_assert_int_eq(result.status.code, RPC_RESOURCE_EXHAUSTED);
  ck_assert_int_eq(result.status.error.category, ERROR_CATEGORY_RATE_LIMITED);
  ck_assert_str_eq(result.status.error.code, "rate_limit.exceeded");
  ck_assert_int_eq(result.status.error.origin, ERROR_ORIGIN_PLUGIN);
  ck_assert(result.status.error.retryable);
  ck_assert_uint_eq(result.status.error.retry_after_ms, 1500);
  ck_assert_str_eq(result.status.error.trace_id, "0af7651916cd43dd8448eb211c80319c");
  ck_assert(strstr(result.status.error.message, "100%") != NULL);
}
END_TEST

START_TEST(an_unknown_method_is_unimplemented) {
  call_unary("/test.Echo/Nope", "x", 1, NULL);
  ck_assert_int_eq(result.status.code, RPC_UNIMPLEMENTED);
  ck_assert_str_eq(result.status.error.code, "rpc.method.unknown");
}
END_TEST

static struct rpc_call *metadata_call;

static void metadata_done(void *arg, const struct rpc_status *status, const uint8_t *reply, size_t length) {
  size_t value_length = 0;
  support_unary_done(arg, status, reply, length);
  const char *value = rpc_call_metadata(metadata_call, "x-test", &value_length);
  ck_assert(value != NULL && str_equal(value, "two words") && value_length == 9);
  value = rpc_call_metadata(metadata_call, "x-test-bin", &value_length);
  ck_assert(value != NULL && value_length == 3 && memcmp(value, "\0\1\xff", 3) == 0);
  ck_assert_ptr_null(rpc_call_metadata(metadata_call, "x-other", NULL));
}

START_TEST(metadata_and_deadline_reach_the_server_and_come_back) {
  ck_assert(rpc_channel_metadata_set(channel, "x-test", "one"));
  ck_assert(rpc_channel_metadata_set(channel, "x-test", "two words"));
  ck_assert(!rpc_channel_metadata_set(channel, "X-Upper", "v"));
  ck_assert(!rpc_channel_metadata_set(channel, "grpc-timeout", "v"));
  ck_assert(!rpc_channel_metadata_set(channel, "x-line", "a\nb"));
  struct rpc_metadata binary = {"x-test-bin", "\0\1\xff", 3};
  metadata_call =
      rpc_call_unary(channel, "/test.Echo/Metadata", NULL, 0,
                     &(struct rpc_call_options){.deadline_ms = 60000, .metadata = &binary, .metadata_count = 1},
                     metadata_done, &result);
  SUPPORT_RUN_UNTIL(base, result.done);
  ck_assert_int_eq(result.status.code, RPC_OK);
  long left = strtol(result.reply.data, NULL, 10);
  ck_assert_int_gt(left, 30000);
  ck_assert_int_le(left, 60000);
}
END_TEST

START_TEST(bad_metadata_fails_the_call) {
  static const struct rpc_metadata bad[] = {{"x-a", "\x01", 1}, {"Upper", "v", 1}, {"", "v", 1},
                                            {"grpc-x", "v", 1}, {":path", "/", 1}, {NULL, "v", 1}};
  call_unary("/test.Echo/Unary", NULL, 0, &(struct rpc_call_options){.metadata = &bad[_i], .metadata_count = 1});
  ck_assert_int_eq(result.status.code, RPC_INVALID_ARGUMENT);
  ck_assert_uint_eq(support_handled, 0);
}
END_TEST

static bool secret_check(struct rpc_server_call *call, struct error *err, void *arg) {
  size_t length = 0;
  const char *given = rpc_server_call_metadata(call, "x-secret", &length);
  if (given != NULL && str_equal_constant_time(given, length, arg, strlen(arg)))
    return true;
  return error_set(err, ERR_AUTH_CHANNEL, NULL);
}

START_TEST(a_call_without_the_secret_is_unauthenticated) { /* TRN-4 */
  server_stop();
  static char expected[] = "s3cret";
  server_start(&(struct rpc_server_options){.authorize_call = secret_check, .arg = expected});
  call_unary("/test.Echo/Unary", NULL, 0, NULL);
  ck_assert_int_eq(result.status.code, RPC_UNAUTHENTICATED);
  ck_assert_uint_eq(support_handled, 0);
  struct secret *secret = secret_from_text("s3cret");
  ck_assert(rpc_channel_metadata_set_secret(channel, "x-secret", secret));
  secret_free(&secret);
  call_unary("/test.Echo/Unary", NULL, 0, NULL);
  ck_assert_int_eq(result.status.code, RPC_OK);
}
END_TEST

START_TEST(a_refusal_of_the_channel_can_be_told_as_unavailable) {
  server_stop();
  static char expected[] = "s3cret";
  server_start(&(struct rpc_server_options){.authorize_call = secret_check, .arg = expected});
  rpc_channel_close(&channel);
  channel = rpc_channel_create(base, path, &(struct rpc_channel_options){.denied_is_unavailable = true});
  call_unary("/test.Echo/Unary", NULL, 0, NULL);
  ck_assert_int_eq(result.status.code, RPC_UNAVAILABLE);
  ck_assert(error_is(&result.status.error, ERR_UNAVAILABLE) && result.status.error.retryable);
}
END_TEST

START_TEST(a_deadline_ends_the_call_on_both_sides) { /* TRN-3 */
  int64_t start_ms = clock_monotonic_ms();
  call_unary("/test.Echo/Hang", NULL, 0, &(struct rpc_call_options){.deadline_ms = 1000}); /* enough for it to begin */
  ck_assert_int_ge(clock_monotonic_ms() - start_ms, 999);
  ck_assert_int_eq(result.status.code, RPC_DEADLINE_EXCEEDED);
  ck_assert_int_eq(result.status.error.category, ERROR_CATEGORY_UNAVAILABLE);
  SUPPORT_RUN_UNTIL(base, support_cancelled == 1 && rpc_server_calls(server) == 0);
}
END_TEST

START_TEST(cancelling_reaches_the_handler_and_silences_the_caller) {
  struct rpc_call *call = rpc_call_unary(channel, "/test.Echo/Hang", NULL, 0, NULL, support_unary_done, &result);
  if (_i == 1)
    SUPPORT_RUN_UNTIL(base, support_handled == 1);
  rpc_call_cancel(call);
  ck_assert_uint_eq(rpc_channel_in_flight(channel), 0);
  if (_i == 1)
    SUPPORT_RUN_UNTIL(base, support_cancelled == 1 && rpc_server_calls(server) == 0);
  call_unary("/test.Echo/Unary", "x", 1, NULL);
  ck_assert_int_eq(result.status.code, RPC_OK);
  ck_assert_uint_eq(support_cancelled, (unsigned)_i);
}
END_TEST

START_TEST(cancelling_before_the_request_is_flushed_is_safe) {
  call_unary("/test.Echo/Unary", "x", 1, NULL);
  for (int i = 0; i < 100; i++)
    rpc_call_cancel(rpc_call_unary(channel, "/test.Echo/Hang", NULL, 0, NULL, support_unary_done, &result));
  call_unary("/test.Echo/Unary", "x", 1, NULL);
  ck_assert_int_eq(result.status.code, RPC_OK);
}
END_TEST

START_TEST(a_server_stream_delivers_everything_in_order) {
  rpc_call_half_close(({
    struct rpc_call *call = rpc_call_open(channel, "/test.Echo/Stream", NULL, &support_stream_handler, &result);
    rpc_call_send(call, (const uint8_t *)"5000 300", 8);
    call;
  }));
  SUPPORT_RUN_UNTIL(base, result.done);
  ck_assert_int_eq(result.status.code, RPC_OK);
  ck_assert_uint_eq(result.messages, 5000);
  for (size_t i = 0; i < 5000; i++)
    ck_assert_uint_eq((uint8_t)result.reply.data[i * 300], (5000 - i) & 0xff);
}
END_TEST

START_TEST(a_paused_reader_holds_back_the_server) {
  struct rpc_call *call = rpc_call_open(channel, "/test.Echo/Stream", NULL, &support_stream_handler, &result);
  rpc_call_send(call, (const uint8_t *)"20000 1000", 10);
  rpc_call_half_close(call);
  rpc_call_pause(call);
  size_t before;
  do { /* until nothing moves any more */
    before = support_streamed;
    call_unary("/test.Echo/Unary", "other calls go on", 17, NULL);
    for (int i = 0; i < 5; i++)
      event_base_loop(base, EVLOOP_NONBLOCK);
  } while (support_streamed != before || before == 0);
  ck_assert_uint_lt(support_streamed, 1000); /* a window and a send buffer, not 20 MB */
  buf_free(&result.reply);
  result = (struct support_result){0};
  rpc_call_resume(call);
  SUPPORT_RUN_UNTIL(base, result.done);
  ck_assert_int_eq(result.status.code, RPC_OK);
  ck_assert_uint_eq(result.messages, 20000);
  ck_assert_uint_eq(result.reply.length, 20000000);
}
END_TEST

START_TEST(a_stream_paused_at_its_end_ends_after_resume) {
  struct rpc_call *call = rpc_call_open(channel, "/test.Echo/Stream", NULL, &support_stream_handler, &result);
  rpc_call_send(call, (const uint8_t *)"3 10", 4);
  rpc_call_half_close(call);
  rpc_call_pause(call);
  struct support_result other = {0};
  rpc_call_unary(channel, "/test.Echo/Unary", NULL, 0, NULL, support_unary_done, &other);
  SUPPORT_RUN_UNTIL(base, other.done && rpc_server_calls(server) == 0);
  buf_free(&other.reply);
  ck_assert(!result.done && result.messages == 0);
  rpc_call_resume(call);
  SUPPORT_RUN_UNTIL(base, result.done);
  ck_assert_uint_eq(result.messages, 3);
}
END_TEST

START_TEST(a_bidirectional_stream_echoes_until_half_close) {
  struct rpc_call *call = rpc_call_open(channel, "/test.Echo/Bidi", NULL, &support_stream_handler, &result);
  for (unsigned i = 1; i <= 100; i++) {
    ck_assert_int_ne(rpc_call_send(call, (const uint8_t *)&i, sizeof(i)), RPC_SEND_REFUSED);
    if (i % 10 == 0)
      SUPPORT_RUN_UNTIL(base, result.messages == i);
  }
  rpc_call_half_close(call);
  ck_assert_int_eq(rpc_call_send(call, NULL, 0), RPC_SEND_REFUSED);
  SUPPORT_RUN_UNTIL(base, result.done);
  ck_assert_int_eq(result.status.code, RPC_OK);
  ck_assert_uint_eq(result.reply.length, 100 * sizeof(unsigned));
}
END_TEST

START_TEST(a_sender_is_told_when_it_is_too_fast_and_refused_when_it_does_not_listen) {
  static uint8_t message[50000];
  struct rpc_call *call = rpc_call_open(channel, "/test.Echo/Bidi", NULL, &support_stream_handler, &result);
  ck_assert_int_eq(rpc_call_send(call, message, sizeof(message)), RPC_SEND_OK);
  ck_assert_int_eq(rpc_call_send(call, message, sizeof(message)), RPC_SEND_FULL);
  unsigned taken = 2;
  while (rpc_call_send(call, message, sizeof(message)) != RPC_SEND_REFUSED)
    taken++;
  ck_assert_uint_eq(taken, 16 * 65536 / 50005);
  SUPPORT_RUN_UNTIL(base, result.writable == 1 && result.messages == taken);
  rpc_call_half_close(call);
  SUPPORT_RUN_UNTIL(base, result.done);
  ck_assert_int_eq(result.status.code, RPC_OK);
}
END_TEST

START_TEST(a_request_that_is_too_large_is_refused_with_a_code) {
  static uint8_t request[(4 << 20) + 1];
  call_unary("/test.Echo/Unary", request, sizeof(request), NULL);
  ck_assert_int_eq(result.status.code, RPC_RESOURCE_EXHAUSTED);
  ck_assert_str_eq(result.status.error.code, "rpc.message.too_large");
}
END_TEST

START_TEST(an_answer_that_is_too_large_is_refused_with_a_code) {
  rpc_channel_close(&channel);
  channel = rpc_channel_create(base, path, &(struct rpc_channel_options){.message_bytes_max = 100});
  static uint8_t request[101];
  call_unary("/test.Echo/Unary", request, 100, NULL);
  ck_assert_int_eq(result.status.code, RPC_OK);
  call_unary("/test.Echo/Unary", request, 101, NULL);
  ck_assert_int_eq(result.status.code, RPC_RESOURCE_EXHAUSTED);
}
END_TEST

START_TEST(metadata_beyond_the_limit_is_refused_and_the_connection_lives) {
  static char big[20000];
  memset(big, 'a', sizeof(big));
  struct rpc_metadata metadata = {"x-big", big, sizeof(big)};
  call_unary("/test.Echo/Unary", NULL, 0, &(struct rpc_call_options){.metadata = &metadata, .metadata_count = 1});
  ck_assert_int_eq(result.status.code, RPC_RESOURCE_EXHAUSTED);
  call_unary("/test.Echo/Unary", NULL, 0, NULL);
  ck_assert_int_eq(result.status.code, RPC_OK);
  ck_assert_uint_eq(connected, 1);
}
END_TEST

START_TEST(too_many_calls_in_flight_are_rate_limited) { /* TRN-6 */
  rpc_channel_close(&channel);
  channel = rpc_channel_create(base, path, &(struct rpc_channel_options){.in_flight_max = 2});
  struct support_result held[2] = {{0}};
  for (int i = 0; i < 2; i++)
    rpc_call_unary(channel, "/test.Echo/Hang", NULL, 0, NULL, support_unary_done, &held[i]);
  call_unary("/test.Echo/Unary", NULL, 0, NULL);
  ck_assert_int_eq(result.status.code, RPC_RESOURCE_EXHAUSTED);
  ck_assert_int_eq(result.status.error.category, ERROR_CATEGORY_RATE_LIMITED);
  ck_assert_str_eq(result.status.error.code, "rpc.in_flight.limit");
  SUPPORT_RUN_UNTIL(base, support_handled == 2);
  rpc_channel_close(&channel);
  ck_assert(held[0].done && held[1].done);
  ck_assert_int_eq(held[0].status.code, RPC_UNAVAILABLE);
  SUPPORT_RUN_UNTIL(base, support_cancelled == 2);
}
END_TEST

START_TEST(more_calls_than_the_peer_allows_wait_their_turn) {
  server_stop();
  server_start(&(struct rpc_server_options){.concurrent_streams_max = 3});
  struct support_result results[20] = {{0}};
  for (int i = 0; i < 20; i++)
    rpc_call_unary(channel, "/test.Echo/Unary", NULL, 0, NULL, support_unary_done, &results[i]);
  for (int i = 0; i < 20; i++) {
    SUPPORT_RUN_UNTIL(base, results[i].done);
    ck_assert_int_eq(results[i].status.code, RPC_OK);
    buf_free(&results[i].reply);
  }
}
END_TEST

int main(void) {
  Suite *suite = suite_create("rpc");
  TCase *tests = tcase_create("rpc");
  tcase_set_timeout(tests, 60);
  tcase_add_checked_fixture(tests, setup, teardown);
  tcase_add_loop_test(tests, unary_calls_of_any_size_come_back, 0, 8);
  tcase_add_test(tests, nothing_of_a_call_stays_in_the_buffer_it_was_read_into);
  tcase_add_test(tests, many_calls_at_once_all_end);
  tcase_add_test(tests, an_error_arrives_with_its_whole_envelope);
  tcase_add_test(tests, an_unknown_method_is_unimplemented);
  tcase_add_test(tests, metadata_and_deadline_reach_the_server_and_come_back);
  tcase_add_loop_test(tests, bad_metadata_fails_the_call, 0, 6);
  tcase_add_test(tests, a_call_without_the_secret_is_unauthenticated);
  tcase_add_test(tests, a_refusal_of_the_channel_can_be_told_as_unavailable);
  tcase_add_test(tests, a_deadline_ends_the_call_on_both_sides);
  tcase_add_loop_test(tests, cancelling_reaches_the_handler_and_silences_the_caller, 0, 2);
  tcase_add_test(tests, cancelling_before_the_request_is_flushed_is_safe);
  tcase_add_test(tests, a_server_stream_delivers_everything_in_order);
  tcase_add_test(tests, a_paused_reader_holds_back_the_server);
  tcase_add_test(tests, a_stream_paused_at_its_end_ends_after_resume);
  tcase_add_test(tests, a_bidirectional_stream_echoes_until_half_close);
  tcase_add_test(tests, a_sender_is_told_when_it_is_too_fast_and_refused_when_it_does_not_listen);
  tcase_add_test(tests, a_request_that_is_too_large_is_refused_with_a_code);
  tcase_add_test(tests, an_answer_that_is_too_large_is_refused_with_a_code);
  tcase_add_test(tests, metadata_beyond_the_limit_is_refused_and_the_connection_lives);
  tcase_add_test(tests, too_many_calls_in_flight_are_rate_limited);
  tcase_add_test(tests, more_calls_than_the_peer_allows_wait_their_turn);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_ENV);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? 0 : 1;
}
