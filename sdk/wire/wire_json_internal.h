/* wire_json_internal.h: what the two directions of wire_json share. */
#ifndef GATEHOUSE_WIRE_JSON_INTERNAL_H
#define GATEHOUSE_WIRE_JSON_INTERNAL_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/pbc/google/protobuf/any.pb-c.h"

static inline bool wire_json_is_any(const ProtobufCMessageDescriptor *descriptor) {
  return descriptor == &google__protobuf__any__descriptor;
}

static inline bool wire_json_is_oneof(const ProtobufCFieldDescriptor *field) {
  return (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0;
}

/* Bytes of one value of the field's type inside a message struct or array. */
size_t wire_json_item_bytes(ProtobufCType type);

/* The descriptor that a type URL names ("type.googleapis.com/core.common.v1.ErrorEnvelope"); NULL: not in proto/. */
const ProtobufCMessageDescriptor *wire_json_any_type(const char *type_url);

#endif
