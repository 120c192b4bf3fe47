/* core_rpc_pbc.h: core_rpc with protobuf-c messages. Decoded messages live in the caller's arena and are freed with it.
 *
 * Decoding is bounded: nesting to 64 levels and the memory of one message to 64 MiB (protobuf-c itself bounds neither).
 */
#ifndef GATEHOUSE_CORE_RPC_PBC_H
#define GATEHOUSE_CORE_RPC_PBC_H

#include <protobuf-c/protobuf-c.h>

#include "core/rpc/core_rpc.h"
#include "sdk/base/arena.h"

/* NULL: malformed, or beyond the bounds. The result may be cast to the generated type. */
ProtobufCMessage *core_rpc_unpack(const ProtobufCMessageDescriptor *descriptor, struct arena *arena,
                                  const uint8_t *data, size_t length);

/* The request of a unary or server-stream call. NULL: the call was ended with rpc.message.malformed. */
ProtobufCMessage *core_rpc_call_unpack(struct core_rpc_call *call, const ProtobufCMessageDescriptor *descriptor,
                                       struct arena *arena);

/* core_rpc_call_reply, core_rpc_call_send, core_rpc_client_start, core_rpc_client_send of a message. */
void core_rpc_call_reply_message(struct core_rpc_call *call, const ProtobufCMessage *message);
bool core_rpc_call_send_message(struct core_rpc_call *call, const ProtobufCMessage *message);
struct core_rpc_client_call *core_rpc_client_start_message(struct core_rpc_channel *channel,
                                                           const struct core_rpc_request *request,
                                                           const ProtobufCMessage *message);
bool core_rpc_client_send_message(struct core_rpc_client_call *call, const ProtobufCMessage *message);

#endif
