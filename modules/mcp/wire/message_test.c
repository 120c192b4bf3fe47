/* message_test.c: the JSON-RPC envelope by table: bytes in, fault and message out (protocols 1.5, MCP-4). */
#include <string.h>

#include "modules/mcp/wire/mcp_wire.h"
#include "sdk/base/alloc.h"
#include "sdk/base/test.h"

static enum mcp_fault parse(const char *text, struct mcp_message *message) {
  bool batch;
  enum mcp_fault fault = mcp_body_check(text, strlen(text), &batch);
  memset(message, 0, sizeof(*message));
  return fault ? fault : mcp_message_parse(text, strlen(text), message);
}

#define HEAD "\"jsonrpc\":\"2.0\","

static const struct {
  const char *text;
  enum mcp_fault fault;
} messages[] = {
    {"", MCP_FAULT_PARSE},
    {"{", MCP_FAULT_PARSE},
    {"{}x", MCP_FAULT_PARSE},
    {"{\"a\":\"\xff\"}", MCP_FAULT_PARSE},
    {"\"text\"", MCP_FAULT_INVALID_REQUEST},
    {"null", MCP_FAULT_INVALID_REQUEST},
    {"[]", MCP_FAULT_INVALID_REQUEST},
    {"{}", MCP_FAULT_INVALID_REQUEST},
    {"{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"ping\"}", MCP_FAULT_INVALID_REQUEST},
    {"{\"jsonrpc\":2.0,\"id\":1,\"method\":\"ping\"}", MCP_FAULT_INVALID_REQUEST},
    {"{\"id\":1,\"method\":\"ping\"}", MCP_FAULT_INVALID_REQUEST},
    {"{" HEAD "\"id\":null,\"method\":\"ping\"}", MCP_FAULT_INVALID_REQUEST},
    {"{" HEAD "\"id\":1.5,\"method\":\"ping\"}", MCP_FAULT_INVALID_REQUEST},
    {"{" HEAD "\"id\":1e3,\"method\":\"ping\"}", MCP_FAULT_INVALID_REQUEST},
    {"{" HEAD "\"id\":[1],\"method\":\"ping\"}", MCP_FAULT_INVALID_REQUEST},
    {"{" HEAD "\"id\":{},\"method\":\"ping\"}", MCP_FAULT_INVALID_REQUEST},
    {"{" HEAD "\"id\":1,\"method\":7}", MCP_FAULT_INVALID_REQUEST},
    {"{" HEAD "\"id\":1}", MCP_FAULT_INVALID_REQUEST},
    {"{" HEAD "\"id\":1,\"id\":2,\"method\":\"ping\"}", MCP_FAULT_INVALID_REQUEST},
    {"{" HEAD "\"id\":1,\"method\":\"ping\",\"m\\u0065thod\":\"tools/call\"}", MCP_FAULT_INVALID_REQUEST},
    {"{" HEAD "\"id\":1,\"result\":{},\"error\":{}}", MCP_FAULT_INVALID_REQUEST},
    {"{" HEAD "\"id\":1,\"method\":\"ping\",\"result\":{}}", MCP_FAULT_INVALID_REQUEST},
    {"{" HEAD "\"id\":1,\"method\":\"ping\",\"params\":[]}", MCP_FAULT_INVALID_PARAMS},
    {"{" HEAD "\"id\":1,\"method\":\"ping\",\"params\":null}", MCP_FAULT_INVALID_PARAMS},
    {"{" HEAD "\"id\":1,\"method\":\"ping\",\"params\":{\"_meta\":7}}", MCP_FAULT_META},
    {"{" HEAD "\"id\":1,\"method\":\"ping\",\"params\":{\"_meta\":{\"progressToken\":1.5}}}", MCP_FAULT_META},
    {"{" HEAD "\"id\":1,\"method\":\"ping\",\"params\":{\"_meta\":{\"progressToken\":{}}}}", MCP_FAULT_META},
    {"{" HEAD "\"id\":1,\"method\":\"tools/list\",\"params\":{\"cursor\":5}}", MCP_FAULT_INVALID_PARAMS},
    {"{" HEAD "\"id\":1,\"method\":\"tools/call\"}", MCP_FAULT_INVALID_PARAMS},
    {"{" HEAD "\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":7}}", MCP_FAULT_INVALID_PARAMS},
    {"{" HEAD "\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"a\",\"arguments\":[]}}",
     MCP_FAULT_INVALID_PARAMS},
    {"{" HEAD "\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"a\",\"name\":\"b\"}}",
     MCP_FAULT_INVALID_PARAMS},
    {"{" HEAD "\"id\":1,\"method\":\"initialize\",\"params\":{}}", MCP_FAULT_INVALID_PARAMS},
    {"{" HEAD "\"id\":1,\"method\":\"ping\"}", MCP_FAULT_NONE},
    {"{" HEAD "\"id\":\"\",\"method\":\"ping\"}", MCP_FAULT_NONE},
    {"{" HEAD "\"id\":-3,\"method\":\"no/such\"}", MCP_FAULT_NONE},
    {"{" HEAD "\"method\":\"notifications/initialized\"}", MCP_FAULT_NONE},
    {"{" HEAD "\"id\":1,\"result\":{}}", MCP_FAULT_NONE},
    {"{" HEAD "\"id\":1,\"error\":{\"code\":1,\"message\":\"m\"}}", MCP_FAULT_NONE},
    {"{" HEAD "\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"a\"}}", MCP_FAULT_NONE},
};

