/* era_test.c: which era a request belongs to, and the checks of the modern one, by table (protocols 1.2 to 1.4). */
#include <string.h>

#include "modules/mcp/wire/mcp_wire.h"
#include "sdk/base/test.h"

#define VERSION_META "\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\""
#define CAPABILITIES_META "\"io.modelcontextprotocol/clientCapabilities\":{}"
#define META "\"_meta\":{" VERSION_META "," CAPABILITIES_META "}"
#define REQUEST(method, params) "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"" method "\",\"params\":{" params "}}"
#define CALL(name, meta) REQUEST("tools/call", "\"name\":\"" name "\"," meta)
#define NEW "2026-07-28"

static const struct {
  const char *what, *body, *version, *method, *name;
  enum mcp_era era;
  enum mcp_fault fault;
} table[] = {
    {"legacy, nothing said", REQUEST("tools/list", ""), NULL, NULL, NULL, MCP_ERA_LEGACY, MCP_FAULT_NONE},
    {"legacy by header", REQUEST("tools/list", ""), "2025-06-18", NULL, NULL, MCP_ERA_LEGACY, MCP_FAULT_NONE},
    {"unknown header", REQUEST("tools/list", ""), "1999-01-01", NULL, NULL, MCP_ERA_LEGACY, MCP_FAULT_VERSION_HEADER},
    {"empty header", REQUEST("tools/list", ""), "", NULL, NULL, MCP_ERA_LEGACY, MCP_FAULT_VERSION_HEADER},
    {"initialize", REQUEST("initialize", "\"protocolVersion\":\"x\""), NULL, NULL, NULL, MCP_ERA_LEGACY,
     MCP_FAULT_NONE},
    {"initialize, hopeful", REQUEST("initialize", "\"protocolVersion\":\"x\""), NEW, NULL, NULL, MCP_ERA_LEGACY,
     MCP_FAULT_NONE},
    {"modern", REQUEST("server/discover", META), NEW, "server/discover", NULL, MCP_ERA_MODERN, MCP_FAULT_NONE},
    {"modern, removed method", REQUEST("ping", META), NEW, "ping", NULL, MCP_ERA_MODERN, MCP_FAULT_NONE},
    {"modern header, no meta", REQUEST("tools/list", ""), NEW, "tools/list", NULL, MCP_ERA_MODERN, MCP_FAULT_META},
    {"meta, no header", REQUEST("tools/list", META), NULL, "tools/list", NULL, MCP_ERA_MODERN,
     MCP_FAULT_HEADER_MISMATCH},
    {"meta and header differ", REQUEST("tools/list", META), "2025-11-25", "tools/list", NULL, MCP_ERA_MODERN,
     MCP_FAULT_HEADER_MISMATCH},
    {"unknown version in both",
     REQUEST("tools/list",
             "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2030-01-01\"," CAPABILITIES_META "}"),
     "2030-01-01", "tools/list", NULL, MCP_ERA_MODERN, MCP_FAULT_VERSION_UNSUPPORTED},
    {"legacy version in both",
     REQUEST("tools/list",
             "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2025-11-25\"," CAPABILITIES_META "}"),
     "2025-11-25", "tools/list", NULL, MCP_ERA_MODERN, MCP_FAULT_VERSION_UNSUPPORTED},
    {"version is no text", REQUEST("tools/list", "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":7}"), NEW,
     "tools/list", NULL, MCP_ERA_MODERN, MCP_FAULT_META},
    {"no capabilities", REQUEST("tools/list", "\"_meta\":{" VERSION_META "}"), NEW, "tools/list", NULL, MCP_ERA_MODERN,
     MCP_FAULT_META},
    {"capabilities are no object",
     REQUEST("tools/list", "\"_meta\":{" VERSION_META ",\"io.modelcontextprotocol/clientCapabilities\":[]}"), NEW,
     "tools/list", NULL, MCP_ERA_MODERN, MCP_FAULT_META},
    {"unknown log level",
     REQUEST("tools/list",
             "\"_meta\":{" VERSION_META "," CAPABILITIES_META ",\"io.modelcontextprotocol/logLevel\":\"loud\"}"),
     NEW, "tools/list", NULL, MCP_ERA_MODERN, MCP_FAULT_META},
    {"known log level",
     REQUEST("tools/list",
             "\"_meta\":{" VERSION_META "," CAPABILITIES_META ",\"io.modelcontextprotocol/logLevel\":\"info\"}"),
     NEW, "tools/list", NULL, MCP_ERA_MODERN, MCP_FAULT_NONE},
    {"no Mcp-Method", REQUEST("tools/list", META), NEW, NULL, NULL, MCP_ERA_MODERN, MCP_FAULT_HEADER_MISMATCH},
    {"other Mcp-Method", REQUEST("tools/list", META), NEW, "tools/call", NULL, MCP_ERA_MODERN,
     MCP_FAULT_HEADER_MISMATCH},
    {"Mcp-Method in capitals", REQUEST("tools/list", META), NEW, "TOOLS/LIST", NULL, MCP_ERA_MODERN,
     MCP_FAULT_HEADER_MISMATCH},
    {"no Mcp-Name", CALL("add", META), NEW, "tools/call", NULL, MCP_ERA_MODERN, MCP_FAULT_HEADER_MISMATCH},
    {"other Mcp-Name", CALL("add", META), NEW, "tools/call", "sub", MCP_ERA_MODERN, MCP_FAULT_HEADER_MISMATCH},
    {"Mcp-Name", CALL("add", META), NEW, "tools/call", "add", MCP_ERA_MODERN, MCP_FAULT_NONE},
    {"Mcp-Name in base64", CALL("gr\\u00fcn", META), NEW, "tools/call", "=?base64?Z3LDvG4=?=", MCP_ERA_MODERN,
     MCP_FAULT_NONE},
    {"Mcp-Name in bad base64", CALL("gr\\u00fcn", META), NEW, "tools/call", "=?base64?Z3LDvG4?=", MCP_ERA_MODERN,
     MCP_FAULT_HEADER_MISMATCH},
    {"Mcp-Name in url base64", CALL("a~~~", META), NEW, "tools/call", "=?base64?YX5-fg==?=", MCP_ERA_MODERN,
     MCP_FAULT_HEADER_MISMATCH},
    {"Mcp-Name with raw bytes", CALL("gr\\u00fcn", META), NEW, "tools/call", "gr\xc3\xbcn", MCP_ERA_MODERN,
     MCP_FAULT_HEADER_MISMATCH},
    {"a response", "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}", NEW, NULL, NULL, MCP_ERA_MODERN,
     MCP_FAULT_INVALID_REQUEST},
    {"a legacy response", "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}", "2025-11-25", NULL, NULL, MCP_ERA_LEGACY,
     MCP_FAULT_NONE},
    {"a notification", "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}", NEW, "notifications/progress",
     NULL, MCP_ERA_MODERN, MCP_FAULT_NONE},
};

