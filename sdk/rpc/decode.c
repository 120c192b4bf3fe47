/* decode.c: nanopb messages read in one walk into an arena. nanopb's own decoder asks the heap for every string, every
 * sub-message and, item by item, every array, and its release walks all of it once more; here the texts of a message
 * share one piece of memory, an array is made in the size that it will have, and everything goes with the arena.
 *
 * What is accepted, what is refused and what the fields then hold is as with pb_decode(), of which only the kinds of
 * fields are known that nano_options.py makes; a message with a field of another kind is refused. */
#include <endian.h>
#include <pb_common.h>
#include <pb_decode.h>

#include "sdk/rpc/rpc_internal.h"

struct reader {
  const uint8_t *at, *end; /* of the message that is read now */
  struct arena *arena;
  char *text;        /* where the next text goes: every one fits, since a length and a tag stand before it */
  size_t text_bytes; /* to ask for at the first text */
};

/* In front of the items of an array: how many there is room for. */
struct array_head {
  _Alignas(16) size_t capacity;
};

static bool fields_read(struct reader *reader, const pb_msgdesc_t *fields, void *target);

/* ---- bytes ---- */

/* The long ones are left to nanopb, which knows what overflows: in 32 bits other things than in 64. */
static bool varint_long_read(struct reader *reader, bool is_wide, uint64_t *value) {
  pb_istream_t stream = pb_istream_from_buffer(reader->at, (size_t)(reader->end - reader->at));
  uint32_t narrow = 0;
  bool ok = is_wide ? pb_decode_varint(&stream, value) : pb_decode_varint32(&stream, &narrow);
  if (!is_wide)
    *value = narrow;
  reader->at = reader->end - stream.bytes_left;
  return ok;
}

static inline bool varint_read(struct reader *reader, bool is_wide, uint64_t *value) {
  size_t left = (size_t)(reader->end - reader->at);
  if (left > 0 && reader->at[0] < 0x80) {
    *value = *reader->at++;
    return true;
  }
  if (left > 1 && reader->at[1] < 0x80) {
    *value = (uint64_t)(reader->at[0] & 0x7f) | (uint64_t)reader->at[1] << 7;
    reader->at += 2;
    return true;
  }
  return varint_long_read(reader, is_wide, value);
}

static bool varint32_read(struct reader *reader, uint32_t *value) {
  uint64_t wide;
  bool ok = varint_read(reader, false, &wide);
  *value = (uint32_t)wide;
  return ok;
}

static bool bytes_skip(struct reader *reader, size_t count) {
  if (count > (size_t)(reader->end - reader->at))
    return false;
  reader->at += count;
  return true;
}

static bool length_read(struct reader *reader, size_t *length) {
  uint32_t value;
  if (!varint32_read(reader, &value) || value > (size_t)(reader->end - reader->at))
    return false;
  *length = value;
  return true;
}

/* Of a field that nobody reads, however long it is, as nanopb does. */
static bool varint_skip(struct reader *reader) {
  while (reader->at < reader->end)
    if (*reader->at++ < 0x80)
      return true;
  return false;
}

static bool value_skip(struct reader *reader, pb_wire_type_t type) {
  size_t length;
  switch (type) {
  case PB_WT_VARINT:
    return varint_skip(reader);
  case PB_WT_64BIT:
    return bytes_skip(reader, 8);
  case PB_WT_STRING:
    return length_read(reader, &length) && bytes_skip(reader, length);
  case PB_WT_32BIT:
    return bytes_skip(reader, 4);
  default:
    return false;
  }
}

/* ---- numbers ---- */

static bool integer_put(const pb_field_iter_t *field, uint64_t value, void *target) {
  if (field->data_size == sizeof(uint64_t)) {
    memcpy(target, &value, sizeof(value));
    return true;
  }
  uint32_t small = (uint32_t)value; /* a negative int32 travels in 64 bits */
  if (field->data_size != sizeof(small) || (PB_LTYPE(field->type) == PB_LTYPE_UVARINT && small != value))
    return false;
  memcpy(target, &small, sizeof(small));
  return true;
}

