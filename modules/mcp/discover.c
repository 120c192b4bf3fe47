/* discover.c: what an upstream MCP server offers (ModuleRuntime.Discover): its own words about itself, then every tool
 * of every page, each definition byte for byte. */
#include <string.h>

#include "modules/mcp/mcp_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/json.h"
#include "sdk/base/str.h"

#define PAGES_MAX 1000
#define TOOLS_MAX 5000

/* One look under way. */
struct looking {
  struct mcp *mcp;
  struct module_discovery *discovery;
  struct mcp_upstream_call *call;
  unsigned pages, tools;
};

static bool page_ask(struct looking *looking, const char *cursor, struct error *err);

static void finish(struct looking *looking, const struct error *err) {
  struct module_discovery *discovery = looking->discovery;
  base_free(looking);
  module_discovery_finish(discovery, err);
}

static bool upstream_tell(struct looking *looking, const struct mcp_upstream_info *info) {
  core_module_v1_DiscoveredUpstream upstream = {
      .protocol_version = (char *)(uintptr_t)mcp_version_text(info->version),
      .server_name = (char *)(uintptr_t)info->server_name,
      .server_version = (char *)(uintptr_t)info->server_version,
      .capabilities_json = (char *)(uintptr_t)info->capabilities_json,
      .instructions = (char *)(uintptr_t)info->instructions,
  };
  core_module_v1_DiscoverItem item = {.which_item = core_module_v1_DiscoverItem_upstream_tag,
                                      .item.upstream = &upstream};
  return module_discovery_send(looking->discovery, &item);
}

static bool tool_tell(struct looking *looking, struct mcp_slice definition, struct error *err) {
  struct mcp_slice name = mcp_object_member(definition, "name");
  char *name_text = mcp_slice_is(name, '"') ? mcp_token_text(name) : NULL;
  if (str_is_empty(name_text)) { /* nothing that could be called: left out, as a client would */
    base_free(name_text);
    return true;
  }
  if (++looking->tools > TOOLS_MAX) {
    base_free(name_text);
    return error_set(err, ERR_INVOKE_UPSTREAM, "the upstream offers more than %d tools", TOOLS_MAX);
  }
  char *definition_text = base_strndup(definition.data, definition.length);
  core_module_v1_DiscoveredRecord record = {.kind = core_common_v1_EntityKind_ENTITY_KIND_TOOL,
                                            .original_name = name_text,
                                            .definition_json = definition_text};
  core_module_v1_DiscoverItem item = {.which_item = core_module_v1_DiscoverItem_record_tag, .item.record = &record};
  bool sent = module_discovery_send(looking->discovery, &item);
  base_free(definition_text);
  base_free(name_text);
  return sent || error_set(err, ERR_UNAVAILABLE, NULL);
}

/* Tells one page; *cursor (owned) is the next one's, NULL at the end. */
static bool page_tell(struct looking *looking, struct mcp_slice result, char **cursor, struct error *err) {
  struct mcp_slice tools = mcp_object_member(result, "tools"), next = mcp_object_member(result, "nextCursor");
  struct json_cursor walk;
  const char *key, *value;
  size_t key_length, value_length;
  *cursor = NULL;
  if (!json_walk(tools.data, tools.length, '[', &walk))
    return error_set(err, ERR_INVOKE_UPSTREAM, "the upstream's list of tools is not valid");
  while (json_next(&walk, &key, &key_length, &value, &value_length))
    if (!tool_tell(looking, (struct mcp_slice){value, value_length}, err))
      return false;
  if (mcp_slice_is(next, '"'))
    *cursor = mcp_token_text(next);
  return true;
}

static void on_page(void *arg, const struct mcp_upstream_info *info, struct mcp_slice result, const struct error *err) {
  struct looking *looking = arg;
  struct error failure = {0};
  char *cursor = NULL;
  looking->call = NULL;
  bool ok = !err;
  if (err)
    failure = *err;
  if (ok && looking->pages == 0 && !upstream_tell(looking, info))
    ok = error_set(&failure, ERR_UNAVAILABLE, NULL);
  ok = ok && page_tell(looking, result, &cursor, &failure);
  if (ok && cursor && ++looking->pages >= PAGES_MAX)
    ok = error_set(&failure, ERR_INVOKE_UPSTREAM, "the upstream's list of tools has no end");
  if (ok && cursor && page_ask(looking, cursor, &failure)) {
    base_free(cursor);
    return;
  }
  finish(looking, ok && !cursor ? NULL : &failure);
  base_free(cursor);
}

static bool page_ask(struct looking *looking, const char *cursor, struct error *err) {
  static const struct mcp_upstream_handler handler = {.on_done = on_page};
  struct buf members = {0};
  if (cursor) {
    buf_append_text(&members, "\"cursor\":");
    buf_append_json_string(&members, cursor, strlen(cursor));
  }
  const struct mcp_upstream_request request = {
      .plan = module_discovery_request(looking->discovery)->plan,
      .method = MCP_METHOD_TOOLS_LIST,
      .members_json = members.data,
  };
  looking->call = mcp_upstream_call_start(looking->mcp->upstream, &request, &handler, looking, err);
  buf_free(&members);
  return looking->call != NULL;
}

static void on_cancel(struct module_discovery *discovery, void *arg) {
  struct looking *looking = arg;
  struct error err = {0};
  (void)discovery;
  if (looking->call)
    mcp_upstream_call_cancel(looking->call);
  error_set(&err, ERR_CANCELLED, NULL);
  finish(looking, &err);
}

void mcp_upstream_discover(struct module *module, struct module_discovery *discovery) {
  struct error err = {0};
  struct looking *looking = BASE_NEW(struct looking);
  looking->mcp = module_state(module);
  looking->discovery = discovery;
  const core_common_v1_InvocationPlan *plan = module_discovery_request(discovery)->plan;
  if (plan->which_call != core_common_v1_InvocationPlan_mcp_tag || !plan->call.mcp)
    error_set(&err, ERR_UNSUPPORTED, "this module looks at MCP servers only");
  else if (page_ask(looking, NULL, &err)) {
    module_discovery_handle(discovery, on_cancel, looking);
    return;
  }
  finish(looking, &err);
}
