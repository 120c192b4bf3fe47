/* document.c: documents: from JSON to messages and back. Members of a spec that hold JSON (the *_json fields) stand in
 * a document as inline JSON, under the field's name with or without "Json", and keep their bytes. */
#include <string.h>

#include "core/catalog/catalog_internal.h"
#include "sdk/base/json.h"
#include "sdk/base/secret.h"
#include "sdk/wire/wire_json.h"

#define JSON_SUFFIX "_json"
#define JSON_FIELDS_MAX 8 /* of one spec */

const struct catalog_document_kind_row catalog_document_kinds[] = {
#define CATALOG_DOCUMENT_KIND(name_, record_, spec_, validate_)                                                        \
  [CATALOG_DOCUMENT_##name_] = {.name = #name_,                                                                        \
                                .record_kind = CATALOG_KIND_##record_,                                                 \
                                .spec = &core__admin__v1__##spec_##__descriptor,                                       \
                                .validate = (validate_)},
#include "core/catalog/kinds.def"
#undef CATALOG_DOCUMENT_KIND
};

enum catalog_document_kind catalog_document_kind_find(const char *name) {
  unsigned kind = 0;
  while (kind < CATALOG_DOCUMENT_KIND_COUNT && !str_equal(name, catalog_document_kinds[kind].name))
    kind++;
  return (enum catalog_document_kind)kind;
}

#define SPEC_ACCESSOR(function, kind_, type)                                                                           \
  const type *function(const struct catalog_document *document) {                                                      \
    return document->kind == (kind_) ? (const type *)(const void *)document->spec : NULL;                              \
  }
SPEC_ACCESSOR(catalog_tool_spec, CATALOG_DOCUMENT_Tool, Core__Admin__V1__ToolSpec)
SPEC_ACCESSOR(catalog_gateway_spec, CATALOG_DOCUMENT_Gateway, Core__Admin__V1__GatewaySpec)
SPEC_ACCESSOR(catalog_server_spec, CATALOG_DOCUMENT_Server, Core__Admin__V1__ServerSpec)
SPEC_ACCESSOR(catalog_resource_spec, CATALOG_DOCUMENT_Resource, Core__Admin__V1__ResourceSpec)
SPEC_ACCESSOR(catalog_prompt_spec, CATALOG_DOCUMENT_Prompt, Core__Admin__V1__PromptSpec)
SPEC_ACCESSOR(catalog_user_spec, CATALOG_DOCUMENT_User, Core__Admin__V1__UserSpec)
SPEC_ACCESSOR(catalog_role_spec, CATALOG_DOCUMENT_Role, Core__Admin__V1__RoleSpec)

enum policy_visibility catalog_document_visibility(const struct catalog_document *document) {
  const char *text = document->metadata->visibility;
  return str_equal(text, "public") ? POLICY_VISIBILITY_PUBLIC
         : str_equal(text, "team") ? POLICY_VISIBILITY_TEAM
                                   : POLICY_VISIBILITY_PRIVATE;
}

/* ---- fields that hold JSON ---- */

static bool is_json_field(const ProtobufCFieldDescriptor *field) {
  return field->type == PROTOBUF_C_TYPE_BYTES && str_ends_with(field->name, JSON_SUFFIX);
}

static ProtobufCBinaryData *json_field(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field) {
  return (ProtobufCBinaryData *)(void *)((char *)message + field->offset);
}

/* "input_schema_json" as "inputSchemaJson". */
static void camel_name(const char *name, char target[static 64]) {
  size_t length = 0;
  for (bool upper = false; *name && length < 63; name++) {
    if (*name == '_') {
      upper = true;
      continue;
    }
    target[length++] = (char)(upper && *name >= 'a' && *name <= 'z' ? *name - 'a' + 'A' : *name);
    upper = false;
  }
  target[length] = '\0';
}

