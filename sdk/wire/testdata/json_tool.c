/* json_tool.c: wire_json behind stdin and stdout, for the comparison with Python's json_format. A request is one byte
 * ('e': wire form to JSON, 'd': JSON to wire form), a 32-bit length in host order, and the input, of
 * wire.test.v1.Everything. The answer is one byte ('k', or 'x' with the error's code) and the output in the same form.
 * Ends at end of input. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sdk/base/alloc.h"
#include "sdk/wire/wire_json.h"
#include "wire/pbc/wire_test.pb-c.h"

static bool answer(char operation, const char *input, uint32_t length, struct buf *out, struct error *err) {
  const ProtobufCMessageDescriptor *type = &wire__test__v1__everything__descriptor;
  ProtobufCMessage *message = NULL;
  bool ok;
  if (operation == 'e') {
    message = protobuf_c_message_unpack(type, NULL, length, (const uint8_t *)input);
    ok = message ? wire_json_encode(message, out, err) : error_set(err, ERR_RPC_MESSAGE_MALFORMED, NULL);
  } else {
    ok = wire_json_decode(type, input, length, &message, err);
    if (ok) {
      size_t size = protobuf_c_message_get_packed_size(message);
      out->length += protobuf_c_message_pack(message, (uint8_t *)buf_reserve(out, size));
    }
  }
  protobuf_c_message_free_unpacked(message, NULL);
  return ok;
}

int main(void) {
  int operation;
  while ((operation = getchar()) != EOF) {
    uint32_t length;
    if (fread(&length, sizeof length, 1, stdin) != 1)
      return EXIT_FAILURE;
    char *input = base_alloc(length);
    if (fread(input, 1, length, stdin) != length)
      return EXIT_FAILURE;
    struct buf out = {0};
    struct error err;
    error_clear(&err);
    bool ok = answer((char)operation, input, length, &out, &err);
    const char *data = ok ? out.data : err.code;
    uint32_t size = (uint32_t)(ok ? out.length : strlen(err.code));
    putchar(ok ? 'k' : 'x');
    fwrite(&size, sizeof size, 1, stdout);
    if (size)
      fwrite(data, 1, size, stdout);
    fflush(stdout);
    buf_free(&out);
    base_free(input);
  }
  return EXIT_SUCCESS;
}
