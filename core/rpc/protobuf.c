/* protobuf.c: varints and length-delimited fields, written and read with bounds. */
#include "core/rpc/protobuf.h"

#include <string.h>

enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

static void put_varint(struct buf *buf, uint64_t value) {
  while (value >= 0x80) {
    buf_append_char(buf, (char)(0x80 | (value & 0x7f)));
    value >>= 7;
  }
  buf_append_char(buf, (char)value);
}

void protobuf_put_number(struct buf *buf, uint32_t field, uint64_t value) {
  if (value == 0)
    return;
  put_varint(buf, (uint64_t)field << 3 | WIRE_VARINT);
  put_varint(buf, value);
}

void protobuf_put_bytes(struct buf *buf, uint32_t field, const void *data, size_t length) {
  put_varint(buf, (uint64_t)field << 3 | WIRE_BYTES);
  put_varint(buf, length);
  buf_append(buf, data, length);
}

void protobuf_put_text(struct buf *buf, uint32_t field, const char *text) {
  size_t length = strlen(text);
  if (length > 0)
    protobuf_put_bytes(buf, field, text, length);
}

static bool take_varint(struct protobuf_reader *reader, uint64_t *value) {
  *value = 0;
  for (unsigned shift = 0; shift < 64; shift += 7) {
    if (reader->length == 0)
      return false;
    uint8_t byte = *reader->data++;
    reader->length--;
    *value |= (uint64_t)(byte & 0x7f) << shift;
    if (byte < 0x80)
      return true;
  }
  return false;
}

static bool take_fixed(struct protobuf_reader *reader, size_t size, uint64_t *value) {
  if (reader->length < size)
    return false;
  *value = 0;
  for (size_t i = 0; i < size; i++)
    *value |= (uint64_t)reader->data[i] << (8 * i);
  reader->data += size;
  reader->length -= size;
  return true;
}

static bool take_bytes(struct protobuf_reader *reader, struct protobuf_field *field) {
  uint64_t length;
  if (!take_varint(reader, &length) || length > reader->length)
    return false;
  field->is_bytes = true;
  field->data = reader->data;
  field->length = (size_t)length;
  reader->data += length;
  reader->length -= (size_t)length;
  return true;
}

static bool take_value(struct protobuf_reader *reader, unsigned wire_type, struct protobuf_field *field) {
  switch (wire_type) {
  case WIRE_VARINT:
    return take_varint(reader, &field->value);
  case WIRE_FIXED64:
    return take_fixed(reader, 8, &field->value);
  case WIRE_FIXED32:
    return take_fixed(reader, 4, &field->value);
  case WIRE_BYTES:
    return take_bytes(reader, field);
  default:
    return false;
  }
}

bool protobuf_next(struct protobuf_reader *reader, struct protobuf_field *field) {
  uint64_t key;
  if (reader->malformed || reader->length == 0)
    return false;
  *field = (struct protobuf_field){0};
  if (!take_varint(reader, &key) || key >> 3 == 0 || key >> 3 > 0x1fffffff ||
      !take_value(reader, (unsigned)(key & 7), field)) {
    reader->malformed = true;
    return false;
  }
  field->number = (uint32_t)(key >> 3);
  return true;
}

bool protobuf_find_bytes(const void *data, size_t length, uint32_t number, struct protobuf_field *found) {
  struct protobuf_reader reader = {.data = data, .length = length};
  struct protobuf_field field;
  bool is_there = false;
  while (protobuf_next(&reader, &field))
    if (field.number == number && field.is_bytes) {
      *found = field;
      is_there = true;
    }
  return is_there && !reader.malformed;
}
