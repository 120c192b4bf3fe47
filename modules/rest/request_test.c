/* request_test.c: a plan made into a request: method, URL, headers, body, by table (docs/rest.md). */
#include <string.h>

#include "modules/rest/rest_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/test.h"

#define MAPPINGS_MAX 3

static char *text(const char *value) {
  return (char *)(uintptr_t)value;
}

struct row {
  const char *method, *url, *arguments, *content_type;
  const char *query[MAPPINGS_MAX][2], *headers[MAPPINGS_MAX][2];
  const char *expected_url, *expected_body; /* url NULL: refused; body NULL: none */
  enum error_code code;
};

static pb_size_t mappings_fill(core_common_v1_NameMapping *target, const char *const source[MAPPINGS_MAX][2]) {
  pb_size_t count = 0;
  while (count < MAPPINGS_MAX && source[count][0]) {
    target[count] = (core_common_v1_NameMapping){.argument = text(source[count][0]), .target = text(source[count][1])};
    count++;
  }
  return count;
}

static bool build(const struct row *row, struct rest_request *request, struct error *err) {
  core_common_v1_NameMapping query[MAPPINGS_MAX], headers[MAPPINGS_MAX];
  core_common_v1_Header fixed[] = {{.name = text("X-Fixed"), .value = text("f")}};
  core_common_v1_RestPlan rest = {.method = text(row->method),
                                  .url_template = text(row->url),
                                  .content_type = text(row->content_type),
                                  .query_mapping = query,
                                  .header_mapping = headers};
  rest.query_mapping_count = mappings_fill(query, row->query);
  rest.header_mapping_count = mappings_fill(headers, row->headers);
  core_common_v1_InvocationPlan plan = {.arguments_json = text(row->arguments),
                                        .headers_count = 1,
                                        .headers = fixed,
                                        .which_call = core_common_v1_InvocationPlan_rest_tag,
                                        .call.rest = &rest};
  return rest_request_build(&plan, request, err);
}

static const char *header(const struct rest_request *request, const char *name) {
  for (size_t i = 0; i < request->header_count; i++)
    if (strcasecmp(request->headers[i].name, name) == 0)
      return request->headers[i].value;
  return NULL;
}

#define U "http://h/x"

