/* params_test.c: arguments mirrored in headers, by table (protocols 1.4). */
#include <string.h>
#include <strings.h>

#include "modules/mcp/wire/mcp_wire.h"
#include "sdk/base/test.h"

static const char definition[] =
    "{\"name\":\"t\",\"inputSchema\":{\"type\":\"object\",\"properties\":{"
    "\"region\":{\"type\":\"string\",\"x-mcp-header\":\"Region\"},\"count\":{\"type\":\"integer\",\"x-mcp-header\":"
    "\"Count\"},"
    "\"plain\":{\"type\":\"string\"},\"deep\":{\"type\":\"object\",\"properties\":{\"flag\":{\"type\":\"boolean\","
    "\"x-mcp-header\":\"Flag\"}}}}}}";

static const struct {
  const char *arguments, *region, *count, *flag;
  bool matches;
} table[] = {
    {"{}", NULL, NULL, NULL, true},
    {"{\"plain\":\"x\"}", NULL, NULL, NULL, true},
    {"{\"region\":\"eu\"}", "eu", NULL, NULL, true},
    {"{\"region\":\"eu\"}", "us", NULL, NULL, false},
    {"{\"region\":\"eu\"}", NULL, NULL, NULL, false},
    {"{\"region\":null}", NULL, NULL, NULL, true},
    {"{}", "eu", NULL, NULL, false},
    {"{\"region\":\"gr\\u00fcn\"}", "=?base64?Z3LDvG4=?=", NULL, NULL, true},
    {"{\"count\":7}", NULL, "7", NULL, true},
    {"{\"count\":7}", NULL, "+7", NULL, false},
    {"{\"count\":7}", NULL, "8", NULL, false},
    {"{\"deep\":{\"flag\":true}}", NULL, NULL, "true", true},
    {"{\"deep\":{\"flag\":true}}", NULL, NULL, "false", false},
    {"{\"deep\":{\"flag\":true}}", NULL, NULL, NULL, false},
};

static const char *get(void *arg, const char *name) {
  const int *row = arg;
  return strcasecmp(name, "mcp-param-region") == 0  ? table[*row].region
         : strcasecmp(name, "mcp-param-count") == 0 ? table[*row].count
         : strcasecmp(name, "mcp-param-flag") == 0  ? table[*row].flag
                                                    : NULL;
}

START_TEST(arguments_and_headers_agree_as_the_table_says) {
  const char *arguments = table[_i].arguments;
  int row = _i;
  bool matches = mcp_params_match((struct mcp_slice){definition, strlen(definition)},
                                  (struct mcp_slice){arguments, strlen(arguments)}, get, &row);
  ck_assert_msg(matches == table[_i].matches, "row %d", _i);
}
END_TEST

START_TEST(a_definition_without_a_schema_mirrors_nothing) {
  int row = 0;
  ck_assert(mcp_params_match((struct mcp_slice){"{}", 2}, (struct mcp_slice){0}, get, &row));
  ck_assert(mcp_params_match((struct mcp_slice){0}, (struct mcp_slice){0}, get, &row));
}
END_TEST

int main(void) {
  Suite *suite = suite_create("mcp.params");
  TCase *tcase = tcase_create("mcp.params");
  tcase_add_loop_test(tcase, arguments_and_headers_agree_as_the_table_says, 0, sizeof(table) / sizeof(table[0]));
  tcase_add_test(tcase, a_definition_without_a_schema_mirrors_nothing);
  suite_add_tcase(suite, tcase);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
