/* error_test.c: the code table is consistent and error values are safe to show (ERR-1, ERR-2, ERR-3, ERR-5). */
#include "sdk/base/error.h"

#include <string.h>

#include "sdk/base/test.h"

START_TEST(every_code_has_a_unique_well_formed_text) {
  for (int i = 1; i < ERR_CODE_COUNT; i++) {
    const char *text = error_code_text((enum error_code)i);
    ck_assert_uint_eq(strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789._"), strlen(text));
    for (int j = 1; j < i; j++)
      ck_assert_str_ne(text, error_code_text((enum error_code)j));
  }
}
END_TEST

START_TEST(every_category_maps_to_the_statuses_of_err_1) {
  static const struct {
    enum error_category category;
    const char *name;
    int http, grpc;
    bool retryable;
  } rows[] = {
      {ERROR_CATEGORY_INVALID_ARGUMENT, "INVALID_ARGUMENT", 400, 3, false},
      {ERROR_CATEGORY_UNAUTHENTICATED, "UNAUTHENTICATED", 401, 16, false},
      {ERROR_CATEGORY_PERMISSION_DENIED, "PERMISSION_DENIED", 403, 7, false},
      {ERROR_CATEGORY_NOT_FOUND, "NOT_FOUND", 404, 5, false},
      {ERROR_CATEGORY_CONFLICT, "CONFLICT", 409, 10, false},
      {ERROR_CATEGORY_FAILED_PRECONDITION, "FAILED_PRECONDITION", 412, 9, false},
      {ERROR_CATEGORY_RATE_LIMITED, "RATE_LIMITED", 429, 8, true},
      {ERROR_CATEGORY_UNSUPPORTED, "UNSUPPORTED", 404, 12, false},
      {ERROR_CATEGORY_UNAVAILABLE, "UNAVAILABLE", 503, 14, true},
      {ERROR_CATEGORY_UPSTREAM_ERROR, "UPSTREAM_ERROR", 502, 2, false},
      {ERROR_CATEGORY_INTERNAL, "INTERNAL", 500, 13, false},
  };
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    ck_assert_str_eq(error_category_name(rows[i].category), rows[i].name);
    ck_assert_int_eq(error_category_from_name(rows[i].name), rows[i].category);
    ck_assert_int_eq(error_category_http_status(rows[i].category), rows[i].http);
    ck_assert_int_eq(error_category_grpc_status(rows[i].category), rows[i].grpc);
    ck_assert_int_eq(error_category_from_grpc_status(rows[i].grpc), rows[i].category);
    ck_assert_int_eq(error_category_retryable(rows[i].category), rows[i].retryable);
  }
}
END_TEST

START_TEST(unknown_numbers_answer_as_internal) {
  ck_assert_str_eq(error_category_name((enum error_category)77), "INTERNAL");
  ck_assert_int_eq(error_category_from_name("NONSENSE"), ERROR_CATEGORY_INTERNAL);
  ck_assert_int_eq(error_category_from_name(NULL), ERROR_CATEGORY_INTERNAL);
  ck_assert_int_eq(error_category_from_grpc_status(-1), ERROR_CATEGORY_INTERNAL);
  ck_assert_int_eq(error_category_from_grpc_status(17), ERROR_CATEGORY_INTERNAL);
  ck_assert_str_eq(error_code_text((enum error_code)99999), "internal");
  ck_assert_str_eq(error_origin_name((enum error_origin)9), "unspecified");
}
END_TEST

START_TEST(setting_fills_from_the_table) {
  struct error err;
  error_origin_default_set(ERROR_ORIGIN_MODULE);
  ck_assert(!error_set(&err, ERR_RATE_LIMIT_EXCEEDED, NULL));
  ck_assert(error_is(&err, ERR_RATE_LIMIT_EXCEEDED));
  ck_assert(!error_is(&err, ERR_INTERNAL));
  ck_assert_int_eq(err.origin, ERROR_ORIGIN_MODULE);
  ck_assert(err.retryable);
  ck_assert_str_eq(err.message, error_code_summary(ERR_RATE_LIMIT_EXCEEDED));
  error_clear(&err);
  ck_assert(!error_is_set(&err) && !error_is(&err, ERR_NONE));
  ck_assert(!error_set(NULL, ERR_INTERNAL, NULL));
}
END_TEST

START_TEST(a_long_message_is_cut_between_characters) {
  struct error err;
  char text[2 * ERROR_MESSAGE_MAX];
  for (size_t i = 0; i + 2 < sizeof text; i += 2)
    memcpy(text + i, "\xc3\xa9", 3);
  error_set(&err, ERR_INTERNAL, "%s", text);
  ck_assert_uint_eq(strlen(err.message), 254);
}
END_TEST

START_TEST(foreign_text_becomes_printable) {
  struct error err;
  error_set_foreign(&err, ERROR_CATEGORY_NOT_FOUND, ERROR_ORIGIN_UPSTREAM, "x\n\xff\xc3\xa9", "a\x1b[1m\xc3\xa9\x80");
  ck_assert_str_eq(err.code, "x???");
  ck_assert_str_eq(err.message, "a?[1m\xc3\xa9?");
  ck_assert_int_eq(err.category, ERROR_CATEGORY_NOT_FOUND);
  error_set_foreign(&err, (enum error_category)99, (enum error_origin)99, NULL, NULL);
  ck_assert_int_eq(err.category, ERROR_CATEGORY_INTERNAL);
  ck_assert_int_eq(err.origin, ERROR_ORIGIN_UNSPECIFIED);
  ck_assert_str_eq(err.code, "internal");
}
END_TEST

TEST_MAIN("base.error", every_code_has_a_unique_well_formed_text, every_category_maps_to_the_statuses_of_err_1,
          unknown_numbers_answer_as_internal, setting_fills_from_the_table, a_long_message_is_cut_between_characters,
          foreign_text_becomes_printable)
