/* record.c: records, made of a document or of what an upstream offers, and their ids. Ids are UUIDs of version 7 that
 * only grow, so that their order is the order in which records came to be. */
#include <stdio.h>
#include <string.h>

#include "core/catalog/catalog_internal.h"
#include "sdk/base/clock.h"
#include "sdk/base/json.h"

/* ---- ids ---- */

void catalog_id_make(struct catalog *catalog, char target[static ID_UUID_BYTES]) {
  uint64_t now_ms = (uint64_t)clock_wall_ms(), random = id_random_u64();
  if (now_ms > catalog->id_last_ms) {
    catalog->id_last_ms = now_ms;
    catalog->id_sequence = 0;
  } else if (++catalog->id_sequence > 0xfff) {
    catalog->id_last_ms++; /* runs ahead of the clock rather than back */
    catalog->id_sequence = 0;
  }
  snprintf(target, ID_UUID_BYTES, "%08x-%04x-7%03x-%04x-%012llx", (unsigned)(catalog->id_last_ms >> 16 & 0xffffffffu),
           (unsigned)(catalog->id_last_ms & 0xffffu), catalog->id_sequence & 0xfffu,
           (unsigned)(0x8000u | (random >> 48 & 0x3fffu)), (unsigned long long)(random & 0xffffffffffffu));
}

void catalog_id_seen(struct catalog *catalog, const char *id) {
  uint8_t bytes[6];
  char digits[13];
  uint64_t ms = 0;
  snprintf(digits, sizeof(digits), "%.8s%.4s", id, strlen(id) > 13 ? id + 9 : "");
  if (!str_hex_decode(bytes, sizeof(bytes), digits))
    return;
  for (size_t i = 0; i < sizeof(bytes); i++)
    ms = ms << 8 | bytes[i];
  if (ms >= catalog->id_last_ms) {
    catalog->id_last_ms = ms;
    catalog->id_sequence = 0xfff; /* the next one takes the next millisecond */
  }
}

/* ---- declared ---- */

static uint32_t timeout_of(uint32_t timeout_ms) {
  return timeout_ms ? timeout_ms : CATALOG_TIMEOUT_DEFAULT_MS;
}

static void entry_document_set(struct catalog_entry *entry, const struct catalog_document *document) {
  struct catalog_record *record = &entry->record;
  entry->document = document;
  record->id = entry->id;
  record->team_id = document->metadata->team;
  record->owner_email = document->metadata->owner;
  record->visibility = catalog_document_visibility(document);
  record->enabled = !document->metadata->disabled;
  record->owner_family = record->gateway_id = record->original_name = record->output_schema_json = "";
  record->timeout_ms = CATALOG_TIMEOUT_DEFAULT_MS;
}

/* What cannot be compiled is not checked: a declared one was refused when it was applied, a discovered one is its
 * server's to mend. */
static void output_set(struct catalog_entry *entry, const char *json, size_t length) {
  struct error err = {0};
  entry->output = catalog_schema_compile(json, length, &err);
  if (!entry->output)
    log_event(LOG_WARN, CATALOG_ROOM, "results of a tool are not checked", LOG_TEXT("record", entry->id),
              LOG_TEXT("reason", err.message));
}

static bool annotation_is_true(const ProtobufCBinaryData *annotations, const char *key) {
  struct catalog_span value;
  return annotations->len &&
         json_member((const char *)annotations->data, annotations->len, key, &value.data, &value.length) &&
         value.length == 4 && memcmp(value.data, "true", 4) == 0;
}

static void tool_set(struct catalog_entry *entry, const Core__Admin__V1__ToolSpec *tool) {
  struct catalog_record *record = &entry->record;
  struct error err = {0};
  if (tool->input_schema_json.len) {
    entry->schema =
        catalog_schema_compile((const char *)tool->input_schema_json.data, tool->input_schema_json.len, &err);
    if (!entry->schema) { /* only when an older version accepted it */
      log_error_value(LOG_ERROR, CATALOG_ROOM, "a tool is not served: its schema cannot be compiled", &err);
      record->enabled = false;
    }
  }
  if (tool->output_schema_json.len) {
    record->output_schema_json = (const char *)tool->output_schema_json.data; /* NUL-terminated by base_memdup */
    output_set(entry, (const char *)tool->output_schema_json.data, tool->output_schema_json.len);
  }
  record->output_schema = entry->output;
  record->input_schema = entry->schema;
  record->repeatable = annotation_is_true(&tool->annotations_json, "readOnlyHint") ||
                       annotation_is_true(&tool->annotations_json, "idempotentHint");
  record->timeout_ms = timeout_of(tool->timeout_ms);
  record->rate_limit_per_minute = tool->rate_limit_per_minute;
  record->owner_family = "rest-grpc";
  record->rest = tool->rest;
}

