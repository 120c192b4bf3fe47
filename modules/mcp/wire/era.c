/* era.c: which era a request belongs to (1.2), and the checks of the modern one: `_meta` (1.3) and the headers that
 * mirror the body (1.4). The order of the checks is the order in which a client can act on them: version agreement,
 * version, metadata, headers. */
#include <string.h>

#include "modules/mcp/wire/mcp_wire.h"
#include "sdk/base/alloc.h"
#include "sdk/base/str.h"

static const struct {
  const char *text;
  enum mcp_era era;
} versions[MCP_VERSION_COUNT] = {
#define MCP_VERSION(name, text, era) [MCP_VERSION_##name] = {text, MCP_ERA_##era},
#include "modules/mcp/wire/versions.def"
#undef MCP_VERSION
};

static const char *const log_levels[] = {"debug", "info",     "notice", "warning",
                                         "error", "critical", "alert",  "emergency"};

enum mcp_version mcp_version_find(const char *text) {
  for (int i = 1; i < MCP_VERSION_COUNT; i++)
    if (str_equal(text, versions[i].text))
      return (enum mcp_version)i;
  return MCP_VERSION_NONE;
}

const char *mcp_version_text(enum mcp_version version) {
  return version > MCP_VERSION_NONE && version < MCP_VERSION_COUNT ? versions[version].text : "";
}

enum mcp_era mcp_version_era(enum mcp_version version) {
  return version > MCP_VERSION_NONE && version < MCP_VERSION_COUNT ? versions[version].era : MCP_ERA_LEGACY;
}

/* ---- mirrored headers ---- */

#define SENTINEL_OPEN "=?base64?"
#define SENTINEL_CLOSE "?="

/* Standard base64 with padding, strictly: owned text, NULL when it is none or holds a NUL. */
static char *base64_text(const char *text, size_t length) {
  size_t decoded_length;
  if (length % 4 != 0)
    return NULL;
  char *decoded = base_alloc(length / 4 * 3 + 1);
  if (!str_base64_decode((uint8_t *)decoded, &decoded_length, text, length - str_base64_padding(text, length),
                         STR_BASE64) ||
      memchr(decoded, 0, decoded_length)) {
    base_free(decoded);
    return NULL;
  }
  decoded[decoded_length] = 0;
  return decoded;
}

bool mcp_header_matches(const char *header, struct mcp_slice token) {
  size_t length = strlen(header), open = strlen(SENTINEL_OPEN), close = strlen(SENTINEL_CLOSE);
  for (size_t i = 0; i < length; i++)
    if ((unsigned char)header[i] < 0x20 || (unsigned char)header[i] > 0x7e)
      return false;
  if (length < open + close || memcmp(header, SENTINEL_OPEN, open) != 0 || !str_ends_with(header, SENTINEL_CLOSE))
    return mcp_token_equals(token.data, token.length, header);
  char *decoded = base64_text(header + open, length - open - close);
  bool matches = decoded && mcp_token_equals(token.data, token.length, decoded);
  base_free(decoded);
  return matches;
}

/* The value that Mcp-Name mirrors; length 0: none for this method. */
static struct mcp_slice mirrored_name(const struct mcp_message *message) {
  switch (message->method) {
  case MCP_METHOD_TOOLS_CALL:
  case MCP_METHOD_PROMPTS_GET:
    return message->name;
  case MCP_METHOD_RESOURCES_READ:
    return message->uri;
  default:
    return (struct mcp_slice){0};
  }
}

static bool log_level_is_valid(struct mcp_slice token) {
  for (size_t i = 0; i < sizeof(log_levels) / sizeof(log_levels[0]); i++)
    if (mcp_token_equals(token.data, token.length, log_levels[i]))
      return true;
  return false;
}

/* ---- selection ---- */

static enum mcp_fault modern_check(const struct mcp_message *message, const struct mcp_headers *headers,
                                   struct mcp_selection *out) {
  const struct mcp_meta *meta = &message->meta;
  out->era = MCP_ERA_MODERN;
  out->version = MCP_VERSION_MODERN_NEWEST;
  if (message->kind == MCP_MESSAGE_RESPONSE)
    return MCP_FAULT_INVALID_REQUEST;
  if (headers->repeated)
    return MCP_FAULT_HEADER_MISMATCH;
  if (meta->protocol_version.length) {
    if (!mcp_slice_is(meta->protocol_version, '"'))
      return MCP_FAULT_META;
    if (!headers->protocol_version || !mcp_header_matches(headers->protocol_version, meta->protocol_version))
      return MCP_FAULT_HEADER_MISMATCH;
  }
  enum mcp_version version = mcp_version_find(headers->protocol_version);
  if (version == MCP_VERSION_NONE || mcp_version_era(version) != MCP_ERA_MODERN)
    return MCP_FAULT_VERSION_UNSUPPORTED;
  out->version = version;
  if (message->kind == MCP_MESSAGE_REQUEST) {
    if (!meta->protocol_version.length || !mcp_slice_is(meta->client_capabilities, '{') ||
        (meta->log_level.length && !log_level_is_valid(meta->log_level)))
      return MCP_FAULT_META;
  }
  if (!headers->method || !mcp_header_matches(headers->method, message->method_token))
    return MCP_FAULT_HEADER_MISMATCH;
  struct mcp_slice name = mirrored_name(message);
  if (name.length && (!headers->name || !mcp_header_matches(headers->name, name)))
    return MCP_FAULT_HEADER_MISMATCH;
  return MCP_FAULT_NONE;
}

enum mcp_fault mcp_era_select(const struct mcp_message *message, const struct mcp_headers *headers,
                              struct mcp_selection *out) {
  enum mcp_version version = mcp_version_find(headers->protocol_version);
  *out = (struct mcp_selection){.era = MCP_ERA_LEGACY};
  if (message->meta.protocol_version.length)
    return modern_check(message, headers, out);
  /* A client of the session era opens without saying a version in the header, or with whatever it hopes for. */
  if (message->kind == MCP_MESSAGE_REQUEST && message->method == MCP_METHOD_INITIALIZE)
    return !headers->protocol_version || version ? MCP_FAULT_NONE : MCP_FAULT_VERSION_HEADER;
  if (version && mcp_version_era(version) == MCP_ERA_MODERN)
    return modern_check(message, headers, out);
  if (headers->protocol_version && !version)
    return MCP_FAULT_VERSION_HEADER;
  out->version = version;
  return MCP_FAULT_NONE;
}
