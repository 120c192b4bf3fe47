/* item_fuzz.c: fuzz target of the reader of InvokeItem: where protobuf-c accepts the bytes too, both see the same
 * member. */
#include "core/common/v1/common.pb-c.h"
#include "core/dispatch/dispatch_internal.h"
#include "sdk/base/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct dispatch_item item = dispatch_item_read(data, size);
  Core__Common__V1__InvokeItem *whole = core__common__v1__invoke_item__unpack(NULL, size, data);
  if (whole == NULL)
    return 0;
  BASE_CHECK((int)item.kind == (int)whole->item_case);
  core__common__v1__invoke_item__free_unpacked(whole, NULL);
  return 0;
}
