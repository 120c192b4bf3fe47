/* wire_json_decode.c: proto3 JSON to a protobuf-c message.
 *
 * json_check() has seen the whole text first: syntax, UTF-8 and depth are settled, so the walkers below recurse at most
 * JSON_DEPTH_MAX levels and only decide whether values fit their fields. A message under construction is always in a
 * state that protobuf_c_message_free_unpacked() can free. */
#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sdk/base/alloc.h"
#include "sdk/base/json.h"
#include "sdk/base/str.h"
#include "sdk/wire/wire_json.h"
#include "sdk/wire/wire_json_internal.h"

struct span {
  const char *data;
  size_t length;
};

static bool decode_message(const ProtobufCMessageDescriptor *descriptor, struct span json, ProtobufCMessage **message,
                           struct error *err);

static bool misfit(const ProtobufCFieldDescriptor *field, struct error *err) {
  return error_set(err, ERR_ARGUMENT_INVALID, "The value of field \"%s\" does not fit its type.", field->name);
}

static bool is_null(struct span json) {
  return json.length == 4 && json.data[0] == 'n';
}

/* The text of a number, quoted or not, as an owned C string; NULL when the token is neither. */
static char *number_text(struct span json) {
  if (json.data[0] == '"')
    return json_string_decode(json.data, json.length);
  bool number = json.data[0] == '-' || (json.data[0] >= '0' && json.data[0] <= '9');
  return number ? base_strndup(json.data, json.length) : NULL;
}

static bool parse_double(const char *text, double *value) {
  bool number = *text == '-' || (*text >= '0' && *text <= '9');
  if (!number || !json_check(text, strlen(text), 1, NULL) || str_is_empty(text) ||
      strchr(" \t\r\n", text[strlen(text) - 1]))
    return false;
  *value = strtod(text, NULL);
  return isfinite(*value);
}

/* A whole number given as 1.0 or 1e3; only unquoted, and only where the double holds it exactly. */
static bool parse_whole(const char *text, double *value) {
  return strpbrk(text, ".eE") && parse_double(text, value) && *value == trunc(*value) && fabs(*value) <= 0x1p53;
}

static bool decode_signed(struct span json, int64_t low, int64_t high, int64_t *value) {
  char *text = number_text(json);
  double whole;
  bool ok = text != NULL;
  if (ok && !str_parse_i64(text, value)) {
    ok = json.data[0] != '"' && parse_whole(text, &whole);
    *value = ok ? (int64_t)whole : 0;
  }
  base_free(text);
  return ok && *value >= low && *value <= high;
}

static bool decode_unsigned(struct span json, uint64_t high, uint64_t *value) {
  char *text = number_text(json);
  double whole;
  bool ok = text != NULL;
  if (ok && !str_parse_u64(str_equal(text, "-0") ? "0" : text, value)) {
    ok = json.data[0] != '"' && parse_whole(text, &whole) && whole >= 0;
    *value = ok ? (uint64_t)whole : 0;
  }
  base_free(text);
  return ok && *value <= high;
}

static bool decode_real(struct span json, double *value) {
  char *text = number_text(json);
  if (!text)
    return false;
  bool ok = true, quoted = json.data[0] == '"';
  if (quoted && str_equal(text, "NaN"))
    *value = (double)NAN;
  else if (quoted && str_equal(text, "Infinity"))
    *value = (double)INFINITY;
  else if (quoted && str_equal(text, "-Infinity"))
    *value = -(double)INFINITY;
  else
    ok = parse_double(text, value);
  base_free(text);
  return ok;
}

/* Standard or URL-safe alphabet, padded or not. */
static bool decode_bytes(struct span json, ProtobufCBinaryData *bytes) {
  char *text = json_string_decode(json.data, json.length);
  if (!text)
    return false;
  size_t length = strlen(text), count;
  length -= str_base64_padding(text, length);
  uint8_t *data = base_alloc(length / 4 * 3 + 3);
  bool ok = str_base64_decode(data, &count, text, length, STR_BASE64_EITHER);
  base_free(text);
  if (!ok || !count) {
    base_free(data);
    data = NULL;
  }
  if (!ok)
    return false;
  *bytes = (ProtobufCBinaryData){.len = count, .data = data};
  return true;
}

static bool decode_enum(const ProtobufCEnumDescriptor *descriptor, struct span json, int *value) {
  int64_t number;
  if (json.data[0] != '"') {
    if (!decode_signed(json, INT32_MIN, INT32_MAX, &number))
      return false;
    *value = (int)number;
    return true;
  }
  char *name = json_string_decode(json.data, json.length);
  const ProtobufCEnumValue *known = name ? protobuf_c_enum_descriptor_get_value_by_name(descriptor, name) : NULL;
  base_free(name);
  if (known)
    *value = known->value;
  return known != NULL;
}

