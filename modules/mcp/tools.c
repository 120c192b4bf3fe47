/* tools.c: server/discover and tools/list. Definitions are the catalog's bytes, spliced in as they are. A page is
 * rendered once for a caller and kept under the lease, unless the catalog changed while it was made (BND-6). */
#include <string.h>

#include "modules/mcp/mcp_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/arena.h"
#include "sdk/base/clock.h"
#include "sdk/base/str.h"
#include "wire/nano/core/spi/catalog/v1/catalog.pb.h"

#define PAGE_BYTES_MAX ((size_t)64 << 20) /* of all kept pages together */
#define DISCOVER_TTL_MS 60000
#define CACHE_SCOPE ",\"cacheScope\":\"private\"" /* what is seen depends on the token (1.7) */

void mcp_discover(struct mcp_call *call) {
  const char *instructions = call->exchange->mcp->config.instructions;
  struct buf out = {0};
  bool comma;
  mcp_write_result_open(&out, call->message.id, MCP_ERA_MODERN, (struct mcp_slice){0}, &comma);
  buf_printf(&out, ",\"supportedVersions\":[\"%s\"],\"capabilities\":{\"tools\":{}},\"ttlMs\":%d" CACHE_SCOPE,
             mcp_version_text(MCP_VERSION_MODERN_NEWEST), DISCOVER_TTL_MS);
  if (instructions) {
    buf_append_text(&out, ",\"instructions\":");
    buf_append_json_string(&out, instructions, strlen(instructions));
  }
  mcp_write_result_close(&out);
  mcp_call_reply(call, 200, &out);
}

static void page_send(struct mcp_call *call, const struct buf *members, int64_t valid_until_ms) {
  struct buf out = {0};
  bool comma;
  mcp_write_result_open(&out, call->message.id, call->exchange->era, (struct mcp_slice){0}, &comma);
  if (comma)
    buf_append_char(&out, ',');
  buf_append(&out, members->data, members->length);
  if (call->exchange->era == MCP_ERA_MODERN) {
    int64_t left_ms = valid_until_ms - clock_monotonic_ms();
    buf_printf(&out, ",\"ttlMs\":%lld" CACHE_SCOPE, (long long)(left_ms > 0 ? left_ms : 0));
  }
  mcp_write_result_close(&out);
  mcp_call_reply(call, 200, &out);
}

static void tool_remember(struct mcp_caller *caller, const core_spi_catalog_v1_Record *record) {
  const char *name = record->reference->name;
  struct mcp_tool *tool = NULL;
  HASH_FIND_STR(caller->tools, name, tool);
  if (!tool) {
    tool = BASE_NEW(struct mcp_tool);
    tool->name = base_strdup(name);
    HASH_ADD_KEYPTR(hh, caller->tools, tool->name, strlen(tool->name), tool);
  }
  tool->plan_eligible = record->plan_eligible;
  base_free(BASE_TAKE(tool->definition));
  if (record->definition_json && strstr(record->definition_json, "x-mcp-header"))
    tool->definition = base_strdup(record->definition_json);
}

static void members_write(struct buf *members, const core_spi_catalog_v1_ListResponse *response) {
  buf_append_text(members, "\"tools\":[");
  bool first = true;
  for (pb_size_t i = 0; i < response->records_count; i++) {
    const char *definition = response->records[i].definition_json;
    if (str_is_empty(definition))
      continue;
    if (!first)
      buf_append_char(members, ',');
    first = false;
    buf_append_text(members, definition);
  }
  buf_append_char(members, ']');
  if (!str_is_empty(response->next_cursor)) {
    buf_append_text(members, ",\"nextCursor\":");
    buf_append_json_string(members, response->next_cursor, strlen(response->next_cursor));
  }
}

