/* encode.c: nanopb messages written in one walk. nanopb's own encoder sizes each submessage before it writes it, so
 * that what lies n levels deep is walked n + 1 times; here a submessage is written first and its length put before it.
 *
 * The bytes are those of pb_encode(). Only the kinds of fields are known that our messages are made of; a message with
 * any other is left to pb_encode() as a whole. */
#include <endian.h>
#include <pb_common.h>

#include "sdk/rpc/rpc_internal.h"

#define VARINT_BYTES_MAX 10
#define TAG_BYTES_MAX 5

static bool fields_append(struct buf *target, const pb_msgdesc_t *fields, const void *message);

static uint8_t *varint_put(uint8_t *out, uint64_t value) {
  for (; value >= 0x80; value >>= 7)
    *out++ = (uint8_t)(value | 0x80);
  *out++ = (uint8_t)value;
  return out;
}

/* Room for a tag, a varint and `more`; the tag is written. */
static uint8_t *tag_put(struct buf *target, const pb_field_iter_t *field, pb_wire_type_t type, size_t more) {
  uint8_t *out = (uint8_t *)buf_reserve(target, TAG_BYTES_MAX + VARINT_BYTES_MAX + more);
  return varint_put(out, (uint64_t)field->tag << 3 | type);
}

static void put_end(struct buf *target, const uint8_t *end) {
  target->length = (size_t)(end - (const uint8_t *)target->data);
}

static void bytes_append(struct buf *target, const pb_field_iter_t *field, const void *data, size_t length) {
  uint8_t *out = varint_put(tag_put(target, field, PB_WT_STRING, length), length);
  if (length > 0)
    memcpy(out, data, length);
  put_end(target, out + length);
}

static bool submessage_append(struct buf *target, const pb_field_iter_t *field, const void *message) {
  uint8_t length_bytes[VARINT_BYTES_MAX];
  put_end(target, tag_put(target, field, PB_WT_STRING, 0) + 1); /* most lengths take one byte */
  size_t start = target->length;
  if (!fields_append(target, field->submsg_desc, message))
    return false;
  size_t length = target->length - start;
  size_t more = (size_t)(varint_put(length_bytes, length) - length_bytes) - 1;
  if (more > 0) {
    buf_reserve(target, more);
    memmove(target->data + start + more, target->data + start, length);
    target->length += more;
  }
  memcpy(target->data + start - 1, length_bytes, more + 1);
  return true;
}

/* False: not one of the integers we know. */
static bool integer_read(const pb_field_iter_t *field, uint64_t *value) {
  if (PB_LTYPE(field->type) == PB_LTYPE_BOOL) {
    *value = *(const bool *)field->pData;
    return true;
  }
  bool is_signed = PB_LTYPE(field->type) == PB_LTYPE_VARINT;
  if (!is_signed && PB_LTYPE(field->type) != PB_LTYPE_UVARINT)
    return false;
  if (field->data_size == sizeof(uint64_t)) {
    memcpy(value, field->pData, sizeof(uint64_t));
    return true;
  }
  uint32_t small;
  if (field->data_size != sizeof(small))
    return false;
  memcpy(&small, field->pData, sizeof(small));
  *value = is_signed ? (uint64_t)(int64_t)(int32_t)small : small;
  return true;
}

static void double_append(struct buf *target, const pb_field_iter_t *field) {
  uint64_t bits;
  memcpy(&bits, field->pData, sizeof(bits));
  if (bits == 0)
    return;
  bits = htole64(bits);
  uint8_t *out = tag_put(target, field, PB_WT_64BIT, sizeof(bits));
  memcpy(out, &bits, sizeof(bits));
  put_end(target, out + sizeof(bits));
}

static bool number_append(struct buf *target, const pb_field_iter_t *field) {
  uint64_t value;
  if (PB_ATYPE(field->type) != PB_ATYPE_STATIC || PB_HTYPE(field->type) != PB_HTYPE_SINGULAR || field->pSize != NULL)
    return false;
  if (PB_LTYPE(field->type) == PB_LTYPE_FIXED64) {
    double_append(target, field);
    return true;
  }
  if (!integer_read(field, &value))
    return false;
  if (value != 0)
    put_end(target, varint_put(tag_put(target, field, PB_WT_VARINT, 0), value));
  return true;
}

/* An element of a repeated field, or the one value of another. */
static bool item_append(struct buf *target, const pb_field_iter_t *field, const void *item) {
  switch (PB_LTYPE(field->type)) {
  case PB_LTYPE_STRING:
    bytes_append(target, field, item, item != NULL ? strlen(item) : 0);
    return true;
  case PB_LTYPE_BYTES: {
    const pb_bytes_array_t *bytes = item;
    bytes_append(target, field, bytes != NULL ? bytes->bytes : NULL, bytes != NULL ? bytes->size : 0);
    return true;
  }
  case PB_LTYPE_SUBMESSAGE:
    return submessage_append(target, field, item);
  default:
    return false;
  }
}

static bool repeated_append(struct buf *target, const pb_field_iter_t *field) {
  size_t count = *(const pb_size_t *)field->pSize;
  bool by_pointer = PB_LTYPE(field->type) != PB_LTYPE_SUBMESSAGE; /* the elements are pointers themselves */
  const char *item = field->pData;
  if (PB_ATYPE(field->type) != PB_ATYPE_POINTER || PB_LTYPE(field->type) <= PB_LTYPE_LAST_PACKABLE)
    return count == 0 || field->pData == NULL;
  for (size_t i = 0; item != NULL && i < count; i++, item += field->data_size)
    if (!item_append(target, field, by_pointer ? *(const void *const *)(const void *)item : item))
      return false;
  return true;
}

static bool field_append(struct buf *target, const pb_field_iter_t *field) {
  bool is_message = PB_LTYPE(field->type) == PB_LTYPE_SUBMESSAGE;
  switch (PB_HTYPE(field->type)) {
  case PB_HTYPE_REPEATED:
    return repeated_append(target, field);
  case PB_HTYPE_ONEOF:
    if (*(const pb_size_t *)field->pSize != field->tag)
      return true;
    break;
  case PB_HTYPE_SINGULAR: /* optional as well */
    break;
  default:
    return false;
  }
  if (PB_ATYPE(field->type) != PB_ATYPE_POINTER && !(is_message && PB_HTYPE(field->type) == PB_HTYPE_ONEOF))
    return number_append(target, field);
  return field->pData == NULL || item_append(target, field, field->pData);
}

static bool fields_append(struct buf *target, const pb_msgdesc_t *fields, const void *message) {
  pb_field_iter_t field;
  if (fields->default_value != NULL)
    return false; /* proto2: what is zero may have to be said */
  if (!pb_field_iter_begin_const(&field, fields, message))
    return true; /* a message without fields */
  do {
    if (!field_append(target, &field))
      return false;
  } while (pb_field_iter_next(&field));
  return true;
}

bool rpc_message_append(struct buf *target, const pb_msgdesc_t *fields, const void *message) {
  size_t before = target->length;
  if (fields_append(target, fields, message))
    return true;
  target->length = before;
  return false;
}