/* One value into its place. On false nothing is stored there. */
static bool decode_value(const ProtobufCFieldDescriptor *field, struct span json, void *place, struct error *err) {
  int64_t number;
  uint64_t natural;
  double real;
  switch (field->type) {
  case PROTOBUF_C_TYPE_INT32:
  case PROTOBUF_C_TYPE_SINT32:
  case PROTOBUF_C_TYPE_SFIXED32:
    if (!decode_signed(json, INT32_MIN, INT32_MAX, &number))
      return misfit(field, err);
    *(int32_t *)place = (int32_t)number;
    return true;
  case PROTOBUF_C_TYPE_INT64:
  case PROTOBUF_C_TYPE_SINT64:
  case PROTOBUF_C_TYPE_SFIXED64:
    if (!decode_signed(json, INT64_MIN, INT64_MAX, &number))
      return misfit(field, err);
    *(int64_t *)place = number;
    return true;
  case PROTOBUF_C_TYPE_UINT32:
  case PROTOBUF_C_TYPE_FIXED32:
    if (!decode_unsigned(json, UINT32_MAX, &natural))
      return misfit(field, err);
    *(uint32_t *)place = (uint32_t)natural;
    return true;
  case PROTOBUF_C_TYPE_UINT64:
  case PROTOBUF_C_TYPE_FIXED64:
    if (!decode_unsigned(json, UINT64_MAX, &natural))
      return misfit(field, err);
    *(uint64_t *)place = natural;
    return true;
  case PROTOBUF_C_TYPE_FLOAT:
    if (!decode_real(json, &real) || (isfinite(real) && fabs(real) > (double)FLT_MAX))
      return misfit(field, err);
    *(float *)place = (float)real;
    return true;
  case PROTOBUF_C_TYPE_DOUBLE:
    if (!decode_real(json, &real))
      return misfit(field, err);
    *(double *)place = real;
    return true;
  case PROTOBUF_C_TYPE_BOOL:
    if (json.data[0] != 't' && json.data[0] != 'f')
      return misfit(field, err);
    *(protobuf_c_boolean *)place = json.data[0] == 't';
    return true;
  case PROTOBUF_C_TYPE_ENUM:
    return decode_enum(field->descriptor, json, place) || misfit(field, err);
  case PROTOBUF_C_TYPE_STRING: {
    char *text = json_string_decode(json.data, json.length);
    if (!text)
      return misfit(field, err);
    *(char **)place = text;
    return true;
  }
  case PROTOBUF_C_TYPE_BYTES:
    return decode_bytes(json, place) || misfit(field, err);
  case PROTOBUF_C_TYPE_MESSAGE:
    if (json.data[0] != '{')
      return misfit(field, err);
    return decode_message(field->descriptor, json, place, err);
  }
  return misfit(field, err);
}

static bool decode_array(const ProtobufCFieldDescriptor *field, struct span json, ProtobufCMessage *message,
                         struct error *err) {
  struct json_cursor cursor;
  struct span key, item;
  size_t *count = (size_t *)(void *)((char *)message + field->quantifier_offset);
  char **items = (char **)(void *)((char *)message + field->offset);
  size_t item_bytes = wire_json_item_bytes(field->type), capacity = 0;
  if (!json_walk(json.data, json.length, '[', &cursor))
    return misfit(field, err);
  while (json_next(&cursor, &key.data, &key.length, &item.data, &item.length)) {
    if (*count == capacity) {
      capacity = capacity ? capacity * 2 : 4;
      *items = base_realloc_array(*items, capacity, item_bytes);
    }
    if (is_null(item))
      return misfit(field, err);
    if (!decode_value(field, item, *items + *count * item_bytes, err))
      return false;
    ++*count;
  }
  return true;
}

/* Whether the key token (with quotes) names the field: its proto name, or its lowerCamelCase form. */
static bool names_field(const char *key, const char *name) {
  if (strcmp(key, name) == 0)
    return true;
  for (bool upper = false; *name; name++) {
    if (*name == '_') {
      upper = true;
      continue;
    }
    if (*key++ != (upper && *name >= 'a' && *name <= 'z' ? (char)(*name - 'a' + 'A') : *name))
      return false;
    upper = false;
  }
  return !*key;
}

static const ProtobufCFieldDescriptor *find_field(const ProtobufCMessageDescriptor *descriptor, const char *key) {
  for (unsigned i = 0; i < descriptor->n_fields; i++)
    if (names_field(key, descriptor->fields[i].name))
      return &descriptor->fields[i];
  return NULL;
}

