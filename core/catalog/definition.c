/* definition.c: the MCP form of records. Declared records get theirs built once, members in a fixed order, JSON of the
 * document byte for byte. Definitions of upstreams are kept as they came; only the name is replaced where a record is
 * shown under another one. */
#include <string.h>

#include "core/catalog/catalog_internal.h"
#include "sdk/base/json.h"

static void text_member(struct buf *target, const char *name, const char *value) {
  if (!*value)
    return;
  buf_printf(target, "%s\"%s\":", target->data[target->length - 1] == '{' ? "" : ",", name);
  buf_append_json_string(target, value, strlen(value));
}

static void json_member_write(struct buf *target, const char *name, const ProtobufCBinaryData *value) {
  if (!value->len)
    return;
  buf_printf(target, ",\"%s\":", name);
  buf_append(target, value->data, value->len);
}

void catalog_definition_build(const struct catalog_document *document, struct buf *target) {
  const Core__Admin__V1__Metadata *metadata = document->metadata;
  const Core__Admin__V1__ToolSpec *tool = catalog_tool_spec(document);
  const Core__Admin__V1__ResourceSpec *resource = catalog_resource_spec(document);
  const Core__Admin__V1__PromptSpec *prompt = catalog_prompt_spec(document);
  const Core__Admin__V1__ServerSpec *server = catalog_server_spec(document);
  static const ProtobufCBinaryData any_object = {.len = 17, .data = (uint8_t *)(uintptr_t) "{\"type\":\"object\"}"};
  buf_append_char(target, '{');
  if (resource)
    text_member(target, "uri", resource->uri);
  text_member(target, "name", metadata->name);
  text_member(target, "title", metadata->title);
  text_member(target, "description", metadata->description);
  if (tool) {
    json_member_write(target, "inputSchema", tool->input_schema_json.len ? &tool->input_schema_json : &any_object);
    json_member_write(target, "outputSchema", &tool->output_schema_json);
    json_member_write(target, "annotations", &tool->annotations_json);
    json_member_write(target, "icons", &tool->icons_json);
  }
  if (resource)
    text_member(target, "mimeType", resource->mime_type);
  if (prompt)
    json_member_write(target, "arguments", &prompt->arguments_json);
  if (server)
    text_member(target, "instructions", server->instructions);
  buf_append_char(target, '}');
}

static const char *name_key(enum catalog_kind kind) {
  return kind == CATALOG_KIND_RESOURCE ? "uri" : "name";
}

/* The raw value of the member that names the record; false unless it is there exactly once, as a string. */
static bool name_find(enum catalog_kind kind, const char *definition, size_t length, struct catalog_span *name) {
  struct json_cursor cursor;
  struct catalog_span token, value;
  size_t found = 0;
  if (!json_walk(definition, length, '{', &cursor))
    return false;
  while (json_next(&cursor, &token.data, &token.length, &value.data, &value.length)) {
    char *key = json_string_decode(token.data, token.length);
    if (str_equal(key, name_key(kind))) {
      *name = value;
      found++;
    }
    base_free(key);
  }
  return found == 1 && name->data[0] == '"';
}

bool catalog_definition_read(enum catalog_kind kind, const char *name, const char *definition, size_t length,
                             struct error *err) {
  struct catalog_span token;
  if (length > CATALOG_JSON_MAX_BYTES)
    return error_set(err, ERR_CATALOG_INVALID, "the definition is too large");
  if (!json_check(definition, length, JSON_DEPTH_MAX, err))
    return false;
  if (!name_find(kind, definition, length, &token))
    return error_set(err, ERR_CATALOG_INVALID, "the definition does not say its name once");
  char *said = json_string_decode(token.data, token.length);
  bool same = str_equal(said, name);
  base_free(said);
  return same || error_set(err, ERR_CATALOG_INVALID, "the definition says another name");
}

void catalog_definition_rename(enum catalog_kind kind, const char *definition, size_t length, const char *name,
                               struct buf *target) {
  struct catalog_span token;
  BASE_CHECK(name_find(kind, definition, length, &token));
  buf_append(target, definition, (size_t)(token.data - definition));
  buf_append_json_string(target, name, strlen(name));
  const char *rest = token.data + token.length;
  buf_append(target, rest, (size_t)(definition + length - rest));
}

void catalog_definition_write(const struct catalog_record *record, const char *shown_name, struct buf *target) {
  if (str_equal(record->name, shown_name))
    buf_append(target, record->definition_json, record->definition_length);
  else
    catalog_definition_rename(record->kind, record->definition_json, record->definition_length, shown_name, target);
}