START_TEST(a_message_has_the_fault_of_the_table) {
  struct mcp_message message;
  ck_assert_msg(parse(messages[_i].text, &message) == messages[_i].fault, "%s", messages[_i].text);
}
END_TEST

START_TEST(the_fault_of_a_message_names_its_id_when_it_can_be_read) {
  struct mcp_message message;
  ck_assert_int_eq(parse("{\"id\":\"x\",\"jsonrpc\":\"1.0\",\"method\":\"ping\"}", &message),
                   MCP_FAULT_INVALID_REQUEST);
  ck_assert_uint_eq(message.id.length, 3);
  ck_assert_mem_eq(message.id.data, "\"x\"", 3);
}
END_TEST

START_TEST(members_are_the_bytes_that_came) {
  static const char text[] =
      "{ \"params\" : {\"arguments\": {\"b\" : 1.0 ,\"a\":[ ]}, "
      "\"name\":\"t\\u006f\\u006fl\",\"_meta\":{\"progressToken\": 7,"
      "\"traceparent\":\"t\"}}, " HEAD "\"method\":\"tools/call\", \"id\" : 12345678901234567890 }";
  struct mcp_message message;
  ck_assert_int_eq(parse(text, &message), MCP_FAULT_NONE);
  ck_assert_int_eq(message.kind, MCP_MESSAGE_REQUEST);
  ck_assert_int_eq(message.method, MCP_METHOD_TOOLS_CALL);
  char *id = base_strndup(message.id.data, message.id.length);
  char *arguments = base_strndup(message.arguments.data, message.arguments.length);
  char *name = mcp_token_text(message.name);
  ck_assert_str_eq(id, "12345678901234567890");
  ck_assert_str_eq(arguments, "{\"b\" : 1.0 ,\"a\":[ ]}");
  ck_assert_str_eq(name, "tool");
  ck_assert_uint_eq(message.meta.progress_token.length, 1);
  ck_assert_uint_eq(message.meta.traceparent.length, 3);
  base_free(id);
  base_free(arguments);
  base_free(name);
}
END_TEST

START_TEST(a_deep_body_is_refused) {
  char text[300];
  bool batch;
  memset(text, '[', sizeof(text));
  ck_assert_int_eq(mcp_body_check(text, sizeof(text), &batch), MCP_FAULT_TOO_DEEP);
}
END_TEST