static const ProtobufCFieldDescriptor *json_field_find(const ProtobufCMessageDescriptor *descriptor, const char *key) {
  for (unsigned i = 0; key && i < descriptor->n_fields; i++) {
    const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
    char camel[64];
    size_t length;
    if (!is_json_field(field))
      continue;
    camel_name(field->name, camel);
    length = strlen(key);
    bool short_camel = length + 4 == strlen(camel) && strncmp(key, camel, length) == 0;
    bool short_snake = length + strlen(JSON_SUFFIX) == strlen(field->name) && strncmp(key, field->name, length) == 0;
    if (short_camel || short_snake || strcmp(key, camel) == 0 || strcmp(key, field->name) == 0)
      return field;
  }
  return NULL;
}

struct json_fields {
  const ProtobufCFieldDescriptor *field[JSON_FIELDS_MAX];
  struct catalog_span value[JSON_FIELDS_MAX];
  size_t count;
};

static bool json_fields_add(struct json_fields *fields, const ProtobufCFieldDescriptor *field,
                            struct catalog_span value, struct error *err) {
  for (size_t i = 0; i < fields->count; i++)
    if (fields->field[i] == field)
      return error_set(err, ERR_ARGUMENT_INVALID, "Field \"%s\" is given twice.", field->name);
  if (value.length > CATALOG_JSON_MAX_BYTES)
    return error_set(err, ERR_ARGUMENT_TOO_LARGE, "Field \"%s\" is larger than %u bytes.", field->name,
                     CATALOG_JSON_MAX_BYTES);
  BASE_CHECK(fields->count < JSON_FIELDS_MAX);
  fields->field[fields->count] = field;
  fields->value[fields->count++] = value;
  return true;
}

/* The spec: JSON fields aside, the rest by the strict decoder. */
static bool spec_decode(const ProtobufCMessageDescriptor *descriptor, struct catalog_span json,
                        ProtobufCMessage **message, struct error *err) {
  struct json_fields fields = {0};
  struct buf rest = {0};
  struct json_cursor cursor;
  struct catalog_span token, value;
  bool ok = true;
  if (!json_walk(json.data, json.length, '{', &cursor))
    return error_set(err, ERR_ARGUMENT_INVALID, "The spec is not an object.");
  buf_append_char(&rest, '{');
  while (ok && json_next(&cursor, &token.data, &token.length, &value.data, &value.length)) {
    char *key = json_string_decode(token.data, token.length);
    const ProtobufCFieldDescriptor *field = json_field_find(descriptor, key);
    base_free(key);
    if (field) {
      ok = (value.length == 4 && value.data[0] == 'n') || json_fields_add(&fields, field, value, err);
      continue;
    }
    if (rest.length > 1)
      buf_append_char(&rest, ',');
    buf_append(&rest, token.data, token.length);
    buf_append_char(&rest, ':');
    buf_append(&rest, value.data, value.length);
  }
  buf_append_char(&rest, '}');
  ok = ok && wire_json_decode(descriptor, rest.data, rest.length, message, err);
  for (size_t i = 0; ok && i < fields.count; i++)
    *json_field(*message, fields.field[i]) = (ProtobufCBinaryData){
        .len = fields.value[i].length, .data = base_memdup(fields.value[i].data, fields.value[i].length)};
  secret_wipe(rest.data, rest.length);
  buf_free(&rest);
  return ok;
}

