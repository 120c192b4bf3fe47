/* write_test.c: answers, byte for byte. */
#include <string.h>

#include "modules/mcp/wire/mcp_wire.h"
#include "sdk/base/json.h"
#include "sdk/base/test.h"

static struct mcp_slice slice(const char *text) {
  return (struct mcp_slice){text, strlen(text)};
}

START_TEST(an_error_carries_the_envelope) {
  struct mcp_problem problem;
  struct buf out = {0};
  mcp_problem_from_fault(&problem, MCP_FAULT_METHOD_NOT_FOUND, MCP_ERA_LEGACY, "abc");
  mcp_write_error(&out, slice("7"), &problem);
  ck_assert_str_eq(
      out.data, "{\"jsonrpc\":\"2.0\",\"id\":7,\"error\":{\"code\":-32601,\"message\":\"Method not found\",\"data\":{"
                "\"code\":\"unsupported\",\"category\":\"UNSUPPORTED\",\"retryable\":false,\"traceId\":\"abc\"}}}");
  buf_free(&out);
}
END_TEST

START_TEST(an_error_without_a_request_has_id_null) {
  struct mcp_problem problem;
  struct buf out = {0};
  mcp_problem_from_fault(&problem, MCP_FAULT_PARSE, MCP_ERA_MODERN, NULL);
  problem.extra = ",\"more\":1";
  mcp_write_error(&out, (struct mcp_slice){0}, &problem);
  ck_assert(json_check(out.data, out.length, JSON_DEPTH_MAX, NULL));
  ck_assert_ptr_nonnull(strstr(out.data, "\"id\":null"));
  ck_assert_ptr_nonnull(strstr(out.data, ",\"more\":1}"));
  buf_free(&out);
}
END_TEST

static const struct {
  enum mcp_fault fault;
  int legacy, modern;
} statuses[] = {
    {MCP_FAULT_PARSE, 400, 400},           {MCP_FAULT_METHOD_NOT_FOUND, 200, 404},
    {MCP_FAULT_INVALID_PARAMS, 200, 200},  {MCP_FAULT_META, 200, 400},
    {MCP_FAULT_HEADER_MISMATCH, 400, 400}, {MCP_FAULT_VERSION_UNSUPPORTED, 400, 400},
    {MCP_FAULT_SESSION_UNKNOWN, 404, 404}, {MCP_FAULT_ORIGIN, 403, 403},
};

START_TEST(a_fault_has_the_http_status_of_its_era) {
  struct mcp_problem problem;
  mcp_problem_from_fault(&problem, statuses[_i].fault, MCP_ERA_LEGACY, NULL);
  ck_assert_int_eq(problem.http_status, statuses[_i].legacy);
  mcp_problem_from_fault(&problem, statuses[_i].fault, MCP_ERA_MODERN, NULL);
  ck_assert_int_eq(problem.http_status, statuses[_i].modern);
}
END_TEST

static const struct {
  enum error_code error;
  int code, status;
} errors[] = {
    {ERR_CATALOG_NOT_FOUND, -32602, 200},
    {ERR_AUTH_PERMISSION_DENIED, -32003, 200},
    {ERR_AUTH_TOKEN_INVALID, -32000, 401},
    {ERR_RATE_LIMIT_EXCEEDED, -32000, 200},
    {ERR_INVOKE_OWNER_UNAVAILABLE, -32603, 200},
    {ERR_INVOKE_UPSTREAM, -32603, 200},
    {ERR_MODULE_ANSWER, -32603, 200},
    {ERR_INTERNAL, -32603, 200},
};

START_TEST(an_error_value_has_the_code_of_its_category) {
  struct mcp_problem problem, copy;
  struct error err = {0};
  struct buf out = {0};
  error_set(&err, errors[_i].error, NULL);
  mcp_problem_from_error(&problem, &err);
  ck_assert_int_eq(problem.code, errors[_i].code);
  ck_assert_int_eq(problem.http_status, errors[_i].status);
  copy = problem;
  memset(&problem, 0, sizeof(problem));
  mcp_write_error(&out, slice("\"x\""), &copy);
  ck_assert_ptr_nonnull(strstr(out.data, error_code_summary(errors[_i].error)));
  buf_free(&out);
}
END_TEST

START_TEST(a_legacy_result_is_bare) {
  struct buf out = {0};
  bool comma;
  mcp_write_result_open(&out, slice("1"), MCP_ERA_LEGACY, (struct mcp_slice){0}, &comma);
  mcp_write_member(&out, &comma, "content", "[ ]", 3);
  mcp_write_member(&out, &comma, "isError", "true", 4);
  mcp_write_result_close(&out);
  ck_assert_str_eq(out.data, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"content\":[ ],\"isError\":true}}");
  buf_free(&out);
}
END_TEST

START_TEST(a_modern_result_says_its_type_and_server_and_keeps_foreign_meta) {
  struct buf out = {0};
  bool comma;
  mcp_write_result_open(
      &out, slice("1"), MCP_ERA_MODERN,
      slice("{\"io.modelcontextprotocol/serverInfo\":{\"name\":\"other\"},\"x\":[1],\"progressToken\":1,"
            "\"io.modelcontextprotocol\\u002fa\":1}"),
      &comma);
  mcp_write_result_close(&out);
  ck_assert_str_eq(out.data, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"resultType\":\"complete\",\"_meta\":{"
                             "\"io.modelcontextprotocol/serverInfo\":" MCP_SERVER_INFO ",\"x\":[1]}}}");
  buf_free(&out);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("mcp.write");
  TCase *tcase = tcase_create("mcp.write");
  tcase_add_test(tcase, an_error_carries_the_envelope);
  tcase_add_test(tcase, an_error_without_a_request_has_id_null);
  tcase_add_loop_test(tcase, a_fault_has_the_http_status_of_its_era, 0, sizeof(statuses) / sizeof(statuses[0]));
  tcase_add_loop_test(tcase, an_error_value_has_the_code_of_its_category, 0, sizeof(errors) / sizeof(errors[0]));
  tcase_add_test(tcase, a_legacy_result_is_bare);
  tcase_add_test(tcase, a_modern_result_says_its_type_and_server_and_keeps_foreign_meta);
  suite_add_tcase(suite, tcase);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
