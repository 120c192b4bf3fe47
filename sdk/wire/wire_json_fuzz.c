/* wire_json_fuzz.c: fuzz target of wire_json.h: the first byte chooses a method of proto/, the rest is its request as
 * JSON. What was read can be written, and reads again to the same JSON. */
#include <string.h>

#include "sdk/base/check.h"
#include "sdk/wire/wire_json.h"
#include "sdk/wire/wire_registry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  size_t count;
  const struct wire_method *methods = wire_methods(&count);
  ProtobufCMessage *message = NULL, *again = NULL;
  struct buf first = {0}, second = {0};
  struct error err;
  if (size == 0)
    return 0;
  const ProtobufCMessageDescriptor *descriptor = methods[data[0] % count].input;
  if (!wire_json_decode(descriptor, (const char *)data + 1, size - 1, &message, &err))
    return 0;
  if (wire_json_encode(message, &first, &err)) {
    BASE_CHECK(wire_json_decode(descriptor, first.data, first.length, &again, &err));
    BASE_CHECK(wire_json_encode(again, &second, &err));
    BASE_CHECK(first.length == second.length && memcmp(first.data, second.data, first.length) == 0);
    protobuf_c_message_free_unpacked(again, NULL);
  }
  protobuf_c_message_free_unpacked(message, NULL);
  buf_free(&first);
  buf_free(&second);
  return 0;
}