static void spec_encode(ProtobufCMessage *spec, struct buf *target) {
  const ProtobufCMessageDescriptor *descriptor = spec->descriptor;
  ProtobufCBinaryData kept[JSON_FIELDS_MAX];
  const ProtobufCFieldDescriptor *fields[JSON_FIELDS_MAX];
  size_t count = 0;
  for (unsigned i = 0; i < descriptor->n_fields; i++) {
    ProtobufCBinaryData *data = json_field(spec, &descriptor->fields[i]);
    if (!is_json_field(&descriptor->fields[i]) || !data->len)
      continue;
    fields[count] = &descriptor->fields[i];
    kept[count++] = *data;
    *data = (ProtobufCBinaryData){0};
  }
  BASE_CHECK(wire_json_encode(spec, target, NULL)); /* no Any and no deep nesting in a spec */
  target->length--;                                 /* the closing brace */
  for (size_t i = 0; i < count; i++) {
    char camel[64];
    camel_name(fields[i]->name, camel);
    buf_printf(target, "%s\"%s\":", target->data[target->length - 1] == '{' ? "" : ",", camel);
    buf_append(target, kept[i].data, kept[i].len);
    *json_field(spec, fields[i]) = kept[i];
  }
  buf_append_char(target, '}');
}

/* ---- whole documents ---- */

static char *document_text(const struct catalog_document *document) {
  struct buf text = {0};
  buf_printf(&text, "{\"kind\":\"%s\",\"metadata\":", catalog_document_kinds[document->kind].name);
  BASE_CHECK(wire_json_encode(&document->metadata->base, &text, NULL));
  buf_append_text(&text, ",\"spec\":");
  spec_encode(document->spec, &text);
  buf_append_char(&text, '}');
  return buf_take(&text);
}

static void text_default(char **text, const char *value) {
  if (!str_is_empty(*text))
    return;
  if (*text != protobuf_c_empty_string)
    base_free(*text);
  *text = base_strdup(value);
}

/* What may be left out, for those who carry out calls. */
static void defaults_fill(struct catalog_document *document) {
  if (document->kind == CATALOG_DOCUMENT_Gateway) {
    Core__Admin__V1__GatewaySpec *gateway = (void *)document->spec;
    text_default(&gateway->transport, "streamable-http");
  } else if (document->kind == CATALOG_DOCUMENT_Tool) {
    Core__Admin__V1__ToolSpec *tool = (void *)document->spec;
    if (tool->integration_case == CORE__ADMIN__V1__TOOL_SPEC__INTEGRATION_REST && tool->rest)
      text_default(&tool->rest->method, "GET");
  }
}

struct parts {
  struct catalog_span kind, metadata, spec;
};

static bool parts_read(const char *json, size_t length, struct parts *parts, struct error *err) {
  static const char *const names[] = {"kind", "metadata", "spec"};
  struct catalog_span *const targets[] = {&parts->kind, &parts->metadata, &parts->spec};
  struct json_cursor cursor;
  struct catalog_span token, value;
  if (length > CATALOG_DOCUMENT_MAX_BYTES)
    return error_set(err, ERR_ARGUMENT_TOO_LARGE, "The document is larger than %u bytes.", CATALOG_DOCUMENT_MAX_BYTES);
  if (!json_check(json, length, JSON_DEPTH_MAX, err))
    return false;
  if (!json_walk(json, length, '{', &cursor))
    return error_set(err, ERR_ARGUMENT_INVALID, "The document is not an object.");
  while (json_next(&cursor, &token.data, &token.length, &value.data, &value.length)) {
    char *key = json_string_decode(token.data, token.length);
    size_t row = 0;
    while (row < 3 && !str_equal(key, names[row]))
      row++;
    bool good = row < 3 ? !targets[row]->data ||
                              error_set(err, ERR_ARGUMENT_INVALID, "Field \"%s\" is given twice.", names[row])
                        : error_set(err, ERR_ARGUMENT_INVALID, "Unknown field \"%s\".", key ? key : "");
    base_free(key);
    if (!good)
      return false;
    *targets[row] = value;
  }
  return true;
}

static bool kind_read(struct catalog_span token, enum catalog_document_kind *row, char **kind, struct error *err) {
  char *name = token.data ? json_string_decode(token.data, token.length) : NULL;
  *row = catalog_document_kind_find(name);
  *kind = name;
  if (!name)
    return error_set(err, ERR_ARGUMENT_MISSING, "The document has no kind.");
  return *row < CATALOG_DOCUMENT_KIND_COUNT ||
         error_set(err, ERR_ARGUMENT_INVALID, "The kind \"%.40s\" is not known.", name);
}

