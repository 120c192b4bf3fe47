/* frame.c: the length-prefixed message of gRPC: flag byte (1: compressed, which we refuse), four bytes length, message.
 */
#include "sdk/rpc/rpc_internal.h"

enum rpc_frame_result rpc_frame_parse(const uint8_t *data, size_t length, size_t message_bytes_max,
                                      size_t *message_length) {
  if (length == 0)
    return RPC_FRAME_PARTIAL;
  if (data[0] > 1)
    return RPC_FRAME_MALFORMED;
  if (data[0] == 1)
    return RPC_FRAME_COMPRESSED;
  if (length < RPC_PREFIX_BYTES)
    return RPC_FRAME_PARTIAL;
  size_t claimed = (size_t)data[1] << 24 | (size_t)data[2] << 16 | (size_t)data[3] << 8 | data[4];
  if (claimed > message_bytes_max)
    return RPC_FRAME_TOO_LARGE;
  *message_length = claimed;
  return length - RPC_PREFIX_BYTES >= claimed ? RPC_FRAME_COMPLETE : RPC_FRAME_PARTIAL;
}

void rpc_frame_error(enum rpc_frame_result result, struct rpc_status *status) {
  switch (result) {
  case RPC_FRAME_COMPRESSED:
    rpc_status_set(status, RPC_UNIMPLEMENTED, ERR_RPC_COMPRESSION_UNSUPPORTED, NULL);
    break;
  case RPC_FRAME_TOO_LARGE:
    rpc_status_set(status, RPC_RESOURCE_EXHAUSTED, ERR_RPC_MESSAGE_TOO_LARGE, NULL);
    break;
  case RPC_FRAME_MALFORMED:
    rpc_status_set(status, RPC_INTERNAL, ERR_RPC_PROTOCOL, "The message framing is broken.");
    break;
  case RPC_FRAME_COMPLETE:
  case RPC_FRAME_PARTIAL:
    base_panic(__FILE__, __LINE__, "rpc_frame_error: no error");
  }
}

void rpc_frame_prefix(uint8_t target[static RPC_PREFIX_BYTES], size_t length) {
  BASE_CHECK(length <= UINT32_MAX);
  target[0] = 0;
  target[1] = (uint8_t)(length >> 24);
  target[2] = (uint8_t)(length >> 16);
  target[3] = (uint8_t)(length >> 8);
  target[4] = (uint8_t)length;
}

void rpc_frame_append(struct buf *target, const uint8_t *message, size_t length) {
  uint8_t *out = (uint8_t *)buf_reserve(target, RPC_PREFIX_BYTES + length);
  rpc_frame_prefix(out, length);
  if (length > 0)
    memcpy(out + RPC_PREFIX_BYTES, message, length);
  target->length += RPC_PREFIX_BYTES + length;
}