/* A cursor of the client, as the core gave it; NULL: it cannot be one of ours. */
static const char *cursor_of(struct mcp_call *call) {
  if (!call->message.cursor.length)
    return "";
  char *text = mcp_token_text(call->message.cursor);
  const char *cursor = str_is_empty(text) ? NULL : arena_strdup(mcp_exchange_arena(call->exchange), text);
  base_free(text);
  return cursor;
}

static void page_keep(struct mcp *mcp, struct mcp_caller *caller, const char *cursor, struct buf *members,
                      int64_t valid_until_ms) {
  if (mcp->page_bytes + members->length > PAGE_BYTES_MAX)
    mcp_callers_forget_lists(mcp);
  struct mcp_page *page = BASE_NEW(struct mcp_page);
  page->cursor = base_strdup(cursor);
  page->members = *members;
  page->valid_until_ms = valid_until_ms;
  *members = (struct buf){0};
  mcp->page_bytes += page->members.length;
  SLIST_INSERT_HEAD(&caller->pages, page, entry);
}

static struct mcp_page *page_find(struct mcp *mcp, struct mcp_caller *caller, const char *cursor) {
  struct mcp_page *page;
  int64_t now_ms = clock_monotonic_ms();
  SLIST_FOREACH(page, &caller->pages, entry) {
    if (!str_equal(page->cursor, cursor))
      continue;
    if (page->valid_until_ms > now_ms)
      return page;
    mcp_caller_lists_free(mcp, caller); /* the pages of one list belong together */
    return NULL;
  }
  return NULL;
}

static void listed(void *arg, const struct rpc_status *status, void *reply) {
  struct mcp_call *call = arg;
  struct mcp *mcp = call->exchange->mcp;
  struct mcp_caller *caller = call->exchange->caller;
  const core_spi_catalog_v1_ListResponse *response = reply;
  struct buf members = {0};
  call->spi = NULL;
  if (!response) {
    mcp_call_fail_error(call, &status->error);
    return;
  }
  uint32_t ttl_ms = response->lease ? response->lease->ttl_ms : 0;
  int64_t valid_until_ms = clock_monotonic_ms() + ttl_ms;
  members_write(&members, response);
  bool keep = ttl_ms > 0 && !caller->dropped && response->lease->revision >= mcp->revision;
  mcp_caller_hold(caller); /* the answer ends the exchange */
  const char *cursor = cursor_of(call);
  struct mcp_page *known = keep ? page_find(mcp, caller, cursor) : NULL;
  if (keep && !known) {
    page_keep(mcp, caller, cursor, &members, valid_until_ms);
    known = page_find(mcp, caller, cursor);
  }
  for (pb_size_t i = 0; keep && i < response->records_count; i++)
    if (response->records[i].reference && response->records[i].reference->name)
      tool_remember(caller, &response->records[i]);
  page_send(call, known ? &known->members : &members, valid_until_ms);
  mcp_caller_release(&caller);
  buf_free(&members);
}

void mcp_tools_list(struct mcp_call *call) {
  struct mcp_exchange *exchange = call->exchange;
  const char *cursor = cursor_of(call);
  if (!cursor) {
    mcp_call_fail_fault(call, MCP_FAULT_INVALID_PARAMS);
    return;
  }
  struct mcp_page *page = page_find(exchange->mcp, exchange->caller, cursor);
  if (page) {
    page_send(call, &page->members, page->valid_until_ms);
    return;
  }
  core_common_v1_CallerContext caller = {0};
  core_spi_catalog_v1_ListRequest request = {
      .caller = &caller,
      .kind = core_common_v1_EntityKind_ENTITY_KIND_TOOL,
      .server_id = (char *)(uintptr_t)exchange->server_id,
      .page_size = exchange->mcp->config.page_size,
      .cursor = (char *)(uintptr_t)cursor,
  };
  mcp_caller_fill(exchange, &caller);
  call->spi = module_spi_call(exchange->mcp->module, SPI_CATALOG_LIST, &request, 0, listed, call);
}