static const struct row rows[] = {
    /* where arguments go */
    {"GET", U, "{\"a\":1,\"b\":\"x y\"}", NULL, {{0}}, {{0}}, U "?a=1&b=x%20y", NULL, ERR_NONE},
    {"get", U "?k=1", "{\"a\":1}", NULL, {{0}}, {{0}}, U "?k=1&a=1", NULL, ERR_NONE},
    {"", U, NULL, NULL, {{0}}, {{0}}, U, NULL, ERR_NONE},
    {"GET",
     U "?a=own&a%20b=2",
     "{\"a\":1,\"a b\":3,\"c\":4}",
     NULL,
     {{0}},
     {{0}},
     U "?a=own&a%20b=2&c=4",
     NULL,
     ERR_NONE},
    {"GET", U, "{\"a\":[1,\"x\"],\"b\":null}", NULL, {{0}}, {{0}}, U "?a=1&a=x", NULL, ERR_NONE},
    {"GET", U, "{\"a&b\":\"=\"}", NULL, {{0}}, {{0}}, U "?a%26b=%3D", NULL, ERR_NONE},
    {"GET", U, "{\"a\":{}}", NULL, {{0}}, {{0}}, NULL, NULL, ERR_ARGUMENT_INVALID},
    {"GET", U, "{\"a\":[[1]]}", NULL, {{0}}, {{0}}, NULL, NULL, ERR_ARGUMENT_INVALID},
    {"DELETE", U, "{\"a\":1}", NULL, {{0}}, {{0}}, U "?a=1", NULL, ERR_NONE},
    {"DELETE", U, "{\"a\":1}", "application/json", {{0}}, {{0}}, U, "{\"a\":1}", ERR_NONE},
    {"POST", U "?k=1", " {\"a\" : 1} ", NULL, {{0}}, {{0}}, U "?k=1", " {\"a\" : 1} ", ERR_NONE},
    {"POST", U, "", NULL, {{0}}, {{0}}, U, "{}", ERR_NONE},
    {"PUT",
     U "/{a}",
     "{\"a\":1,\"b\\\"\":[1, 2],\"c\":null}",
     NULL,
     {{0}},
     {{0}},
     U "/1",
     "{\"b\\\"\":[1, 2],\"c\":null}",
     ERR_NONE},
    {"PATCH", U, "{\"a\":1}", "application/merge-patch+json", {{0}}, {{0}}, U, "{\"a\":1}", ERR_NONE},
    {"TRACE", U, "{}", NULL, {{0}}, {{0}}, NULL, NULL, ERR_HTTP_METHOD_UNSUPPORTED},
    /* forms */
    {"POST",
     U,
     "{\"a\":\"x&y\",\"b\":[1,2],\"c\":null,\"d\":true}",
     "application/x-www-form-urlencoded; charset=utf-8",
     {{0}},
     {{0}},
     U,
     "a=x%26y&b=1&b=2&d=true",
     ERR_NONE},
    {"POST", U, "{}", "APPLICATION/X-WWW-FORM-URLENCODED", {{0}}, {{0}}, U, "", ERR_NONE},
    {"POST", U, "{\"a\":{}}", "application/x-www-form-urlencoded", {{0}}, {{0}}, NULL, NULL, ERR_ARGUMENT_INVALID},
    /* mappings rename and allow */
    {"GET", U, "{\"a\":1,\"b\":2}", NULL, {{"a", "A"}}, {{0}}, U "?A=1", NULL, ERR_NONE},
    {"GET", U, "{\"a\":1}", NULL, {{"a", ""}, {"missing", "m"}}, {{0}}, U "?a=1", NULL, ERR_NONE},
    {"GET", U, "{\"a\":null}", NULL, {{"a", "A"}}, {{0}}, U, NULL, ERR_NONE},
    {"GET", U "?A=own", "{\"a\":1}", NULL, {{"a", "A"}}, {{0}}, U "?A=own", NULL, ERR_NONE},
    {"GET", U "/{a}", "{\"a\":1}", NULL, {{"a", "A"}}, {{0}}, U "/1", NULL, ERR_NONE},
    {"GET", U, "{\"a\":[1]}", NULL, {{"a", "A"}}, {{0}}, NULL, NULL, ERR_ARGUMENT_INVALID},
    {"POST", U, "{\"a\":1,\"b\":2}", NULL, {{"a", "A"}}, {{0}}, U, "{\"A\":1}", ERR_NONE},
    {"GET", U "/{a}", "{\"a\":\"v\",\"b\":2}", NULL, {{0}}, {{"a", "X-A"}}, U "/v", NULL, ERR_NONE},
    {"GET", U, "{\"a\":{}}", NULL, {{0}}, {{"a", "X-A"}}, NULL, NULL, ERR_ARGUMENT_INVALID},
    {"GET", U, "{\"a\":\"x\\ny\"}", NULL, {{0}}, {{"a", "X-A"}}, NULL, NULL, ERR_ARGUMENT_INVALID},
    {"GET", U, "{\"a\":\"x\\u0000\"}", NULL, {{0}}, {{"a", "X-A"}}, NULL, NULL, ERR_ARGUMENT_INVALID},
    {"GET", U, "{\"a\":\"x\"}", NULL, {{0}}, {{"a", "x-fixed"}}, NULL, NULL, ERR_ARGUMENT_INVALID},
    {"GET",
     U,
     "{\"a\":\"x\",\"b\":\"y\"}",
     NULL,
     {{0}},
     {{"a", "X-A"}, {"b", "x-a"}},
     NULL,
     NULL,
     ERR_ARGUMENT_INVALID},
    {"GET", U, "{\"a\":\"x\"}", NULL, {{0}}, {{"a", "Authorization"}}, NULL, NULL, ERR_ARGUMENT_INVALID},
};