START_TEST(a_request_belongs_to_the_era_of_the_table) {
  struct mcp_message message;
  struct mcp_selection selection;
  const struct mcp_headers headers = {
      .protocol_version = table[_i].version, .method = table[_i].method, .name = table[_i].name};
  ck_assert_msg(mcp_message_parse(table[_i].body, strlen(table[_i].body), &message) == MCP_FAULT_NONE, "%s",
                table[_i].what);
  enum mcp_fault fault = mcp_era_select(&message, &headers, &selection);
  ck_assert_msg(fault == table[_i].fault, "%s: fault %d", table[_i].what, (int)fault);
  ck_assert_msg(selection.era == table[_i].era, "%s: era %d", table[_i].what, (int)selection.era);
}
END_TEST

START_TEST(repeated_headers_are_a_mismatch) {
  static const char body[] = REQUEST("tools/list", META);
  struct mcp_message message;
  struct mcp_selection selection;
  const struct mcp_headers headers = {.protocol_version = NEW, .method = "tools/list", .repeated = true};
  ck_assert_int_eq(mcp_message_parse(body, strlen(body), &message), MCP_FAULT_NONE);
  ck_assert_int_eq(mcp_era_select(&message, &headers, &selection), MCP_FAULT_HEADER_MISMATCH);
}
END_TEST

START_TEST(versions_are_in_order) {
  ck_assert_int_eq(mcp_version_find("2025-03-26"), MCP_VERSION_2025_03_26);
  ck_assert_int_eq(mcp_version_find("2024-11-05"), MCP_VERSION_NONE);
  ck_assert_int_eq(mcp_version_find(NULL), MCP_VERSION_NONE);
  ck_assert_int_lt(MCP_VERSION_2025_06_18, MCP_VERSION_2025_11_25);
  ck_assert_int_eq(mcp_version_era(MCP_VERSION_LEGACY_NEWEST), MCP_ERA_LEGACY);
  ck_assert_int_eq(mcp_version_era(MCP_VERSION_MODERN_NEWEST), MCP_ERA_MODERN);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("mcp.era");
  TCase *tcase = tcase_create("mcp.era");
  tcase_add_loop_test(tcase, a_request_belongs_to_the_era_of_the_table, 0, sizeof(table) / sizeof(table[0]));
  tcase_add_test(tcase, repeated_headers_are_a_mismatch);
  tcase_add_test(tcase, versions_are_in_order);
  suite_add_tcase(suite, tcase);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
