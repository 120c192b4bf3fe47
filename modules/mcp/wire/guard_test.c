/* guard_test.c: Host, Origin, Accept, Content-Type and traceparent by table (protocols 1.4, 1.8). */
#include "modules/mcp/wire/mcp_wire.h"
#include "sdk/base/test.h"

static const char *const hosts_allowed[] = {"gateway.example.com", "10.0.0.7:8080", NULL};
static const char *const origins_allowed[] = {"https://app.example.com", NULL};
static const char *const anything[] = {"*", NULL};

static const struct {
  const char *host;
  bool allowed;
} hosts[] = {
    {"localhost", true},
    {"localhost:4444", true},
    {"LOCALHOST:1", true},
    {"127.0.0.1:80", true},
    {"127.1.2.3", true},
    {"[::1]", true},
    {"[::1]:4444", true},
    {"gateway.example.com", true},
    {"gateway.example.com:8443", true},
    {"Gateway.Example.COM", true},
    {"10.0.0.7:8080", true},
    {"10.0.0.7", false},
    {"evil.example.com", false},
    {"localhost.evil.com", false},
    {"127.0.0.1.evil.com", false},
    {"127.0.0.1:80:80", false},
    {"127.0.0.1:x", false},
    {"localhost:", false},
    {"", false},
    {NULL, false},
    {"[::1].evil.com", false},
    {"127.0.0", false},
    {"127..0.1", false},
    {"gateway.example.com.evil.com", false},
    {"[::2]", false},
    {"127.0.0.1234", false},
};

START_TEST(a_host_is_served_as_the_table_says) {
  ck_assert_msg(mcp_host_is_allowed(hosts[_i].host, hosts_allowed) == hosts[_i].allowed, "%s", hosts[_i].host);
  if (hosts[_i].host && *hosts[_i].host)
    ck_assert(mcp_host_is_allowed(hosts[_i].host, anything));
}
END_TEST

static const struct {
  const char *origin;
  bool allowed;
} origins[] = {
    {NULL, true},
    {"http://localhost:3000", true},
    {"https://127.0.0.1", true},
    {"http://[::1]:5", true},
    {"https://app.example.com", true},
    {"null", false},
    {"", false},
    {"http://evil.example.com", false},
    {"https://app.example.com.evil.com", false},
    {"http://localhost.evil.com", false},
    {"file://localhost", false},
    {"localhost", false},
};

START_TEST(an_origin_is_allowed_as_the_table_says) {
  ck_assert_msg(mcp_origin_is_allowed(origins[_i].origin, origins_allowed) == origins[_i].allowed, "%s",
                origins[_i].origin);
}
END_TEST

static const struct {
  const char *accept;
  bool json, sse;
} accepts[] = {
    {NULL, true, true},
    {"*/*", true, true},
    {"application/json, text/event-stream", true, true},
    {"text/event-stream;q=0.5 , application/json ;q=1", true, true},
    {"APPLICATION/JSON", true, false},
    {"application/*", true, false},
    {"text/*", false, true},
    {"text/html", false, false},
    {"", false, false},
    {"application/jsonx", false, false},
};

START_TEST(accept_takes_what_the_table_says) {
  ck_assert_int_eq(mcp_accept_takes(accepts[_i].accept, "application/json"), accepts[_i].json);
  ck_assert_int_eq(mcp_accept_takes(accepts[_i].accept, "text/event-stream"), accepts[_i].sse);
}
END_TEST

START_TEST(content_type_is_json_with_parameters_and_in_any_case) {
  ck_assert(mcp_content_type_is_json("application/json"));
  ck_assert(mcp_content_type_is_json("Application/JSON ; charset=utf-8"));
  ck_assert(!mcp_content_type_is_json("application/jsonp"));
  ck_assert(!mcp_content_type_is_json("text/plain"));
  ck_assert(!mcp_content_type_is_json(NULL));
}
END_TEST

START_TEST(a_traceparent_is_whole_or_nothing) {
  ck_assert(mcp_traceparent_is_valid("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
  ck_assert(!mcp_traceparent_is_valid("00-00000000000000000000000000000000-b7ad6b7169203331-01"));
  ck_assert(!mcp_traceparent_is_valid("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"));
  ck_assert(!mcp_traceparent_is_valid("00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
  ck_assert(!mcp_traceparent_is_valid("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
  ck_assert(!mcp_traceparent_is_valid("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0"));
  ck_assert(!mcp_traceparent_is_valid(""));
  ck_assert(!mcp_traceparent_is_valid(NULL));
}
END_TEST

int main(void) {
  Suite *suite = suite_create("mcp.guard");
  TCase *tcase = tcase_create("mcp.guard");
  tcase_add_loop_test(tcase, a_host_is_served_as_the_table_says, 0, sizeof(hosts) / sizeof(hosts[0]));
  tcase_add_loop_test(tcase, an_origin_is_allowed_as_the_table_says, 0, sizeof(origins) / sizeof(origins[0]));
  tcase_add_loop_test(tcase, accept_takes_what_the_table_says, 0, sizeof(accepts) / sizeof(accepts[0]));
  tcase_add_test(tcase, content_type_is_json_with_parameters_and_in_any_case);
  tcase_add_test(tcase, a_traceparent_is_whole_or_nothing);
  suite_add_tcase(suite, tcase);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
