/* connect.c: finding out what an upstream speaks (1.2): the modern opening first; an upstream that does not know it
 * gets the legacy one. What was found out is remembered for the origin. */
#include <string.h>

#include "modules/mcp/upstream/upstream_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/clock.h"
#include "sdk/base/json.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

#define CONNECT_TIMEOUT_MS 15000
#define TEXT_MAX 65536

static bool initialize_send(struct upstream *upstream, struct error *err);

static void text_set(char **slot, struct mcp_slice token) {
  base_free(*slot);
  *slot = mcp_slice_is(token, '"') && token.length <= TEXT_MAX ? mcp_token_text(token) : NULL;
  if (!*slot)
    *slot = base_strdup("");
}

/* What both eras say of themselves. */
static void info_take(struct upstream *upstream, struct mcp_slice result, struct mcp_slice server_info) {
  struct mcp_slice capabilities = mcp_object_member(result, "capabilities");
  text_set(&upstream->server_name, mcp_object_member(server_info, "name"));
  text_set(&upstream->server_version, mcp_object_member(server_info, "version"));
  text_set(&upstream->instructions, mcp_object_member(result, "instructions"));
  base_free(upstream->capabilities);
  upstream->capabilities = mcp_slice_is(capabilities, '{') && capabilities.length <= TEXT_MAX
                               ? base_strndup(capabilities.data, capabilities.length)
                               : base_strdup("{}");
}

static void settled(struct upstream *upstream, const struct error *err) {
  header_list_clear(&upstream->connect_headers);
  upstream->connect_post = NULL;
  upstream->state = err ? UPSTREAM_IDLE : UPSTREAM_READY;
  if (err) {
    log_event(LOG_WARN, "mcp", "an upstream could not be connected", LOG_TEXT("origin", upstream->origin),
              LOG_TEXT("code", err->code), LOG_TEXT("message", err->message));
    upstream_calls_fail(upstream, err);
  } else {
    upstream_calls_send(upstream);
  }
}

static bool connect_post_start(struct upstream *upstream, struct header_list *headers, const struct buf *body,
                               int64_t id, const struct post_handler *handler, struct error *err) {
  int64_t left_ms = upstream->connect_deadline_ms - clock_monotonic_ms();
  header_list_append(headers, &upstream->connect_headers);
  const struct post_request request = {
      .headers = headers, .body = body, .id = id, .timeout_ms = left_ms > 1 ? left_ms : 1};
  upstream->connect_post = post_start(upstream, &request, handler, upstream, err);
  return upstream->connect_post != NULL;
}

/* ---- legacy ---- */

static void initialized_told(void *arg, const struct post_answer *answer, const struct error *err) {
  struct upstream *upstream = arg;
  (void)answer;
  settled(upstream, err);
}

static void initialize_answered(void *arg, const struct post_answer *answer, const struct error *err) {
  static const struct post_handler handler = {.on_answer = initialized_told};
  struct upstream *upstream = arg;
  struct error failure = {0};
  upstream->connect_post = NULL;
  if (err) {
    settled(upstream, err);
    return;
  }
  if (answer->http_status == 401 || answer->http_status == 403) {
    error_set(&failure, ERR_INVOKE_UPSTREAM, "the upstream refused the gateway's credential");
    settled(upstream, &failure);
    return;
  }
  char *text = mcp_token_text(mcp_object_member(answer->result, "protocolVersion"));
  enum mcp_version version = mcp_version_find(text);
  base_free(text);
  if (version == MCP_VERSION_NONE || mcp_version_era(version) != MCP_ERA_LEGACY) {
    error_set(&failure, ERR_INVOKE_UPSTREAM, "the upstream does not speak a revision of MCP that is served here");
    settled(upstream, &failure);
    return;
  }
  upstream->version = version;
  base_free(upstream->session_id);
  upstream->session_id = answer->session_id ? base_strdup(answer->session_id) : NULL;
  info_take(upstream, answer->result, mcp_object_member(answer->result, "serverInfo"));
  upstream_era_learn(upstream, MCP_ERA_LEGACY);
  struct header_list headers = {0};
  struct buf body = {0};
  buf_append_text(&body, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}");
  header_list_add(&headers, "MCP-Protocol-Version", mcp_version_text(version));
  if (upstream->session_id)
    header_list_add(&headers, "Mcp-Session-Id", upstream->session_id);
  if (!connect_post_start(upstream, &headers, &body, 0, &handler, &failure))
    settled(upstream, &failure);
  buf_free(&body);
}

