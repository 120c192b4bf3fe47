/* result_test.c: answers made into results, by table (docs/rest.md; ERR-3). */
#include <string.h>

#include "modules/rest/rest_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/json.h"
#include "sdk/base/test.h"

#define TEXT(text) "[{\"type\":\"text\",\"text\":\"" text "\"}]"
#define NO_CONTENT TEXT("Request completed successfully (No Content)")
#define NO_OBJECT TEXT("The request was carried out, but its answer is not the object that this tool declares.")
#define JSON "application/json"
#define PROBLEM "application/problem+json; charset=utf-8"

static const struct {
  int status;
  const char *type, *body;
  bool wants_object;
  const char *content, *structured; /* structured NULL: none */
  bool is_error;
} rows[] = {
    {200, JSON, "{\"a\":1}", false, TEXT("{\\\"a\\\":1}"), "{\"a\":1}", false},
    {201, JSON, " {\"a\" : [ 1 , 2 ] }\r\n", true, TEXT("{\\\"a\\\":[1,2]}"), "{\"a\":[1,2]}", false},
    {202, NULL, "{}", false, TEXT("{}"), "{}", false},
    {206, "text/plain", "{\"a b\":\"\\\\\\\" c\"}", false, TEXT("{\\\"a b\\\":\\\"\\\\\\\\\\\\\\\" c\\\"}"),
     "{\"a b\":\"\\\\\\\" c\"}", false},
    {200, JSON, "\xef\xbb\xbf[1]", false, TEXT("[1]"), NULL, false},
    {200, JSON, "\"x\"", false, TEXT("\\\"x\\\""), NULL, false},
    {200, JSON, "1.0", false, TEXT("1.0"), NULL, false},
    {200, JSON, "[1]", true, NO_OBJECT, NULL, true},
    {200, JSON, "{broken", false, TEXT("{broken"), NULL, false},
    {200, JSON, "{broken", true, NO_OBJECT, NULL, true},
    {200, "text/plain", "a\"b\xff", false, TEXT("a\\\"b\xef\xbf\xbd"), NULL, false},
    {200, NULL, "", false, NO_CONTENT, NULL, false},
    {204, NULL, "", false, NO_CONTENT, NULL, false},
    {204, NULL, "", true, NO_OBJECT, NULL, true},
    {200, "image/png", "abcd", false, "[{\"type\":\"image\",\"mimeType\":\"image/png\",\"data\":\"YWJjZA==\"}]", NULL,
     false},
    {200, "audio/wav; x=y", "ab", false, "[{\"type\":\"audio\",\"mimeType\":\"audio/wav\",\"data\":\"YWI=\"}]", NULL,
     false},
    {200, "image/\"x", "ab", false, TEXT("ab"), NULL, false},
    {200, "image/svg+xml", "<svg/>", false, TEXT("<svg/>"), NULL, false},
    {203, JSON, "{}", false, TEXT("HTTP 203 Unnamed"), "{\"status_code\":203}", true},
    {302, NULL, "", false, TEXT("HTTP 302 Found"), "{\"status_code\":302}", true},
    {404, PROBLEM, "{\"title\":\"T\",\"detail\":\"D\"}", true, TEXT("HTTP 404 Not Found: D"),
     "{\"status_code\":404,\"detail\":\"D\"}", true},
    {400, JSON, "{\"error\":{\"message\":\"M\\n\"}}", false, TEXT("HTTP 400 Bad Request: M\\n"),
     "{\"status_code\":400,\"detail\":\"M\\n\"}", true},
    {400, JSON, "{\"message\":\"\",\"error\":\"E\"}", false, TEXT("HTTP 400 Bad Request: E"),
     "{\"status_code\":400,\"detail\":\"E\"}", true},
    {400, JSON, "{\"detail\":[1],\"stack\":\"at x\"}", false, TEXT("HTTP 400 Bad Request"), "{\"status_code\":400}",
     true},
    {400, "text/html", "{\"detail\":\"D\"}", false, TEXT("HTTP 400 Bad Request"), "{\"status_code\":400}", true},
    {400, JSON, "[1]", false, TEXT("HTTP 400 Bad Request"), "{\"status_code\":400}", true},
    {400, JSON, "{\"detail\":", false, TEXT("HTTP 400 Bad Request"), "{\"status_code\":400}", true},
    {401, PROBLEM, "{\"detail\":\"key abc is wrong\"}", false, TEXT("HTTP 401 Unauthorized"), "{\"status_code\":401}",
     true},
    {403, PROBLEM, "{\"detail\":\"D\"}", false, TEXT("HTTP 403 Forbidden"), "{\"status_code\":403}", true},
};

START_TEST(answers_become_results) {
  struct rest_result result;
  struct rest_reply reply = {.status = rows[_i].status,
                             .content_type = rows[_i].type,
                             .body = rows[_i].body,
                             .length = strlen(rows[_i].body),
                             .wants_object = rows[_i].wants_object};
  rest_result_make(&reply, &result);
  ck_assert_str_eq(result.content.data, rows[_i].content);
  ck_assert(json_check(result.content.data, result.content.length, JSON_DEPTH_MAX, NULL));
  ck_assert_msg((result.structured.length > 0) == (rows[_i].structured != NULL), "row %d", _i);
  if (rows[_i].structured)
    ck_assert_str_eq(result.structured.data, rows[_i].structured);
  ck_assert_int_eq(result.is_error, rows[_i].is_error);
  rest_result_clear(&result);
}
END_TEST

START_TEST(a_detail_is_cut_between_characters) {
  struct buf body = {0};
  struct rest_result result;
  buf_append_text(&body, "{\"detail\":\"x");
  for (int i = 0; i < 600; i++)
    buf_append_text(&body, "\xc3\xa9");
  buf_append_text(&body, "\"}");
  rest_result_make(
      &(struct rest_reply){.status = 500, .content_type = "application/json", .body = body.data, .length = body.length},
      &result);
  ck_assert(json_check(result.structured.data, result.structured.length, JSON_DEPTH_MAX, NULL));
  ck_assert_uint_le(result.structured.length, 512 + 64);
  ck_assert_ptr_null(strstr(result.structured.data, "\xef\xbf\xbd"));
  rest_result_clear(&result);
  buf_free(&body);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("rest.result");
  TCase *tcase = tcase_create("rest.result");
  tcase_add_loop_test(tcase, answers_become_results, 0, (int)(sizeof(rows) / sizeof(rows[0])));
  tcase_add_test(tcase, a_detail_is_cut_between_characters);
  suite_add_tcase(suite, tcase);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
