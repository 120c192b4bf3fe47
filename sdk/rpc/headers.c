/* headers.c: a list of headers in one buffer: {name length, value length, name NUL, value NUL}… . A list is bounded by
 * who fills it (metadata_bytes_max); a look-up walks it, which beats a map at the dozen headers a call has. */
#include "sdk/rpc/rpc_internal.h"

struct header_record {
  uint32_t name_length, value_length;
};

void rpc_headers_add(struct rpc_headers *headers, const char *name, size_t name_length, const char *value,
                     size_t value_length) {
  struct header_record record = {(uint32_t)name_length, (uint32_t)value_length};
  char *target = buf_reserve(&headers->bytes, sizeof(record) + name_length + value_length + 2);
  memcpy(target, &record, sizeof(record));
  target += sizeof(record);
  memcpy(target, name, name_length);
  target[name_length] = '\0';
  target += name_length + 1;
  if (value_length > 0)
    memcpy(target, value, value_length);
  target[value_length] = '\0';
  headers->bytes.length += sizeof(record) + name_length + value_length + 2;
  headers->count++;
}

bool rpc_headers_add_received(struct rpc_headers *headers, const char *name, size_t name_length, const char *value,
                              size_t value_length) {
  if (!rpc_metadata_name_is_binary(name, name_length)) {
    rpc_headers_add(headers, name, name_length, value, value_length);
    return true;
  }
  struct buf decoded = {0};
  bool ok = rpc_base64_decode(&decoded, value, value_length);
  if (ok)
    rpc_headers_add(headers, name, name_length, decoded.data, decoded.length);
  buf_free(&decoded);
  return ok;
}

bool rpc_headers_add_metadata(struct rpc_headers *headers, const struct rpc_metadata *metadata) {
  size_t name_length = metadata->name != NULL ? strlen(metadata->name) : 0;
  if (!rpc_metadata_name_is_valid(metadata->name, name_length) || (metadata->value == NULL && metadata->length > 0))
    return false;
  if (rpc_metadata_name_is_binary(metadata->name, name_length)) {
    struct buf encoded = {0};
    rpc_base64_encode(&encoded, (const uint8_t *)metadata->value, metadata->length);
    rpc_headers_add(headers, metadata->name, name_length, encoded.data, encoded.length);
    buf_free(&encoded);
    return true;
  }
  if (!rpc_metadata_value_is_valid(metadata->value, metadata->length))
    return false;
  rpc_headers_add(headers, metadata->name, name_length, metadata->value, metadata->length);
  return true;
}

bool rpc_headers_next(const struct rpc_headers *headers, struct rpc_headers_cursor *cursor) {
  if (cursor->offset >= headers->bytes.length)
    return false;
  struct header_record record;
  memcpy(&record, headers->bytes.data + cursor->offset, sizeof(record));
  cursor->name = headers->bytes.data + cursor->offset + sizeof(record);
  cursor->name_length = record.name_length;
  cursor->value = cursor->name + record.name_length + 1;
  cursor->value_length = record.value_length;
  cursor->offset += sizeof(record) + record.name_length + record.value_length + 2;
  return true;
}

const char *rpc_headers_get(const struct rpc_headers *headers, const char *name, size_t *length) {
  size_t name_length = strlen(name);
  struct rpc_headers_cursor cursor = {0};
  while (rpc_headers_next(headers, &cursor))
    if (cursor.name_length == name_length && memcmp(cursor.name, name, name_length) == 0) {
      if (length != NULL)
        *length = cursor.value_length;
      return cursor.value;
    }
  return NULL;
}

void rpc_headers_clear(struct rpc_headers *headers) {
  if (headers->bytes.capacity > RPC_POOL_BUFFER_BYTES)
    buf_free(&headers->bytes);
  else
    buf_clear(&headers->bytes);
  headers->count = 0;
}

void rpc_headers_free(struct rpc_headers *headers) {
  buf_free(&headers->bytes);
  headers->count = 0;
}
