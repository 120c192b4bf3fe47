/* template_test.c: URL templates and mappings by table: an argument never changes where a request goes (RST-1, RST-2).
 */
#include <string.h>

#include "modules/rest/rest_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/test.h"

START_TEST(templates_take_arguments_as_data) {
  static const struct {
    const char *url_template, *arguments, *url; /* url NULL: refused with code */
    enum error_code code;
  } rows[] = {
      {"http://h/a", "{}", "http://h/a", ERR_NONE},
      {"http://h", "{}", "http://h", ERR_NONE},
      {"http://h/{a}", "{\"a\":\"x\"}", "http://h/x", ERR_NONE},
      {"http://h/{a}/{a}", "{\"a\":7}", "http://h/7/7", ERR_NONE},
      {"http://h/{a}.json", "{\"a\":\".x\"}", "http://h/.x.json", ERR_NONE},
      {"http://h/{a}", "{\"a\":\"...\"}", "http://h/...", ERR_NONE},
      {"http://h/{a}", "{\"a\":\"x/y\"}", "http://h/x%2Fy", ERR_NONE},
      {"http://h/{a}", "{\"a\":\"x?y#z\"}", "http://h/x%3Fy%23z", ERR_NONE},
      {"http://h/{a}", "{\"a\":\"\\u00e9\\n\"}", "http://h/%C3%A9%0A", ERR_NONE},
      {"http://h/{a}", "{\"a\":\"@evil.example\"}", "http://h/%40evil.example", ERR_NONE},
      {"http://h/x?q={a}", "{\"a\":\"1&b=2\"}", "http://h/x?q=1%26b%3D2", ERR_NONE},
      {"http://h?q={a}", "{\"a\":\"..\"}", "http://h?q=%2E%2E", ERR_NONE},
      {"http://h/{a}#f{b}", "{\"a\":1}", "http://h/1", ERR_NONE},
      {"http://h/{a}", "{\"a\":true}", "http://h/true", ERR_NONE},
      {"http://h/{a}", "{\"a\":1.0}", "http://h/1", ERR_NONE},
      {"http://h/{a}", "{\"a\":-2e3}", "http://h/-2000", ERR_NONE},
      {"http://h/{a}", "{\"a\":1.50}", "http://h/1.50", ERR_NONE},
      {"http://h/{a}", "{\"a\":12345678901234567890}", "http://h/12345678901234567890", ERR_NONE},
      {"http://h/{a}", "{\"a\":1e400}", "http://h/1e400", ERR_NONE},
      {"http://h/{a}", "{}", NULL, ERR_ARGUMENT_MISSING},
      {"http://h/{a}", "{\"a\":null}", NULL, ERR_ARGUMENT_MISSING},
      {"http://h/{a}", "{\"a\":[]}", NULL, ERR_ARGUMENT_INVALID},
      {"http://h/{a}", "{\"a\":{}}", NULL, ERR_ARGUMENT_INVALID},
      {"http://h/{a}", "{\"a\":\"\"}", NULL, ERR_ARGUMENT_INVALID},
      {"http://h/{a}", "{\"a\":\".\"}", NULL, ERR_ARGUMENT_INVALID},
      {"http://h/{a}", "{\"a\":\"x/../y\"}", NULL, ERR_ARGUMENT_INVALID},
      {"http://h/{a}", "{\"a\":\"x\\\\..\"}", NULL, ERR_ARGUMENT_INVALID},
      {"http://h/{a}", "{\"a\":\"%2E%2e/x\"}", NULL, ERR_ARGUMENT_INVALID},
      {"http://h/{a}{b}", "{\"a\":\"x\",\"b\":\"\"}", "http://h/x", ERR_NONE},
      {"http://h/.{a}", "{\"a\":\".\"}", NULL, ERR_ARGUMENT_INVALID},
      {"http://h/%2e{a}", "{\"a\":\"\"}", NULL, ERR_ARGUMENT_INVALID},
      {"http://h/{a}", "{\"a\":\"\\u0000\"}", NULL, ERR_ARGUMENT_INVALID},
      {"http://h/{a}", "{\"a\":1,\"a\":2}", NULL, ERR_ARGUMENT_INVALID},
      {"http://{a}/", "{\"a\":\"h\"}", NULL, ERR_HTTP_URL_INVALID},
      {"http://h{a}", "{\"a\":\".evil\"}", NULL, ERR_HTTP_URL_INVALID},
      {"http://h\\{a}/", "{\"a\":\"h\"}", NULL, ERR_HTTP_URL_INVALID},
      {"{a}://h/", "{\"a\":\"http\"}", NULL, ERR_HTTP_URL_INVALID},
      {"http://h/{a", "{\"a\":1}", NULL, ERR_HTTP_URL_INVALID},
      {"http://h/{}", "{\"a\":1}", NULL, ERR_HTTP_URL_INVALID},
      {"http://h/a}", "{\"a\":1}", NULL, ERR_HTTP_URL_INVALID},
      {"http://h/?a}", "{\"a\":1}", NULL, ERR_HTTP_URL_INVALID},
      {"http://h/{a b}", "{\"a\":1}", NULL, ERR_HTTP_URL_INVALID},
      {"/x", "{}", NULL, ERR_HTTP_URL_INVALID},
      {NULL, "{}", NULL, ERR_HTTP_URL_INVALID},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    struct arena *arena = arena_create(0);
    struct rest_arguments arguments;
    struct buf url = {0};
    struct error err = {0};
    ck_assert(rest_arguments_read(&arguments, arena, rows[i].arguments, &err));
    bool ok = rest_template_expand(rows[i].url_template, &arguments, &url, &err);
    ck_assert_msg(ok == (rows[i].url != NULL), "%s %s", rows[i].url_template, rows[i].arguments);
    if (ok)
      ck_assert_str_eq(url.data, rows[i].url);
    else
      ck_assert_msg(error_is(&err, rows[i].code), "%s %s: %s", rows[i].url_template, rows[i].arguments, err.code);
    buf_free(&url);
    arena_free(&arena);
  }
}
END_TEST