struct catalog_entry *catalog_entry_declared(const struct catalog_document *document) {
  struct catalog_entry *entry = BASE_NEW(struct catalog_entry);
  struct catalog_record *record = &entry->record;
  struct buf definition = {0};
  str_copy(entry->id, sizeof(entry->id), document->id);
  record->kind = catalog_document_kinds[document->kind].record_kind;
  entry_document_set(entry, document);
  record->name = document->metadata->name;
  record->title = document->metadata->title;
  record->description = document->metadata->description;
  record->revision = document->revision;
  record->gateway = catalog_gateway_spec(document);
  record->resource = catalog_resource_spec(document);
  record->prompt = catalog_prompt_spec(document);
  if (record->resource)
    record->name = record->resource->uri;
  if (record->gateway) {
    record->owner_family = "mcp";
    record->timeout_ms = timeout_of(record->gateway->timeout_ms);
  }
  if (catalog_tool_spec(document))
    tool_set(entry, catalog_tool_spec(document));
  catalog_definition_build(document, &definition);
  record->definition_length = definition.length;
  record->definition_json = entry->definition = buf_take(&definition);
  return entry;
}

/* ---- discovered ---- */

static char *member_text(const struct catalog_entry *entry, const char *key) {
  struct catalog_span token;
  char *text = json_member(entry->source, entry->source_length, key, &token.data, &token.length)
                   ? json_string_decode(token.data, token.length)
                   : NULL;
  return text ? text : base_strdup("");
}

static void discovered_schemas(struct catalog_entry *entry) {
  struct catalog_span token;
  struct error err = {0};
  if (entry->record.kind != CATALOG_KIND_TOOL)
    return;
  if (json_member(entry->source, entry->source_length, "inputSchema", &token.data, &token.length)) {
    entry->schema = catalog_schema_compile(token.data, token.length, &err);
    if (!entry->schema)
      log_event(LOG_WARN, CATALOG_ROOM, "arguments of a discovered tool are not checked", LOG_TEXT("record", entry->id),
                LOG_TEXT("name", entry->original_name), LOG_TEXT("reason", err.message));
  }
  if (json_member(entry->source, entry->source_length, "outputSchema", &token.data, &token.length) &&
      token.data[0] == '{')
    entry->output_schema = base_strndup(token.data, token.length);
  if (entry->output_schema)
    output_set(entry, token.data, token.length);
}

void catalog_entry_inherit(struct catalog_entry *entry, const struct catalog_document *gateway) {
  struct catalog_record *record = &entry->record;
  const Core__Admin__V1__GatewaySpec *spec = catalog_gateway_spec(gateway);
  struct buf definition = {0};
  entry_document_set(entry, gateway);
  base_free(entry->name);
  entry->name =
      base_asprintf("%s%s", record->kind == CATALOG_KIND_RESOURCE ? "" : spec->name_prefix, entry->original_name);
  record->name = entry->name;
  record->original_name = entry->original_name;
  record->title = entry->title;
  record->description = entry->description;
  record->owner_family = "mcp";
  record->gateway_id = gateway->id;
  record->gateway = spec;
  record->timeout_ms = timeout_of(spec->timeout_ms);
  record->input_schema = entry->schema;
  record->output_schema_json = entry->output_schema ? entry->output_schema : "";
  record->output_schema = entry->output;
  if (gateway->revision > record->revision)
    record->revision = gateway->revision;
  base_free(entry->definition);
  entry->definition = NULL;
  record->definition_json = entry->source;
  record->definition_length = entry->source_length;
  if (strcmp(entry->name, entry->original_name) != 0) {
    catalog_definition_rename(record->kind, entry->source, entry->source_length, entry->name, &definition);
    record->definition_length = definition.length;
    record->definition_json = entry->definition = buf_take(&definition);
  }
}

struct catalog_entry *catalog_entry_discovered(const struct catalog_document *gateway, const char *id,
                                               uint64_t revision, enum catalog_kind kind, const char *original_name,
                                               const char *definition, size_t length) {
  struct catalog_entry *entry = BASE_NEW(struct catalog_entry);
  entry->discovered = true;
  str_copy(entry->id, sizeof(entry->id), id);
  entry->record.kind = kind;
  entry->record.revision = revision;
  entry->original_name = base_strdup(original_name);
  entry->source = base_memdup(definition, length);
  entry->source_length = length;
  entry->title = member_text(entry, "title");
  entry->description = member_text(entry, "description");
  discovered_schemas(entry);
  catalog_entry_inherit(entry, gateway);
  return entry;
}

void catalog_entry_free(struct catalog_entry **entry) {
  struct catalog_entry *gone = *entry;
  if (!gone)
    return;
  *entry = NULL;
  catalog_schema_free(&gone->schema);
  catalog_schema_free(&gone->output);
  base_free(gone->source);
  base_free(gone->name);
  base_free(gone->original_name);
  base_free(gone->title);
  base_free(gone->description);
  base_free(gone->definition);
  base_free(gone->output_schema);
  base_free(gone);
}
