/* pbc.c: protobuf-c messages in and out of calls. Packing goes straight into gRPC's memory.
 *
 * protobuf-c unpacks nested messages by recursion without a bound, so a message long enough to matter is first walked
 * along its descriptor and refused when it nests too deep. */
#include "core/rpc/core_rpc_pbc.h"

#include "core/rpc/core_rpc_internal.h"
#include "core/rpc/protobuf.h"
#include "sdk/base/check.h"

enum {
  NESTING_MAX = 64,
  NESTING_CHECK_BYTES = 2 * NESTING_MAX, /* a level takes two bytes at least */
  UNPACKED_MAX_BYTES = 64 << 20,
};

static void *arena_allocate(void *arena, size_t size) {
  return arena_size_bytes(arena) > UNPACKED_MAX_BYTES || size > UNPACKED_MAX_BYTES ? NULL : arena_alloc(arena, size);
}

static void arena_ignore(void *arena, void *memory) {
  (void)arena;
  (void)memory;
}

static bool nesting_is_fine(const ProtobufCMessageDescriptor *descriptor, const uint8_t *data, size_t length,
                            unsigned levels_left) {
  if (levels_left == 0)
    return false;
  struct protobuf_reader reader = {.data = data, .length = length};
  struct protobuf_field field;
  while (protobuf_next(&reader, &field)) {
    if (!field.is_bytes || field.length < 2 * ((size_t)levels_left - 1)) /* too short to nest too deep */
      continue;
    const ProtobufCFieldDescriptor *known = protobuf_c_message_descriptor_get_field(descriptor, field.number);
    if (known != NULL && known->type == PROTOBUF_C_TYPE_MESSAGE &&
        !nesting_is_fine(known->descriptor, field.data, field.length, levels_left - 1))
      return false;
  }
  return !reader.malformed;
}

ProtobufCMessage *core_rpc_unpack(const ProtobufCMessageDescriptor *descriptor, struct arena *arena,
                                  const uint8_t *data, size_t length) {
  if (length >= NESTING_CHECK_BYTES && !nesting_is_fine(descriptor, data, length, NESTING_MAX))
    return NULL;
  ProtobufCAllocator allocator = {.alloc = arena_allocate, .free = arena_ignore, .allocator_data = arena};
  return protobuf_c_message_unpack(descriptor, &allocator, length, data);
}

ProtobufCMessage *core_rpc_call_unpack(struct core_rpc_call *call, const ProtobufCMessageDescriptor *descriptor,
                                       struct arena *arena) {
  size_t length;
  const uint8_t *data = core_rpc_call_request(call, &length);
  ProtobufCMessage *message = core_rpc_unpack(descriptor, arena, data, length);
  if (message == NULL)
    core_rpc_call_fail_code(call, ERR_RPC_MESSAGE_MALFORMED);
  return message;
}

static grpc_byte_buffer *message_pack(const ProtobufCMessage *message) {
  size_t length = protobuf_c_message_get_packed_size(message);
  uint8_t *data;
  grpc_byte_buffer *buffer = message_reserve(length, &data);
  size_t packed = protobuf_c_message_pack(message, data);
  BASE_CHECK(packed == length);
  return buffer;
}

void core_rpc_call_reply_message(struct core_rpc_call *call, const ProtobufCMessage *message) {
  call_reply_buffer(call, message_pack(message));
}

bool core_rpc_call_send_message(struct core_rpc_call *call, const ProtobufCMessage *message) {
  return call_send_buffer(call, message_pack(message));
}

struct core_rpc_client_call *core_rpc_client_start_message(struct core_rpc_channel *channel,
                                                           const struct core_rpc_request *request,
                                                           const ProtobufCMessage *message) {
  return client_call_start(channel, request, request->kind == CORE_RPC_BIDI ? NULL : message_pack(message));
}

bool core_rpc_client_send_message(struct core_rpc_client_call *call, const ProtobufCMessage *message) {
  return client_call_send_buffer(call, message_pack(message));
}
