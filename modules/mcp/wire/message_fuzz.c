/* message_fuzz.c: libFuzzer target of the JSON-RPC envelope: any bytes end in a fault or in a message whose slices lie
 * inside the input and whose answer is valid JSON. */
#include "modules/mcp/wire/mcp_wire.h"
#include "sdk/base/check.h"
#include "sdk/base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void one(const char *data, size_t length) {
  struct mcp_message message;
  struct mcp_selection selection;
  struct mcp_problem problem;
  struct buf out = {0};
  enum mcp_fault fault = mcp_message_parse(data, length, &message);
  if (fault == MCP_FAULT_NONE)
    fault = mcp_era_select(&message, &(struct mcp_headers){.protocol_version = "2026-07-28", .method = "tools/call"},
                           &selection);
  mcp_problem_from_fault(&problem, fault ? fault : MCP_FAULT_CANCELLED, MCP_ERA_MODERN, NULL);
  mcp_write_error(&out, message.id, &problem);
  BASE_CHECK(json_check(out.data, out.length, JSON_DEPTH_MAX, NULL));
  buf_clear(&out);
  bool comma;
  mcp_write_result_open(&out, message.id, MCP_ERA_MODERN, message.meta.object, &comma);
  mcp_write_result_close(&out);
  BASE_CHECK(json_check(out.data, out.length, JSON_DEPTH_MAX + 2, NULL));
  buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct json_cursor cursor;
  const char *text = (const char *)data, *key, *value;
  size_t key_length, value_length;
  bool batch;
  if (mcp_body_check(text, size, &batch) != MCP_FAULT_NONE)
    return 0;
  if (!batch)
    one(text, size);
  else if (json_walk(text, size, '[', &cursor))
    while (json_next(&cursor, &key, &key_length, &value, &value_length))
      one(value, value_length);
  return 0;
}
