/* wire_json_encode.c: protobuf-c message to proto3 JSON. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sdk/base/alloc.h"
#include "sdk/base/json.h"
#include "sdk/base/str.h"
#include "sdk/wire/wire_json.h"
#include "sdk/wire/wire_json_internal.h"
#include "sdk/wire/wire_registry.h"

static bool encode_message(const ProtobufCMessage *message, unsigned depth, struct buf *out, struct error *err);

size_t wire_json_item_bytes(ProtobufCType type) {
  switch (type) {
  case PROTOBUF_C_TYPE_INT32:
  case PROTOBUF_C_TYPE_SINT32:
  case PROTOBUF_C_TYPE_SFIXED32:
  case PROTOBUF_C_TYPE_UINT32:
  case PROTOBUF_C_TYPE_FIXED32:
  case PROTOBUF_C_TYPE_FLOAT:
  case PROTOBUF_C_TYPE_ENUM:
    return 4;
  case PROTOBUF_C_TYPE_INT64:
  case PROTOBUF_C_TYPE_SINT64:
  case PROTOBUF_C_TYPE_SFIXED64:
  case PROTOBUF_C_TYPE_UINT64:
  case PROTOBUF_C_TYPE_FIXED64:
  case PROTOBUF_C_TYPE_DOUBLE:
    return 8;
  case PROTOBUF_C_TYPE_BOOL:
    return sizeof(protobuf_c_boolean);
  case PROTOBUF_C_TYPE_BYTES:
    return sizeof(ProtobufCBinaryData);
  case PROTOBUF_C_TYPE_STRING:
  case PROTOBUF_C_TYPE_MESSAGE:
    break;
  }
  return sizeof(void *);
}

const ProtobufCMessageDescriptor *wire_json_any_type(const char *type_url) {
  const char *slash = type_url ? strrchr(type_url, '/') : NULL;
  return slash ? wire_message_find(slash + 1) : NULL;
}

/* Whether a singular field outside a oneof is at its default, which is left out. -0.0 is not the default: bits count.
 */
static bool is_default(const ProtobufCFieldDescriptor *field, const void *value) {
  static const char zero[8];
  switch (field->type) {
  case PROTOBUF_C_TYPE_STRING:
    return str_is_empty(*(const char *const *)value);
  case PROTOBUF_C_TYPE_BYTES:
    return ((const ProtobufCBinaryData *)value)->len == 0;
  case PROTOBUF_C_TYPE_MESSAGE:
    return *(const void *const *)value == NULL;
  default:
    return memcmp(value, zero, wire_json_item_bytes(field->type)) == 0;
  }
}

/* lowerCamelCase, as protoc derives json_name. */
static void encode_name(const char *name, struct buf *out) {
  bool upper = false;
  buf_append_char(out, '"');
  for (; *name; name++) {
    if (*name == '_') {
      upper = true;
      continue;
    }
    buf_append_char(out, upper && *name >= 'a' && *name <= 'z' ? (char)(*name - 'a' + 'A') : *name);
    upper = false;
  }
  buf_append(out, "\":", 2);
}

/* The shortest decimal that reads back as the same value. */
static void encode_double(double value, bool is_float, struct buf *out) {
  if (isnan(value)) {
    buf_append_text(out, "\"NaN\"");
    return;
  }
  if (isinf(value)) {
    buf_append_text(out, value > 0 ? "\"Infinity\"" : "\"-Infinity\"");
    return;
  }
  char text[40];
  for (int digits = is_float ? 6 : 15; digits <= 17; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, value);
    if (is_float ? strtof(text, NULL) == (float)value : strtod(text, NULL) == value)
      break;
  }
  buf_append_text(out, text);
}

static void encode_bytes(const ProtobufCBinaryData *bytes, struct buf *out) {
  buf_append_char(out, '"');
  str_base64_encode(buf_reserve(out, STR_BASE64_LENGTH(bytes->len)), bytes->data, bytes->len);
  out->length += STR_BASE64_LENGTH(bytes->len);
  buf_append_char(out, '"');
}

static void encode_enum(const ProtobufCEnumDescriptor *descriptor, int value, struct buf *out) {
  const ProtobufCEnumValue *known = protobuf_c_enum_descriptor_get_value(descriptor, value);
  if (known)
    buf_printf(out, "\"%s\"", known->name);
  else
    buf_printf(out, "%d", value);
}

