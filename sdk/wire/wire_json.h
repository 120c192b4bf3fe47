/* wire_json.h: protobuf <-> proto3 JSON by reflection over protobuf-c descriptors (TRN-2).
 *
 * The mapping is the one of the protobuf documentation: lowerCamelCase names out, both spellings in; 64-bit integers as
 * strings; bytes as base64; enums by name (numbers accepted, and written for unknown values); NaN and Infinity as
 * strings; fields at their default are left out; null means default; google.protobuf.Any with "@type", of types in
 * proto/. Strict where the mapping lets a reader choose: unknown fields, duplicate keys, two members of one oneof,
 * U+0000 in a string and lossy numbers are errors. Nesting is bounded by JSON_DEPTH_MAX. Any thread. */
#ifndef GATEHOUSE_WIRE_JSON_H
#define GATEHOUSE_WIRE_JSON_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

#include "sdk/base/buf.h"
#include "sdk/base/error.h"

/* Appends the message as one JSON object. Errors: ERR_UNSUPPORTED (an Any of a type that proto/ does not have),
 * ERR_RPC_MESSAGE_MALFORMED (an Any that does not decode), ERR_JSON_TOO_DEEP; *out is then as before. */
bool wire_json_encode(const ProtobufCMessage *message, struct buf *out, struct error *err);

/* Reads one JSON object into a new message, which the caller frees with protobuf_c_message_free_unpacked(message,
 * NULL). Errors: ERR_JSON_MALFORMED, ERR_JSON_TOO_DEEP, ERR_ARGUMENT_INVALID (does not fit the message; the text names
 * the field). */
bool wire_json_decode(const ProtobufCMessageDescriptor *descriptor, const char *json, size_t length,
                      ProtobufCMessage **message, struct error *err);

#endif
