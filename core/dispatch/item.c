/* item.c: a look into the wire form of InvokeItem: which member it holds, and for a result whether the tool failed and
 * where its structured content is. The bytes come from a module: every length is checked, unknown fields are passed
 * over, nothing is copied. */
#include "core/dispatch/dispatch_internal.h"

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_LENGTH = 2, WIRE_FIXED32 = 5 };

#define RESULT_STRUCTURED_FIELD 2
#define RESULT_IS_ERROR_FIELD 3

struct reader {
  const uint8_t *at, *end;
};

static bool varint_read(struct reader *reader, uint64_t *value) {
  *value = 0;
  for (unsigned shift = 0; shift < 64 && reader->at < reader->end; shift += 7) {
    uint8_t byte = *reader->at++;
    *value |= (uint64_t)(byte & 0x7f) << shift;
    if (!(byte & 0x80))
      return true;
  }
  return false;
}

/* One field: its number, and for a varint its value, for bytes their range. */
struct field {
  uint64_t number, value;
  struct reader bytes;
  bool is_bytes;
};

static bool field_read(struct reader *reader, struct field *field) {
  uint64_t key, length;
  if (!varint_read(reader, &key))
    return false;
  *field = (struct field){.number = key >> 3};
  switch (key & 7) {
  case WIRE_VARINT:
    return varint_read(reader, &field->value);
  case WIRE_LENGTH:
    if (!varint_read(reader, &length))
      return false;
    field->is_bytes = true;
    field->bytes.at = reader->at;
    break;
  case WIRE_FIXED64:
    length = 8;
    break;
  case WIRE_FIXED32:
    length = 4;
    break;
  default:
    return false;
  }
  if (length > (uint64_t)(reader->end - reader->at))
    return false;
  reader->at += length;
  field->bytes.end = reader->at;
  return true;
}

struct dispatch_item dispatch_item_read(const uint8_t *data, size_t length) {
  struct dispatch_item item = {.kind = DISPATCH_ITEM_NONE};
  struct reader reader = {data, data + length};
  struct field field;
  while (reader.at < reader.end) {
    if (!field_read(&reader, &field))
      return (struct dispatch_item){.kind = DISPATCH_ITEM_MALFORMED};
    if (!field.is_bytes || field.number == 0 || field.number > DISPATCH_ITEM_RESULT)
      continue;
    item = (struct dispatch_item){.kind = (enum dispatch_item_kind)field.number}; /* the last member wins */
    if (item.kind != DISPATCH_ITEM_RESULT)
      continue;
    struct reader inner = field.bytes;
    while (inner.at < inner.end) {
      if (!field_read(&inner, &field))
        return (struct dispatch_item){.kind = DISPATCH_ITEM_MALFORMED};
      if (field.number == RESULT_IS_ERROR_FIELD && !field.is_bytes)
        item.is_error = field.value != 0;
      if (field.number == RESULT_STRUCTURED_FIELD && field.is_bytes)
        item.structured = field.bytes.at, item.structured_length = (size_t)(field.bytes.end - field.bytes.at);
    }
  }
  return item;
}