START_TEST(requests_follow_their_plan) {
  const struct row *row = &rows[_i];
  struct rest_request request = {0};
  struct error err = {0};
  bool ok = build(row, &request, &err);
  ck_assert_msg(ok == (row->expected_url != NULL), "row %d: %s", _i, err.message);
  if (!ok) {
    ck_assert_msg(error_is(&err, row->code), "row %d: %s", _i, err.code);
  } else {
    ck_assert_str_eq(request.url.data, row->expected_url);
    ck_assert_msg((request.body != NULL) == (row->expected_body != NULL), "row %d", _i);
    if (row->expected_body) {
      ck_assert_uint_eq(request.body_bytes, strlen(row->expected_body));
      ck_assert_int_eq(memcmp(request.body, row->expected_body, request.body_bytes), 0);
      ck_assert_str_eq(header(&request, "content-type"), row->content_type ? row->content_type : "application/json");
    } else {
      ck_assert_ptr_null(header(&request, "content-type"));
    }
    if (row->headers[0][0])
      ck_assert_str_eq(header(&request, row->headers[0][1]), "v");
    ck_assert_str_eq(header(&request, "x-fixed"), "f");
    ck_assert_uint_eq(request.private_header_count, 1);
  }
  rest_request_clear(&request);
}
END_TEST

START_TEST(arguments_set_no_header_that_matters) {
  static const struct {
    const char *name;
    bool allowed;
  } names[] = {
      {"X-Tenant", true},
      {"Accept-Language", true},
      {"If-Match", true},
      {"x-request-id", true},
      {"authorization", false},
      {"Proxy-Authorization", false},
      {"X-API-Key", false},
      {"api-key", false},
      {"X-Auth-Token", false},
      {"my-secret", false},
      {"some-key", false},
      {"Cookie", false},
      {"Set-Cookie", false},
      {"Host", false},
      {"Transfer-Encoding", false},
      {"Content-Length", false},
      {"Content-Type", false},
      {"Connection", false},
      {"Upgrade", false},
      {"X-Forwarded-For", false},
      {"Forwarded", false},
      {"traceparent", false},
      {"", false},
      {"a b", false},
      {"a:b", false},
      {":path", false},
      {"x\r\ny", false},
  };
  for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
    ck_assert_msg(rest_header_target_is_allowed(names[i].name) == names[i].allowed, "%s", names[i].name);
}
END_TEST

START_TEST(a_multipart_name_stays_inside_its_quotes) {
  static const struct row row = {"POST", U,       "{\"a\\\"\\r\\nX: y\":\"v\"}", "multipart/form-data", {{0}}, {{0}}, U,
                                 "",     ERR_NONE};
  struct rest_request request = {0};
  ck_assert(build(&row, &request, NULL));
  ck_assert_ptr_nonnull(strstr(request.body, "form-data; name=\"a%22%0D%0AX: y\"\r\n\r\nv\r\n--"));
  const char *boundary = strstr(header(&request, "content-type"), "boundary=");
  ck_assert_ptr_nonnull(boundary);
  ck_assert_int_eq(strncmp((const char *)request.body + 2, boundary + 9, strlen(boundary + 9)), 0);
  rest_request_clear(&request);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("rest.request");
  TCase *tcase = tcase_create("rest.request");
  tcase_add_loop_test(tcase, requests_follow_their_plan, 0, (int)(sizeof(rows) / sizeof(rows[0])));
  tcase_add_test(tcase, arguments_set_no_header_that_matters);
  tcase_add_test(tcase, a_multipart_name_stays_inside_its_quotes);
  suite_add_tcase(suite, tcase);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