struct catalog_document *catalog_document_parse(const char *json, size_t length, bool validated, char **kind,
                                                char **name, struct error *err) {
  struct parts parts = {0};
  enum catalog_document_kind row;
  ProtobufCMessage *metadata = NULL;
  struct catalog_document *document = NULL;
  *kind = *name = NULL;
  if (!parts_read(json, length, &parts, err) || !kind_read(parts.kind, &row, kind, err))
    return NULL;
  if (!parts.metadata.data) {
    error_set(err, ERR_ARGUMENT_MISSING, "The document has no metadata.");
    return NULL;
  }
  if (!wire_json_decode(&core__admin__v1__metadata__descriptor, parts.metadata.data, parts.metadata.length, &metadata,
                        err))
    return NULL;
  document = BASE_NEW(struct catalog_document);
  document->kind = row;
  document->metadata = (Core__Admin__V1__Metadata *)(void *)metadata;
  document->key = base_asprintf("%s/%s", *kind, document->metadata->name);
  *name = base_strdup(document->metadata->name);
  if (!parts.spec.data || (parts.spec.length == 4 && parts.spec.data[0] == 'n'))
    parts.spec = (struct catalog_span){"{}", 2};
  if (!spec_decode(catalog_document_kinds[row].spec, parts.spec, &document->spec, err) ||
      (validated &&
       (!catalog_validate_metadata(document, err) || !catalog_document_kinds[row].validate(document, err)))) {
    catalog_document_free(&document);
    return NULL;
  }
  if (validated)
    catalog_credential_take(document);
  document->text = document_text(document);
  defaults_fill(document);
  return document;
}

void catalog_document_free(struct catalog_document **document) {
  struct catalog_document *gone = *document;
  if (!gone)
    return;
  *document = NULL;
  if (gone->spec) {
    if (!gone->credential)
      catalog_credential_take(gone); /* wipes what is there */
    protobuf_c_message_free_unpacked(gone->spec, NULL);
  }
  core__admin__v1__metadata__free_unpacked(gone->metadata, NULL);
  secret_free(&gone->credential);
  buf_free(&gone->sealed);
  base_free(gone->key);
  base_free(gone->text);
  base_free(gone);
}

/* ---- differences ---- */

static void diff_objects(struct catalog_span old, struct catalog_span new, const char *path, catalog_path_visit *visit,
                         void *arg) {
  struct json_cursor cursor;
  struct catalog_span token, value, other;
  const struct catalog_span *const sides[] = {&new, &old};
  for (size_t side = 0; side < 2; side++) {
    if (!json_walk(sides[side]->data, sides[side]->length, '{', &cursor))
      continue;
    while (json_next(&cursor, &token.data, &token.length, &value.data, &value.length)) {
      char *key = json_string_decode(token.data, token.length);
      char *below = base_asprintf("%s%s%s", path, *path ? "." : "", key);
      bool there = json_member(sides[!side]->data, sides[!side]->length, key, &other.data, &other.length);
      bool same = there && value.length == other.length && memcmp(value.data, other.data, value.length) == 0;
      if (!there)
        visit(arg, below);
      else if (side == 0 && !same && value.data[0] == '{' && other.data[0] == '{' && !str_ends_with(key, "Json"))
        diff_objects(other, value, below, visit, arg);
      else if (side == 0 && !same)
        visit(arg, below);
      base_free(below);
      base_free(key);
    }
  }
}

void catalog_document_diff(const char *old_text, const char *new_text, catalog_path_visit *visit, void *arg) {
  diff_objects((struct catalog_span){old_text, strlen(old_text)}, (struct catalog_span){new_text, strlen(new_text)}, "",
               visit, arg);
}
