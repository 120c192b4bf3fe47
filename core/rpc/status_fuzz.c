/* status_fuzz.c: fuzz target of grpc-status-details-bin and of the room's protobuf reader: the first byte is the
 * status, the rest the details of a peer. Whatever comes is an error with category and code, which survives being sent
 * on. */
#include <string.h>

#include "core/rpc/core_rpc_internal.h"
#include "core/rpc/protobuf.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct error err = {0}, again = {0};
  struct protobuf_field field;
  size_t length;
  if (size == 0)
    return 0;
  int number = data[0];
  status_decode(number, data + 1, size - 1, &err);
  if (number != 0) {
    BASE_CHECK(err.category != ERROR_CATEGORY_NONE && err.code[0] != '\0');
    uint8_t *details = status_encode(number, &err, &length);
    status_decode(number, details, length, &again);
    BASE_CHECK(again.category == err.category && strcmp(again.code, err.code) == 0);
    base_free(details);
  }
  if (protobuf_find_bytes(data, size, 3, &field) && field.length > 0)
    BASE_CHECK(field.data >= data && field.data + field.length <= data + size);
  return 0;
}