/* One number, as it stands alone or in a packed array. */
static bool number_read(struct reader *reader, const pb_field_iter_t *field, void *target) {
  uint64_t value;
  uint32_t small;
  switch (PB_LTYPE(field->type)) {
  case PB_LTYPE_BOOL:
    if (!varint32_read(reader, &small))
      return false;
    *(bool *)target = small != 0;
    return true;
  case PB_LTYPE_VARINT:
  case PB_LTYPE_UVARINT:
    return varint_read(reader, true, &value) && integer_put(field, value, target);
  case PB_LTYPE_FIXED32:
    if (!bytes_skip(reader, sizeof(small)))
      return false;
    memcpy(&small, reader->at - sizeof(small), sizeof(small));
    small = le32toh(small);
    memcpy(target, &small, sizeof(small));
    return true;
  case PB_LTYPE_FIXED64:
    if (!bytes_skip(reader, sizeof(value)))
      return false;
    memcpy(&value, reader->at - sizeof(value), sizeof(value));
    value = le64toh(value);
    memcpy(target, &value, sizeof(value));
    return true;
  default:
    return false;
  }
}

static pb_wire_type_t number_wire_type(const pb_field_iter_t *field) {
  switch (PB_LTYPE(field->type)) {
  case PB_LTYPE_FIXED32:
    return PB_WT_32BIT;
  case PB_LTYPE_FIXED64:
    return PB_WT_64BIT;
  default:
    return PB_WT_VARINT;
  }
}

/* ---- texts, bytes, messages ---- */

static bool text_read(struct reader *reader, char **target) {
  size_t length;
  if (!length_read(reader, &length))
    return false;
  if (reader->text == NULL)
    reader->text = arena_alloc(reader->arena, reader->text_bytes);
  char *text = reader->text;
  memcpy(text, reader->at, length);
  text[length] = 0;
  reader->text += length + 1;
  reader->at += length;
  *target = text;
  return true;
}

static bool bytes_read(struct reader *reader, pb_bytes_array_t **target) {
  size_t length;
  if (!length_read(reader, &length) || length > PB_SIZE_MAX)
    return false;
  pb_bytes_array_t *bytes = arena_alloc(reader->arena, PB_BYTES_ARRAY_T_ALLOCSIZE(length));
  bytes->size = (pb_size_t)length;
  memcpy(bytes->bytes, reader->at, length);
  reader->at += length;
  *target = bytes;
  return true;
}

static bool submessage_read(struct reader *reader, const pb_field_iter_t *field, void *target) {
  size_t length;
  if (!length_read(reader, &length))
    return false;
  const uint8_t *end = reader->end;
  reader->end = reader->at + length;
  bool ok = fields_read(reader, field->submsg_desc, target);
  reader->end = end;
  return ok;
}

/* A singular one, which replaces one that came before. */
static bool pointer_read(struct reader *reader, const pb_field_iter_t *field) {
  if (PB_HTYPE(field->type) == PB_HTYPE_ONEOF)
    *(pb_size_t *)field->pSize = field->tag;
  switch (PB_LTYPE(field->type)) {
  case PB_LTYPE_STRING:
    return text_read(reader, field->pField);
  case PB_LTYPE_BYTES:
    return bytes_read(reader, field->pField);
  case PB_LTYPE_SUBMESSAGE:
    *(void **)field->pField = arena_alloc(reader->arena, field->data_size);
    return submessage_read(reader, field, *(void **)field->pField);
  default:
    return false;
  }
}

/* ---- arrays ---- */

/* How many of this field follow one another from here on; the first tag has been read. */
static size_t run_count(struct reader ahead, uint32_t key) {
  size_t count = 0, length;
  uint32_t next = key;
  while (next == key && length_read(&ahead, &length)) {
    ahead.at += length;
    count++;
    if (ahead.at == ahead.end || !varint32_read(&ahead, &next))
      break;
  }
  return count;
}

/* Room for one more, which is not counted yet. `more`: how many are to come, this one included. NULL: too many. */
static void *array_room(struct reader *reader, const pb_field_iter_t *field, size_t more) {
  size_t count = *(pb_size_t *)field->pSize;
  char *items = *(char **)field->pField;
  size_t capacity = items != NULL ? ((struct array_head *)(void *)items)[-1].capacity : 0;
  if (count == PB_SIZE_MAX)
    return NULL;
  if (count == capacity) {
    size_t grown = capacity + (more > capacity ? more : capacity);
    grown = grown < PB_SIZE_MAX ? grown : PB_SIZE_MAX;
    struct array_head *head = arena_alloc(reader->arena, sizeof(*head) + grown * field->data_size);
    head->capacity = grown;
    if (count > 0)
      memcpy(head + 1, items, count * field->data_size);
    *(void **)field->pField = items = (char *)(head + 1);
  }
  return items + count * field->data_size;
}

