/* wire_test.c: the room's pure parts, row by row: base64, percent encoding, grpc-timeout, metadata rules, framing,
 * status (ERR-2), deadlines. */
#include <check.h>

#include "sdk/rpc/rpc_internal.h"

START_TEST(base64_reads_padded_and_bare_and_refuses_the_rest) {
  static const struct {
    const char *text, *bytes;
    bool ok;
  } rows[] = {{"", "", true},         {"Zg==", "f", true},   {"Zg", "f", true},        {"Zm8=", "fo", true},
              {"Zm8", "fo", true},    {"Zm9v", "foo", true}, {"Zm9vYg", "foob", true}, {"Z", "", false},
              {"Zm9v=", "", false},   {"Z===", "", false},   {"Zm-v", "", false},      {"====", "", false},
              {"Zg==Zg==", "", false}};
  struct buf out = {0};
  ck_assert(rpc_base64_decode(&out, rows[_i].text, strlen(rows[_i].text)) == rows[_i].ok);
  ck_assert_uint_eq(out.length, strlen(rows[_i].bytes));
  ck_assert(out.length == 0 || memcmp(out.data, rows[_i].bytes, out.length) == 0);
  buf_free(&out);
}
END_TEST

START_TEST(base64_round_trips_every_length) {
  uint8_t data[40];
  struct buf text = {0}, back = {0};
  for (size_t i = 0; i < sizeof(data); i++)
    data[i] = (uint8_t)(i * 37 + 200);
  rpc_base64_encode(&text, data, (size_t)_i);
  ck_assert(rpc_base64_decode(&back, text.length > 0 ? text.data : "", text.length));
  ck_assert_uint_eq(back.length, (size_t)_i);
  ck_assert(_i == 0 || memcmp(back.data, data, back.length) == 0);
  buf_free(&text);
  buf_free(&back);
}
END_TEST

START_TEST(messages_are_percent_encoded_and_bad_escapes_kept) {
  static const struct {
    const char *plain, *encoded;
  } rows[] = {{"ok then", "ok then"}, {"100%", "100%25"}, {"a\nb\xc3\xbc", "a%0Ab%C3%BC"}, {"", ""}};
  struct buf out = {0};
  char back[64];
  rpc_percent_encode(&out, rows[_i].plain);
  ck_assert_str_eq(out.data != NULL ? out.data : "", rows[_i].encoded);
  rpc_percent_decode(back, sizeof(back), rows[_i].encoded, strlen(rows[_i].encoded));
  ck_assert_str_eq(back, rows[_i].plain);
  rpc_percent_decode(back, sizeof(back), "%zz%4%00", 8);
  ck_assert_str_eq(back, "%zz%4%00");
  rpc_percent_decode(back, 4, "abcdef", 6);
  ck_assert_str_eq(back, "abc");
  buf_free(&out);
}
END_TEST

START_TEST(timeouts_are_read_in_every_unit) {
  static const struct {
    const char *text;
    int64_t us; /* -1: refused */
  } rows[] = {
      {"1H", 3600000000}, {"2M", 120000000}, {"3S", 3000000}, {"4m", 4000},       {"5u", 5},
      {"6000n", 6},       {"0m", 0},         {"", -1},        {"m", -1},          {"5", -1},
      {"-5m", -1},        {"5x", -1},        {"5 m", -1},     {"123456789m", -1}, {"99999999H", 359999996400000000}};
  int64_t us = -1;
  ck_assert(rpc_timeout_parse(rows[_i].text, strlen(rows[_i].text), &us) == (rows[_i].us >= 0));
  ck_assert_int_eq(us, rows[_i].us);
}
END_TEST

START_TEST(timeouts_are_written_within_eight_digits) {
  static const struct {
    int64_t us;
    const char *text;
  } rows[] = {{-5, "1u"},
              {1, "1u"},
              {99999999, "99999999u"},
              {100000000, "100000m"},
              {100000001, "100001m"},
              {100000000000, "100000S"},
              {INT64_MAX / 2, "99999999S"}};
  char text[RPC_TIMEOUT_TEXT_BYTES];
  ck_assert_uint_eq(rpc_timeout_format(text, rows[_i].us), strlen(rows[_i].text));
  ck_assert_str_eq(text, rows[_i].text);
}
END_TEST

START_TEST(frames_are_recognised) {
  static const struct {
    const char *data;
    size_t length;
    enum rpc_frame_result result;
    size_t message_length;
  } rows[] = {{"", 0, RPC_FRAME_PARTIAL, 0},
              {"\0\0\0", 3, RPC_FRAME_PARTIAL, 0},
              {"\0\0\0\0\0", 5, RPC_FRAME_COMPLETE, 0},
              {"\0\0\0\0\2a", 6, RPC_FRAME_PARTIAL, 0},
              {"\0\0\0\0\2abc", 8, RPC_FRAME_COMPLETE, 2},
              {"\1", 1, RPC_FRAME_COMPRESSED, 0},
              {"\2\0\0\0\0", 5, RPC_FRAME_MALFORMED, 0},
              {"\0\0\0\0\x0b", 5, RPC_FRAME_TOO_LARGE, 0},
              {"\0\xff\xff\xff\xff", 5, RPC_FRAME_TOO_LARGE, 0}};
  size_t length = 0;
  ck_assert_int_eq(rpc_frame_parse((const uint8_t *)rows[_i].data, rows[_i].length, 10, &length), rows[_i].result);
  if (rows[_i].result == RPC_FRAME_COMPLETE)
    ck_assert_uint_eq(length, rows[_i].message_length);
}
END_TEST