static bool decode_field(const ProtobufCFieldDescriptor *field, struct span json, ProtobufCMessage *message,
                         struct error *err) {
  if (is_null(json))
    return true;
  if (field->label == PROTOBUF_C_LABEL_REPEATED)
    return decode_array(field, json, message, err);
  char *place = (char *)message + field->offset;
  uint32_t *chosen = (uint32_t *)(void *)((char *)message + field->quantifier_offset);
  if (!wire_json_is_oneof(field))
    return decode_value(field, json, place, err);
  if (*chosen)
    return error_set(err, ERR_ARGUMENT_INVALID, "Field \"%s\" excludes another one that is present.", field->name);
  if (!decode_value(field, json, place, err))
    return false;
  *chosen = field->id;
  return true;
}

/* The members of an object into a message; "@type" is passed over when the message stands in an Any. */
static bool decode_fields(const ProtobufCMessageDescriptor *descriptor, struct span json, bool in_any,
                          ProtobufCMessage *message, struct error *err) {
  struct json_cursor cursor;
  struct span token, value;
  bool ok = true, type_seen = false;
  bool *seen = base_calloc(descriptor->n_fields, sizeof *seen);
  if (!json_walk(json.data, json.length, '{', &cursor))
    ok = error_set(err, ERR_ARGUMENT_INVALID, "A JSON object is expected.");
  while (ok && json_next(&cursor, &token.data, &token.length, &value.data, &value.length)) {
    char *key = json_string_decode(token.data, token.length);
    bool is_type = in_any && str_equal(key, "@type");
    const ProtobufCFieldDescriptor *field = key && !is_type ? find_field(descriptor, key) : NULL;
    bool *mark = is_type ? &type_seen : field ? &seen[field - descriptor->fields] : NULL;
    if (!mark)
      ok = error_set(err, ERR_ARGUMENT_INVALID, "Unknown field \"%s\".", key ? key : "");
    else if (*mark)
      ok = error_set(err, ERR_ARGUMENT_INVALID, "Field \"%s\" is given twice.", key);
    else {
      *mark = true;
      ok = is_type || decode_field(field, value, message, err);
    }
    base_free(key);
  }
  base_free(seen);
  return ok;
}

static ProtobufCMessage *message_new(const ProtobufCMessageDescriptor *descriptor) {
  ProtobufCMessage *message = base_alloc(descriptor->sizeof_message);
  protobuf_c_message_init(descriptor, message);
  return message;
}

static bool decode_any(struct span json, Google__Protobuf__Any *any, struct error *err) {
  struct span token;
  struct json_cursor cursor;
  if (!json_member(json.data, json.length, "@type", &token.data, &token.length)) {
    struct span key, value;
    if (json_walk(json.data, json.length, '{', &cursor) &&
        !json_next(&cursor, &key.data, &key.length, &value.data, &value.length))
      return true; /* {} is the empty Any */
    return error_set(err, ERR_ARGUMENT_INVALID, "Field \"@type\" is missing.");
  }
  char *type_url = json_string_decode(token.data, token.length);
  const ProtobufCMessageDescriptor *type = wire_json_any_type(type_url);
  if (!type || wire_json_is_any(type)) {
    base_free(type_url);
    return error_set(err, ERR_ARGUMENT_INVALID, "Field \"@type\" names an unknown type.");
  }
  any->type_url = type_url;
  ProtobufCMessage *inner = message_new(type);
  bool ok = decode_fields(type, json, true, inner, err);
  size_t length = ok ? protobuf_c_message_get_packed_size(inner) : 0;
  if (length) {
    any->value.data = base_alloc(length);
    any->value.len = protobuf_c_message_pack(inner, any->value.data);
  }
  protobuf_c_message_free_unpacked(inner, NULL);
  return ok;
}

static bool decode_message(const ProtobufCMessageDescriptor *descriptor, struct span json, ProtobufCMessage **message,
                           struct error *err) {
  ProtobufCMessage *made = message_new(descriptor);
  bool ok = wire_json_is_any(descriptor) ? decode_any(json, (Google__Protobuf__Any *)made, err)
                                         : decode_fields(descriptor, json, false, made, err);
  if (ok)
    *message = made;
  else
    protobuf_c_message_free_unpacked(made, NULL);
  return ok;
}

bool wire_json_decode(const ProtobufCMessageDescriptor *descriptor, const char *json, size_t length,
                      ProtobufCMessage **message, struct error *err) {
  if (!json_check(json, length, JSON_DEPTH_MAX, err))
    return false;
  return decode_message(descriptor, (struct span){json, length}, message, err);
}