static bool packed_read(struct reader *reader, const pb_field_iter_t *field) {
  size_t length;
  if (!length_read(reader, &length))
    return false;
  const uint8_t *end = reader->end;
  bool ok = true;
  reader->end = reader->at + length;
  while (ok && reader->at < reader->end) {
    void *item = array_room(reader, field, 8);
    ok = item != NULL && number_read(reader, field, item);
    *(pb_size_t *)field->pSize += ok;
  }
  reader->end = end;
  return ok;
}

static bool repeated_read(struct reader *reader, const pb_field_iter_t *field, uint32_t key) {
  pb_wire_type_t type = key & 7;
  bool is_number = PB_LTYPE(field->type) <= PB_LTYPE_LAST_PACKABLE;
  if (PB_ATYPE(field->type) != PB_ATYPE_POINTER)
    return false;
  if (is_number && type == PB_WT_STRING)
    return packed_read(reader, field);
  if (type != (is_number ? number_wire_type(field) : PB_WT_STRING))
    return false;
  size_t count = *(pb_size_t *)field->pSize;
  char *items = *(char **)field->pField;
  bool is_full = items == NULL || ((struct array_head *)(void *)items)[-1].capacity == count;
  void *item = array_room(reader, field, is_number ? 8 : is_full ? run_count(*reader, key) + 1 : 1);
  if (item == NULL)
    return false;
  ++*(pb_size_t *)field->pSize;
  switch (PB_LTYPE(field->type)) {
  case PB_LTYPE_STRING:
    return text_read(reader, item);
  case PB_LTYPE_BYTES:
    return bytes_read(reader, item);
  case PB_LTYPE_SUBMESSAGE:
    return submessage_read(reader, field, item);
  default:
    return number_read(reader, field, item);
  }
}

/* ---- fields ---- */

static bool field_read(struct reader *reader, const pb_field_iter_t *field, uint32_t key) {
  pb_wire_type_t type = key & 7;
  if (PB_HTYPE(field->type) == PB_HTYPE_REPEATED)
    return repeated_read(reader, field, key);
  if (PB_HTYPE(field->type) != PB_HTYPE_SINGULAR && PB_HTYPE(field->type) != PB_HTYPE_ONEOF)
    return false;
  if (PB_ATYPE(field->type) == PB_ATYPE_POINTER)
    return type == PB_WT_STRING && pointer_read(reader, field);
  if (PB_ATYPE(field->type) != PB_ATYPE_STATIC || type != number_wire_type(field))
    return false;
  if (PB_HTYPE(field->type) == PB_HTYPE_ONEOF)
    *(pb_size_t *)field->pSize = field->tag;
  else if (field->pSize != NULL)
    *(bool *)field->pSize = true; /* `optional`: it was said */
  return number_read(reader, field, field->pData);
}

static bool fields_read(struct reader *reader, const pb_msgdesc_t *fields, void *target) {
  pb_field_iter_t field;
  uint32_t key;
  bool has_fields = pb_field_iter_begin(&field, fields, target);
  while (reader->at < reader->end) {
    if (!varint32_read(reader, &key) || key >> 3 == 0)
      return false;
    bool ok = has_fields && pb_field_iter_find(&field, key >> 3) ? field_read(reader, &field, key)
                                                                 : value_skip(reader, key & 7);
    if (!ok)
      return false;
  }
  return true;
}

bool rpc_message_decode(const uint8_t *message, size_t length, const pb_msgdesc_t *fields, void *target,
                        struct arena *arena, struct error *err) {
  struct reader reader = {.at = message, .end = message + length, .arena = arena, .text_bytes = length};
  if (!fields_read(&reader, fields, target))
    return error_set(err, ERR_RPC_MESSAGE_MALFORMED, NULL);
  return true;
}
