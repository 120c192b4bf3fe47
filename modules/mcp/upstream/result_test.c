/* result_test.c: what an upstream's CallToolResult may be, by table, and what a call to it says. */
#include <string.h>

#include "modules/mcp/upstream/mcp_upstream.h"
#include "sdk/base/test.h"

static const struct {
  const char *result;
  bool ok, is_error;
  const char *content, *structured;
} results[] = {
    {"{\"content\":[]}", true, false, "[]", ""},
    {"{\"content\":[{\"type\":\"text\",\"text\":\"a\"}],\"isError\":true}", true, true,
     "[{\"type\":\"text\",\"text\":\"a\"}]", ""},
    {"{\"resultType\":\"complete\",\"content\":[ ],\"structuredContent\":{\"a\" : 1}}", true, false, "[ ]",
     "{\"a\" : 1}"},
    {"{\"structuredContent\":7}", true, false, "", "7"},
    {"{\"content\":[],\"isError\":\"true\"}", true, false, "[]", ""},
    {"{\"content\":[],\"_meta\":7}", true, false, "[]", ""},
    {"{}", false, false, "", ""},
    {"{\"content\":{}}", false, false, "", ""},
    {"{\"content\":\"text\"}", false, false, "", ""},
    {"{\"resultType\":\"input_required\",\"content\":[]}", false, false, "", ""},
    {"{\"resultType\":\"task\",\"content\":[]}", false, false, "", ""},
};

START_TEST(a_result_is_read_as_the_table_says) {
  struct mcp_upstream_tool_result out;
  struct error err = {0};
  const char *text = results[_i].result;
  bool ok = mcp_upstream_tool_result_read((struct mcp_slice){text, strlen(text)}, &out, &err);
  ck_assert_msg(ok == results[_i].ok, "%s", text);
  if (!ok) {
    ck_assert(error_is(&err, ERR_INVOKE_UPSTREAM));
    return;
  }
  ck_assert_int_eq(out.is_error, results[_i].is_error);
  ck_assert_uint_eq(out.content.length, strlen(results[_i].content));
  ck_assert_uint_eq(out.structured.length, strlen(results[_i].structured));
  ck_assert(out.content.length == 0 || memcmp(out.content.data, results[_i].content, out.content.length) == 0);
  ck_assert_uint_eq(out.meta.length, 0);
}
END_TEST

static const struct {
  const char *name, *arguments, *members;
} calls[] = {
    {"add", "{\"a\" : 1}", "\"name\":\"add\",\"arguments\":{\"a\" : 1}"},
    {"a\"b", NULL, "\"name\":\"a\\\"b\",\"arguments\":{}"},
    {NULL, "", "\"name\":\"\",\"arguments\":{}"},
};

START_TEST(a_call_names_the_tool_and_its_arguments) {
  core_common_v1_McpPlan mcp = {.original_name = (char *)(uintptr_t)calls[_i].name};
  core_common_v1_InvocationPlan plan = {.arguments_json = (char *)(uintptr_t)calls[_i].arguments,
                                        .which_call = core_common_v1_InvocationPlan_mcp_tag,
                                        .call.mcp = &mcp};
  struct buf out = {0};
  mcp_upstream_tool_members(&out, &plan);
  ck_assert_str_eq(out.data, calls[_i].members);
  buf_free(&out);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("mcp.result");
  TCase *tcase = tcase_create("mcp.result");
  tcase_add_loop_test(tcase, a_result_is_read_as_the_table_says, 0, sizeof(results) / sizeof(results[0]));
  tcase_add_loop_test(tcase, a_call_names_the_tool_and_its_arguments, 0, sizeof(calls) / sizeof(calls[0]));
  suite_add_tcase(suite, tcase);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
