/* message.c: nanopb messages made into frames, straight in the stream's send buffer. */
#include <pb_encode.h>

#include "sdk/rpc/rpc_internal.h"

#define FIRST_TRY_BYTES 1024 /* most messages fit: one pass instead of two */

/* A message that rpc_message_append() does not know every field of. */
static bool append_by_nanopb(struct buf *target, const pb_msgdesc_t *fields, const void *message) {
  size_t room = FIRST_TRY_BYTES;
  for (int attempt = 0; attempt < 2; attempt++) {
    uint8_t *out = (uint8_t *)buf_reserve(target, RPC_PREFIX_BYTES + room);
    pb_ostream_t stream = pb_ostream_from_buffer(out + RPC_PREFIX_BYTES, room);
    if (pb_encode(&stream, fields, message)) {
      rpc_frame_prefix(out, stream.bytes_written);
      target->length += RPC_PREFIX_BYTES + stream.bytes_written;
      return true;
    }
    if (!pb_get_encoded_size(&room, fields, message))
      return false;
  }
  return false;
}

bool rpc_frame_append_message(struct buf *target, const pb_msgdesc_t *fields, const void *message) {
  size_t before = target->length;
  buf_reserve(target, RPC_PREFIX_BYTES);
  target->length += RPC_PREFIX_BYTES;
  if (rpc_message_append(target, fields, message)) {
    rpc_frame_prefix((uint8_t *)target->data + before, target->length - before - RPC_PREFIX_BYTES);
    return true;
  }
  target->length = before;
  return append_by_nanopb(target, fields, message);
}
