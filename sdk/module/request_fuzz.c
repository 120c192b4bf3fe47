/* request_fuzz.c: libFuzzer target for the reader of messages, with the largest one that a module is sent: what
 * nanopb's decoder accepts, the one walk accepts, and both find the same in it. */
#include <pb_encode.h>
#include <string.h>

#include "sdk/base/check.h"
#include "sdk/rpc/rpc.h"
#include "sdk/wire/wire.h"
#include "wire/nano/core/module/v1/module.pb.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  core_module_v1_InvokeRequest request = {0}, other = {0};
  struct buf one = {0}, two = {0};
  struct arena *arena = arena_create(0);
  bool accepted = wire_decode(core_module_v1_InvokeRequest_fields, &other, data, size, NULL);
  BASE_CHECK(rpc_message_decode(data, size, core_module_v1_InvokeRequest_fields, &request, arena, NULL) == accepted);
  if (accepted) {
    BASE_CHECK(wire_encode(core_module_v1_InvokeRequest_fields, &request, &one, NULL));
    BASE_CHECK(wire_encode(core_module_v1_InvokeRequest_fields, &other, &two, NULL));
    BASE_CHECK(one.length == two.length && (one.length == 0 || memcmp(one.data, two.data, one.length) == 0));
    wire_release(core_module_v1_InvokeRequest_fields, &other);
  }
  buf_free(&one);
  buf_free(&two);
  arena_free(&arena);
  return 0;
}
