/* ctl_yaml_fuzz.c: fuzz target for the YAML of documents: whatever is read is JSON, and written as YAML it reads as the
 * same again. */
#include <string.h>

#include "sdk/base/check.h"
#include "sdk/base/json.h"
#include "supervisor/ctl/ctl_internal.h"

#define ROUND_TRIP_BYTES_MAX 65536 /* aliases expand: beyond this a round trip only costs time */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void round_trip(const struct ctl_document *document) {
  struct ctl_documents again = {0};
  struct buf first = {0}, second = {0};
  struct error err = {0};
  ctl_yaml_write(document->json, document->length, &first);
  BASE_CHECK(ctl_yaml_read("again", first.data, first.length, &again, &err) && again.count == 1);
  ctl_yaml_write(again.items[0].json, again.items[0].length, &second);
  BASE_CHECK(first.length == second.length && memcmp(first.data, second.data, first.length) == 0);
  ctl_documents_free(&again);
  buf_free(&first);
  buf_free(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct ctl_documents documents = {0};
  struct error err = {0};
  char *text = base_memdup(data, size);
  bool ok = ctl_yaml_read("fuzz", text, size, &documents, &err);
  BASE_CHECK(ok == !error_is_set(&err));
  for (size_t i = 0; i < documents.count; i++) {
    const struct ctl_document *document = &documents.items[i];
    BASE_CHECK(json_check(document->json, document->length, CTL_YAML_DEPTH_MAX + 1, NULL));
    if (document->length <= ROUND_TRIP_BYTES_MAX)
      round_trip(document);
  }
  ctl_documents_free(&documents);
  base_free(text);
  return 0;
}