START_TEST(a_batch_is_counted) {
  struct buf text = {0};
  bool batch;
  for (int count = 1; count <= MCP_BATCH_MAX + 1; count++) {
    buf_append_text(&text, count == 1 ? "[{}" : ",{}");
    buf_append_char(&text, ']');
    enum mcp_fault expected = count <= MCP_BATCH_MAX ? MCP_FAULT_NONE : MCP_FAULT_INVALID_REQUEST;
    ck_assert_int_eq(mcp_body_check(text.data, text.length, &batch), expected);
    ck_assert(batch);
    text.length--;
  }
  buf_free(&text);
}
END_TEST

START_TEST(a_long_id_is_refused) {
  struct mcp_message message;
  struct buf text = {0};
  buf_append_text(&text, "{" HEAD "\"method\":\"ping\",\"id\":\"");
  for (int i = 0; i < MCP_ID_BYTES_MAX; i++)
    buf_append_char(&text, 'x');
  buf_append_text(&text, "\"}");
  ck_assert_int_eq(mcp_message_parse(text.data, text.length, &message), MCP_FAULT_INVALID_REQUEST);
  buf_free(&text);
}
END_TEST

static const struct {
  const char *a, *b;
  bool same;
} ids[] = {
    {"1", "1", true},
    {"1", "\"1\"", false},
    {"\"a\"", "\"a\"", true},
    {"\"a\"", "\"\\u0061\"", true},
    {"\"a\"", "\"b\"", false},
    {"", "", false},
    {"\"x\\\\n\"", "\"x\\n\"", false},
    {"\"x\\\\n\"", "\"x\\u005cn\"", true},
};

START_TEST(ids_are_compared_by_meaning) {
  struct mcp_slice a = {ids[_i].a, strlen(ids[_i].a)}, b = {ids[_i].b, strlen(ids[_i].b)};
  ck_assert_int_eq(mcp_token_same(a, b), ids[_i].same);
}
END_TEST

START_TEST(what_is_not_built_is_not_served) {
  ck_assert(mcp_method_is_served(MCP_METHOD_TOOLS_CALL, MCP_ERA_MODERN));
  ck_assert(mcp_method_is_served(MCP_METHOD_PING, MCP_ERA_LEGACY));
  ck_assert(!mcp_method_is_served(MCP_METHOD_PING, MCP_ERA_MODERN));
  ck_assert(!mcp_method_is_served(MCP_METHOD_INITIALIZE, MCP_ERA_MODERN));
  ck_assert(!mcp_method_is_served(MCP_METHOD_DISCOVER, MCP_ERA_LEGACY));
  ck_assert(!mcp_method_is_served(MCP_METHOD_RESOURCES_READ, MCP_ERA_LEGACY));
  ck_assert(!mcp_method_is_served(MCP_METHOD_LOGGING_SET_LEVEL, MCP_ERA_LEGACY));
  ck_assert(!mcp_method_is_served(MCP_METHOD_CANCELLED, MCP_ERA_LEGACY));
  ck_assert(!mcp_method_is_served(MCP_METHOD_UNKNOWN, MCP_ERA_LEGACY));
}
END_TEST

int main(void) {
  Suite *suite = suite_create("mcp.message");
  TCase *tcase = tcase_create("mcp.message");
  tcase_add_loop_test(tcase, a_message_has_the_fault_of_the_table, 0, sizeof(messages) / sizeof(messages[0]));
  tcase_add_loop_test(tcase, ids_are_compared_by_meaning, 0, sizeof(ids) / sizeof(ids[0]));
  tcase_add_test(tcase, the_fault_of_a_message_names_its_id_when_it_can_be_read);
  tcase_add_test(tcase, members_are_the_bytes_that_came);
  tcase_add_test(tcase, a_deep_body_is_refused);
  tcase_add_test(tcase, a_batch_is_counted);
  tcase_add_test(tcase, a_long_id_is_refused);
  tcase_add_test(tcase, what_is_not_built_is_not_served);
  suite_add_tcase(suite, tcase);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