static bool encode_value(const ProtobufCFieldDescriptor *field, const void *value, unsigned depth, struct buf *out,
                         struct error *err) {
  switch (field->type) {
  case PROTOBUF_C_TYPE_INT32:
  case PROTOBUF_C_TYPE_SINT32:
  case PROTOBUF_C_TYPE_SFIXED32:
    buf_printf(out, "%d", *(const int32_t *)value);
    break;
  case PROTOBUF_C_TYPE_UINT32:
  case PROTOBUF_C_TYPE_FIXED32:
    buf_printf(out, "%u", *(const uint32_t *)value);
    break;
  case PROTOBUF_C_TYPE_INT64:
  case PROTOBUF_C_TYPE_SINT64:
  case PROTOBUF_C_TYPE_SFIXED64:
    buf_printf(out, "\"%lld\"", (long long)*(const int64_t *)value);
    break;
  case PROTOBUF_C_TYPE_UINT64:
  case PROTOBUF_C_TYPE_FIXED64:
    buf_printf(out, "\"%llu\"", (unsigned long long)*(const uint64_t *)value);
    break;
  case PROTOBUF_C_TYPE_FLOAT:
    encode_double((double)*(const float *)value, true, out);
    break;
  case PROTOBUF_C_TYPE_DOUBLE:
    encode_double(*(const double *)value, false, out);
    break;
  case PROTOBUF_C_TYPE_BOOL:
    buf_append_text(out, *(const protobuf_c_boolean *)value ? "true" : "false");
    break;
  case PROTOBUF_C_TYPE_ENUM:
    encode_enum(field->descriptor, *(const int *)value, out);
    break;
  case PROTOBUF_C_TYPE_STRING: {
    const char *text = *(const char *const *)value;
    buf_append_json_string(out, text ? text : "", text ? strlen(text) : 0);
    break;
  }
  case PROTOBUF_C_TYPE_BYTES:
    encode_bytes(value, out);
    break;
  case PROTOBUF_C_TYPE_MESSAGE:
    return encode_message(*(const ProtobufCMessage *const *)value, depth + 1, out, err);
  }
  return true;
}

static bool encode_array(const ProtobufCFieldDescriptor *field, const char *items, size_t count, unsigned depth,
                         struct buf *out, struct error *err) {
  size_t item_bytes = wire_json_item_bytes(field->type);
  buf_append_char(out, '[');
  for (size_t i = 0; i < count; i++) {
    if (i)
      buf_append_char(out, ',');
    if (!encode_value(field, items + i * item_bytes, depth + 1, out, err))
      return false;
  }
  buf_append_char(out, ']');
  return true;
}

/* The members of one message, without the braces. */
static bool encode_fields(const ProtobufCMessage *message, bool first, unsigned depth, struct buf *out,
                          struct error *err) {
  const ProtobufCMessageDescriptor *descriptor = message->descriptor;
  for (unsigned i = 0; i < descriptor->n_fields; i++) {
    const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
    const char *value = (const char *)message + field->offset;
    const void *quantifier = (const char *)message + field->quantifier_offset;
    bool repeated = field->label == PROTOBUF_C_LABEL_REPEATED;
    size_t count = repeated ? *(const size_t *)quantifier : 0;
    if (repeated                    ? count == 0
        : wire_json_is_oneof(field) ? *(const uint32_t *)quantifier != field->id
                                    : is_default(field, value))
      continue;
    if (!first)
      buf_append_char(out, ',');
    first = false;
    encode_name(field->name, out);
    if (repeated ? !encode_array(field, *(const char *const *)value, count, depth, out, err)
                 : !encode_value(field, value, depth, out, err))
      return false;
  }
  return true;
}

static bool encode_any(const Google__Protobuf__Any *any, unsigned depth, struct buf *out, struct error *err) {
  if (str_is_empty(any->type_url) && !any->value.len) {
    buf_append_text(out, "{}");
    return true;
  }
  const ProtobufCMessageDescriptor *type = wire_json_any_type(any->type_url);
  if (!type || wire_json_is_any(type))
    return error_set(err, ERR_UNSUPPORTED, "A message holds a google.protobuf.Any of an unknown type.");
  ProtobufCMessage *inner = protobuf_c_message_unpack(type, NULL, any->value.len, any->value.data);
  if (!inner)
    return error_set(err, ERR_RPC_MESSAGE_MALFORMED, NULL);
  buf_append_text(out, "{\"@type\":");
  buf_append_json_string(out, any->type_url, strlen(any->type_url));
  bool ok = encode_fields(inner, false, depth, out, err);
  buf_append_char(out, '}');
  protobuf_c_message_free_unpacked(inner, NULL);
  return ok;
}

static bool encode_message(const ProtobufCMessage *message, unsigned depth, struct buf *out, struct error *err) {
  if (depth > JSON_DEPTH_MAX)
    return error_set(err, ERR_JSON_TOO_DEEP, NULL);
  if (wire_json_is_any(message->descriptor))
    return encode_any((const Google__Protobuf__Any *)message, depth, out, err);
  buf_append_char(out, '{');
  bool ok = encode_fields(message, true, depth, out, err);
  buf_append_char(out, '}');
  return ok;
}

bool wire_json_encode(const ProtobufCMessage *message, struct buf *out, struct error *err) {
  size_t length_before = out->length;
  if (encode_message(message, 1, out, err))
    return true;
  out->length = length_before;
  if (out->data)
    out->data[out->length] = 0;
  return false;
}