START_TEST(every_error_code_survives_the_wire) { /* ERR-1, ERR-2 */
  if (_i == ERR_NONE)
    return;
  struct rpc_status status, back;
  struct error error;
  uint8_t bytes[RPC_STATUS_BYTES_MAX];
  error_set(&error, (enum error_code)_i, NULL);
  error.retry_after_ms = UINT32_MAX;
  rpc_status_from_error(&status, &error);
  ck_assert_int_ne(status.code, RPC_OK);
  ck_assert(rpc_status_decode(bytes, rpc_status_encode(&status, bytes), &back));
  ck_assert_int_eq(back.code, status.code);
  ck_assert_int_eq(back.error.category, error.category);
  ck_assert_str_eq(back.error.code, error.code);
  ck_assert_str_eq(back.error.message, error.message);
  ck_assert_int_eq(back.error.retryable, error.retryable);
  ck_assert_uint_eq(back.error.retry_after_ms, UINT32_MAX);
}
END_TEST

START_TEST(the_longest_error_fits_and_every_cut_of_it_is_survived) {
  struct rpc_status status = {.code = RPC_UNAUTHENTICATED}, back;
  uint8_t bytes[RPC_STATUS_BYTES_MAX];
  error_set(&status.error, ERR_INTERNAL, NULL);
  memset(status.error.code, 'c', ERROR_CODE_MAX - 1);
  memset(status.error.message, 'm', ERROR_MESSAGE_MAX - 1);
  memset(status.error.trace_id, 't', ERROR_TRACE_ID_MAX - 1);
  status.error.code[ERROR_CODE_MAX - 1] = status.error.message[ERROR_MESSAGE_MAX - 1] = '\0';
  status.error.trace_id[ERROR_TRACE_ID_MAX - 1] = '\0';
  size_t length = rpc_status_encode(&status, bytes);
  for (size_t cut = 0; cut <= length; cut++) {
    uint8_t *exact = base_memdup(bytes, cut); /* so that a sanitizer sees a read behind it */
    bool ok = rpc_status_decode(exact, cut, &back);
    ck_assert(cut < length || ok);
    base_free(exact);
  }
  ck_assert_str_eq(back.error.trace_id, status.error.trace_id);
}
END_TEST

static int64_t fired[100];
static unsigned fired_count;

static void note(struct rpc_deadline *deadline, void *arg) {
  (void)arg;
  fired[fired_count++] = deadline->at_us;
}

START_TEST(deadlines_fire_in_order_and_removed_ones_do_not) {
  struct event_base *base = event_base_new();
  struct rpc_deadlines deadlines;
  struct rpc_deadline nodes[100] = {{0}};
  rpc_deadlines_init(&deadlines, base, note, NULL);
  int64_t now_us = clock_monotonic_us();
  for (int i = 0; i < 100; i++)
    rpc_deadlines_add(&deadlines, &nodes[i], now_us + (i * 7919) % 100 * 100);
  for (int i = 0; i < 100; i += 3)
    rpc_deadlines_remove(&deadlines, &nodes[i]);
  rpc_deadlines_remove(&deadlines, &nodes[0]);
  fired_count = 0;
  event_base_dispatch(base); /* returns when no timer is left */
  ck_assert_uint_eq(fired_count, 66);
  for (unsigned i = 1; i < fired_count; i++)
    ck_assert_int_le(fired[i - 1], fired[i]);
  rpc_deadlines_free(&deadlines);
  event_base_free(base);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("wire");
  TCase *tests = tcase_create("wire");
  tcase_add_loop_test(tests, base64_reads_padded_and_bare_and_refuses_the_rest, 0, 13);
  tcase_add_loop_test(tests, base64_round_trips_every_length, 0, 40);
  tcase_add_loop_test(tests, messages_are_percent_encoded_and_bad_escapes_kept, 0, 4);
  tcase_add_loop_test(tests, timeouts_are_read_in_every_unit, 0, 15);
  tcase_add_loop_test(tests, timeouts_are_written_within_eight_digits, 0, 7);
  tcase_add_loop_test(tests, frames_are_recognised, 0, 9);
  tcase_add_loop_test(tests, every_error_code_survives_the_wire, 0, ERR_CODE_COUNT);
  tcase_add_test(tests, the_longest_error_fits_and_every_cut_of_it_is_survived);
  tcase_add_test(tests, deadlines_fire_in_order_and_removed_ones_do_not);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_ENV);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? 0 : 1;
}