static bool initialize_send(struct upstream *upstream, struct error *err) {
  static const struct post_handler handler = {.on_answer = initialize_answered};
  struct header_list headers = {0};
  struct buf body = {0};
  int64_t id = ++upstream->next_id;
  buf_printf(&body,
             "{\"jsonrpc\":\"2.0\",\"id\":%lld,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"%s\","
             "\"capabilities\":{},\"clientInfo\":" UPSTREAM_CLIENT_INFO "}}",
             (long long)id, mcp_version_text(MCP_VERSION_LEGACY_NEWEST));
  bool ok = connect_post_start(upstream, &headers, &body, id, &handler, err);
  buf_free(&body);
  return ok;
}

/* ---- modern ---- */

static bool supports_modern(struct mcp_slice result) {
  struct json_cursor cursor;
  struct mcp_slice versions = mcp_object_member(result, "supportedVersions");
  const char *key, *value;
  size_t key_length, value_length;
  if (json_walk(versions.data, versions.length, '[', &cursor))
    while (json_next(&cursor, &key, &key_length, &value, &value_length))
      if (mcp_token_equals(value, value_length, mcp_version_text(MCP_VERSION_MODERN_NEWEST)))
        return true;
  return false;
}

static void discover_answered(void *arg, const struct post_answer *answer, const struct error *err) {
  struct upstream *upstream = arg;
  struct error failure = {0};
  upstream->connect_post = NULL;
  if (err) {
    settled(upstream, err);
  } else if (answer->http_status == 401 || answer->http_status == 403) {
    error_set(&failure, ERR_INVOKE_UPSTREAM, "the upstream refused the gateway's credential");
    settled(upstream, &failure);
  } else if (supports_modern(answer->result)) {
    struct mcp_slice meta = mcp_object_member(answer->result, "_meta");
    struct mcp_slice server_info = mcp_object_member(meta, MCP_META_PREFIX "serverInfo");
    upstream->version = MCP_VERSION_MODERN_NEWEST;
    info_take(upstream, answer->result, server_info);
    upstream_era_learn(upstream, MCP_ERA_MODERN);
    settled(upstream, NULL);
  } else if (!initialize_send(upstream, &failure)) {
    settled(upstream, &failure);
  }
}

static bool discover_send(struct upstream *upstream, struct error *err) {
  static const struct post_handler handler = {.on_answer = discover_answered};
  struct header_list headers = {0};
  struct buf body = {0};
  int64_t id = ++upstream->next_id;
  buf_printf(
      &body,
      "{\"jsonrpc\":\"2.0\",\"id\":%lld,\"method\":\"server/discover\",\"params\":{\"_meta\":{" UPSTREAM_MODERN_META
      "}}}",
      (long long)id);
  header_list_add(&headers, "MCP-Protocol-Version", mcp_version_text(MCP_VERSION_MODERN_NEWEST));
  header_list_add(&headers, "Mcp-Method", "server/discover");
  bool ok = connect_post_start(upstream, &headers, &body, id, &handler, err);
  buf_free(&body);
  return ok;
}

bool upstream_connect(struct upstream *upstream, const struct header_list *credentials, int64_t timeout_ms,
                      struct error *err) {
  if (timeout_ms > CONNECT_TIMEOUT_MS)
    timeout_ms = CONNECT_TIMEOUT_MS;
  upstream->connect_deadline_ms = clock_monotonic_ms() + timeout_ms;
  header_list_clear(&upstream->connect_headers);
  header_list_append(&upstream->connect_headers, credentials);
  bool legacy = upstream_era_known(upstream) == MCP_ERA_LEGACY;
  upstream->state = UPSTREAM_CONNECTING;
  if (legacy ? initialize_send(upstream, err) : discover_send(upstream, err))
    return true;
  upstream->state = UPSTREAM_IDLE;
  header_list_clear(&upstream->connect_headers);
  return false;
}

void upstream_disconnect(struct upstream *upstream) {
  if (upstream->state == UPSTREAM_READY)
    upstream->state = UPSTREAM_IDLE;
  base_free(BASE_TAKE(upstream->session_id));
}
