/* spi_request_fuzz.c: fuzz target of every request that the core unpacks: the first byte chooses a method of proto/,
 * the rest is its request in binary form. What was unpacked can be packed, and written as JSON or refused for an
 * unknown Any. */
#include "core/rpc/core_rpc_pbc.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/wire/wire_json.h"
#include "sdk/wire/wire_registry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  size_t count;
  const struct wire_method *methods = wire_methods(&count);
  struct buf json = {0};
  struct error err;
  if (size == 0)
    return 0;
  struct arena *arena = arena_create(0);
  ProtobufCMessage *message = core_rpc_unpack(methods[data[0] % count].input, arena, data + 1, size - 1);
  if (message != NULL) {
    size_t length = protobuf_c_message_get_packed_size(message);
    uint8_t *packed = base_alloc(length + 1);
    BASE_CHECK(protobuf_c_message_pack(message, packed) == length);
    base_free(packed);
    (void)wire_json_encode(message, &json, &err);
  }
  buf_free(&json);
  arena_free(&arena);
  return 0;
}
