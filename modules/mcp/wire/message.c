/* message.c: the JSON-RPC envelope. One walk over the message and one over its params; a member that occurs twice is
 * refused, so that no two readers can see two different messages in the same bytes. */
#include <string.h>

#include "modules/mcp/wire/mcp_wire.h"
#include "sdk/base/json.h"

#define NOTIFICATION_FORM false
#define REQUEST_FORM true

static const struct {
  const char *text;
  bool request;
  unsigned eras;
  bool served;
} methods[MCP_METHOD_COUNT] = {
#define LEGACY MCP_ERA_LEGACY
#define MODERN MCP_ERA_MODERN
#define BOTH (MCP_ERA_LEGACY | MCP_ERA_MODERN)
#define MCP_METHOD(name, text, form, eras, served) [MCP_METHOD_##name] = {text, form##_FORM, eras, served},
#include "modules/mcp/wire/methods.def"
#undef MCP_METHOD
#undef BOTH
#undef MODERN
#undef LEGACY
};

const char *mcp_method_text(enum mcp_method method) {
  return method > MCP_METHOD_UNKNOWN && method < MCP_METHOD_COUNT ? methods[method].text : "";
}

bool mcp_method_is_served(enum mcp_method method, enum mcp_era era) {
  return method > MCP_METHOD_UNKNOWN && method < MCP_METHOD_COUNT && methods[method].request &&
         methods[method].served && (methods[method].eras & era);
}

static enum mcp_method method_find(struct mcp_slice token) {
  for (int i = 1; i < MCP_METHOD_COUNT; i++)
    if (mcp_token_equals(token.data, token.length, methods[i].text))
      return (enum mcp_method)i;
  return MCP_METHOD_UNKNOWN;
}

/* A member that is looked for: where its token goes. */
struct member {
  const char *name;
  struct mcp_slice *slot;
};

/* Takes the wanted members out of an object; false when one of them occurs twice. */
static bool members_take(struct mcp_slice object, const struct member *members, size_t count) {
  struct json_cursor cursor;
  const char *key, *value;
  size_t key_length, value_length;
  if (!json_walk(object.data, object.length, '{', &cursor))
    return false;
  while (json_next(&cursor, &key, &key_length, &value, &value_length)) {
    for (size_t i = 0; i < count; i++) {
      if (!mcp_token_equals(key, key_length, members[i].name))
        continue;
      if (members[i].slot->length)
        return false;
      *members[i].slot = (struct mcp_slice){value, value_length};
      break;
    }
  }
  return true;
}

enum mcp_fault mcp_body_check(const char *data, size_t length, bool *batch) {
  struct error err = {0};
  struct json_cursor cursor;
  const char *key, *value;
  size_t key_length, value_length, count = 0;
  *batch = false;
  if (!json_check(data, length, JSON_DEPTH_MAX, &err))
    return error_is(&err, ERR_JSON_TOO_DEEP) ? MCP_FAULT_TOO_DEEP : MCP_FAULT_PARSE;
  if (json_walk(data, length, '{', &cursor))
    return MCP_FAULT_NONE;
  if (!json_walk(data, length, '[', &cursor))
    return MCP_FAULT_INVALID_REQUEST;
  *batch = true;
  while (count <= MCP_BATCH_MAX && json_next(&cursor, &key, &key_length, &value, &value_length))
    count++;
  return count == 0 || count > MCP_BATCH_MAX ? MCP_FAULT_INVALID_REQUEST : MCP_FAULT_NONE;
}

static bool id_is_valid(struct mcp_slice id) {
  return id.length <= MCP_ID_BYTES_MAX && (mcp_slice_is(id, '"') || mcp_token_is_integer(id));
}

/* What any method may be asked with. */
static enum mcp_fault params_parse(struct mcp_message *message) {
  struct mcp_slice meta = {0};
  const struct member wanted[] = {
      {"name", &message->name},
      {"uri", &message->uri},
      {"arguments", &message->arguments},
      {"cursor", &message->cursor},
      {"protocolVersion", &message->protocol_version},
      {"requestId", &message->request_id},
      {"_meta", &meta},
  };
  const struct member of_meta[] = {
      {MCP_META_PREFIX "protocolVersion", &message->meta.protocol_version},
      {MCP_META_PREFIX "clientCapabilities", &message->meta.client_capabilities},
      {MCP_META_PREFIX "logLevel", &message->meta.log_level},
      {"progressToken", &message->meta.progress_token},
      {"traceparent", &message->meta.traceparent},
      {"tracestate", &message->meta.tracestate},
      {"baggage", &message->meta.baggage},
  };
  if (!message->params.length)
    return MCP_FAULT_NONE;
  if (!members_take(message->params, wanted, sizeof(wanted) / sizeof(wanted[0])))
    return MCP_FAULT_INVALID_PARAMS;
  if (!meta.length)
    return MCP_FAULT_NONE;
  message->meta.object = meta;
  if (!members_take(meta, of_meta, sizeof(of_meta) / sizeof(of_meta[0])))
    return MCP_FAULT_META;
  struct mcp_slice token = message->meta.progress_token;
  if (token.length && (token.length > MCP_ID_BYTES_MAX || !(mcp_slice_is(token, '"') || mcp_token_is_integer(token))))
    return MCP_FAULT_META;
  return MCP_FAULT_NONE;
}

/* What this method demands of its params. */
static enum mcp_fault params_check(const struct mcp_message *message) {
  switch (message->method) {
  case MCP_METHOD_INITIALIZE:
    return mcp_slice_is(message->protocol_version, '"') ? MCP_FAULT_NONE : MCP_FAULT_INVALID_PARAMS;
  case MCP_METHOD_TOOLS_LIST:
    return !message->cursor.length || mcp_slice_is(message->cursor, '"') ? MCP_FAULT_NONE : MCP_FAULT_INVALID_PARAMS;
  case MCP_METHOD_TOOLS_CALL:
    return mcp_slice_is(message->name, '"') && (!message->arguments.length || mcp_slice_is(message->arguments, '{'))
               ? MCP_FAULT_NONE
               : MCP_FAULT_INVALID_PARAMS;
  default:
    return MCP_FAULT_NONE;
  }
}

enum mcp_fault mcp_message_parse(const char *data, size_t length, struct mcp_message *message) {
  struct mcp_slice version = {0}, id = {0};
  memset(message, 0, sizeof(*message));
  const struct member envelope[] = {
      {"jsonrpc", &version},
      {"id", &id},
      {"method", &message->method_token},
      {"params", &message->params},
      {"result", &message->result},
      {"error", &message->error},
  };
  bool whole = members_take((struct mcp_slice){data, length}, envelope, sizeof(envelope) / sizeof(envelope[0]));
  if (id.length && id_is_valid(id))
    message->id = id;
  if (!whole || !mcp_token_equals(version.data, version.length, "2.0") || (id.length && !message->id.length))
    return MCP_FAULT_INVALID_REQUEST;
  if (!message->method_token.length) {
    message->kind = MCP_MESSAGE_RESPONSE;
    return message->id.length && (message->result.length > 0) != mcp_slice_is(message->error, '{')
               ? MCP_FAULT_NONE
               : MCP_FAULT_INVALID_REQUEST;
  }
  if (!mcp_slice_is(message->method_token, '"') || message->result.length || message->error.length)
    return MCP_FAULT_INVALID_REQUEST;
  message->kind = message->id.length ? MCP_MESSAGE_REQUEST : MCP_MESSAGE_NOTIFICATION;
  message->method = method_find(message->method_token);
  enum mcp_fault fault = params_parse(message);
  return fault ? fault : params_check(message);
}