START_TEST(a_url_has_a_bound) {
  struct arena *arena = arena_create(0);
  struct rest_arguments arguments;
  struct buf json = {0}, url = {0};
  struct error err = {0};
  buf_append_text(&json, "{\"a\":\"");
  for (size_t i = 0; i < REST_URL_BYTES_MAX; i++)
    buf_append_char(&json, 'x');
  buf_append_text(&json, "\"}");
  ck_assert(rest_arguments_read(&arguments, arena, json.data, &err));
  ck_assert(!rest_template_expand("http://h/{a}", &arguments, &url, &err));
  ck_assert(error_is(&err, ERR_ARGUMENT_TOO_LARGE));
  buf_free(&json);
  buf_free(&url);
  arena_free(&arena);
}
END_TEST

START_TEST(arguments_are_one_object) {
  static const struct {
    const char *json;
    enum error_code code;
  } rows[] = {
      {NULL, ERR_NONE},
      {"", ERR_NONE},
      {" { } ", ERR_NONE},
      {"[]", ERR_ARGUMENT_INVALID},
      {"null", ERR_ARGUMENT_INVALID},
      {"1", ERR_ARGUMENT_INVALID},
      {"{", ERR_JSON_MALFORMED},
      {"{}{}", ERR_JSON_MALFORMED},
      {"{\"a\":\"\xff\"}", ERR_JSON_MALFORMED},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    struct arena *arena = arena_create(0);
    struct rest_arguments arguments;
    struct error err = {0};
    bool ok = rest_arguments_read(&arguments, arena, rows[i].json, &err);
    ck_assert_msg(ok ? rows[i].code == ERR_NONE : error_is(&err, rows[i].code), "%s", rows[i].json);
    arena_free(&arena);
  }
}
END_TEST

START_TEST(too_many_arguments_are_refused) {
  struct arena *arena = arena_create(0);
  struct rest_arguments arguments;
  struct buf json = {0};
  struct error err = {0};
  for (int i = 0; i <= REST_ARGUMENTS_MAX; i++)
    buf_printf(&json, "%c\"a%d\":%d", i == 0 ? '{' : ',', i, i);
  buf_append_char(&json, '}');
  ck_assert(rest_arguments_read(&arguments, arena, json.data, &err));
  ck_assert(!rest_arguments_split(&arguments, &err));
  ck_assert(error_is(&err, ERR_ARGUMENT_TOO_LARGE));
  buf_free(&json);
  arena_free(&arena);
}
END_TEST

TEST_MAIN("rest.template", templates_take_arguments_as_data, a_url_has_a_bound, arguments_are_one_object,
          too_many_arguments_are_refused)
