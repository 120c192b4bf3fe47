/* wire.c: nanopb with our errors, buffers and ownership. nanopb frees with free(); base_alloc is malloc, so they mix.
 */
#include "sdk/wire/wire.h"

#include <pb_decode.h>
#include <pb_encode.h>
#include <string.h>

bool wire_encode(const pb_msgdesc_t *fields, const void *message, struct buf *out, struct error *err) {
  size_t size;
  if (!pb_get_encoded_size(&size, fields, message))
    return error_set(err, ERR_INTERNAL, "A message could not be encoded.");
  char *target = buf_reserve(out, size);
  pb_ostream_t stream = pb_ostream_from_buffer((pb_byte_t *)target, size);
  bool ok = pb_encode(&stream, fields, message);
  target[ok ? stream.bytes_written : 0] = 0;
  if (!ok)
    return error_set(err, ERR_INTERNAL, "A message could not be encoded.");
  out->length += stream.bytes_written;
  return true;
}

bool wire_decode(const pb_msgdesc_t *fields, void *message, const void *data, size_t length, struct error *err) {
  pb_istream_t stream = pb_istream_from_buffer(length ? data : (const void *)"", length);
  if (!pb_decode(&stream, fields, message))
    return error_set(err, ERR_RPC_MESSAGE_MALFORMED, NULL);
  return true;
}

void wire_release(const pb_msgdesc_t *fields, void *message) {
  pb_release(fields, message);
}

char *wire_string(const char *text) {
  return text ? base_strdup(text) : NULL;
}

char *wire_string_n(const char *text, size_t length) {
  return text ? base_strndup(text, length) : NULL;
}

pb_bytes_array_t *wire_bytes(const void *data, size_t length) {
  if (length > WIRE_BYTES_MAX)
    return NULL;
  pb_bytes_array_t *bytes = base_alloc(PB_BYTES_ARRAY_T_ALLOCSIZE(length));
  bytes->size = (pb_size_t)length;
  if (length)
    memcpy(bytes->bytes, data, length);
  return bytes;
}

void *wire_array_add(void **array, pb_size_t *count, size_t item_bytes) {
  if (*count == PB_SIZE_MAX)
    return NULL;
  *array = base_realloc_array(*array, (size_t)*count + 1, item_bytes);
  char *item = (char *)*array + *count * item_bytes;
  (*count)++;
  return memset(item, 0, item_bytes);
}

extern const unsigned char wire_descriptor_set_data[];
extern const size_t wire_descriptor_set_data_length;

const unsigned char *wire_descriptor_set(size_t *length) {
  *length = wire_descriptor_set_data_length;
  return wire_descriptor_set_data;
}
