/* arguments_fuzz.c: libFuzzer target: a schema, a NUL, arguments. Nothing may crash, leak or take long. */
#include <string.h>

#include "core/catalog/schema_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const char *text = (const char *)data;
  const char *split = size ? memchr(text, '\0', size) : NULL;
  size_t length = split ? (size_t)(split - text) : size;
  struct catalog_schema *schema = catalog_schema_compile(text, length, NULL);
  if (schema && split)
    catalog_schema_check(schema, split + 1, size - length - 1, NULL);
  catalog_schema_free(&schema);
  return 0;
}
