/* wire_registry.c: binary search in the generated tables. */
#include "sdk/wire/wire_registry.h"

#include <stdlib.h>
#include <string.h>

struct message_row {
  const char *name;
  const ProtobufCMessageDescriptor *descriptor;
};

#include "wire/registry_table.inc"

static int compare_method(const void *key, const void *row) {
  return strcmp(key, ((const struct wire_method *)row)->path);
}

static int compare_message(const void *key, const void *row) {
  return strcmp(key, ((const struct message_row *)row)->name);
}

const struct wire_method *wire_methods(size_t *count) {
  *count = sizeof METHODS / sizeof METHODS[0];
  return METHODS;
}

const struct wire_method *wire_method_find(const char *path) {
  return bsearch(path, METHODS, sizeof METHODS / sizeof METHODS[0], sizeof METHODS[0], compare_method);
}

const ProtobufCMessageDescriptor *wire_message_find(const char *full_name) {
  const struct message_row *row =
      bsearch(full_name, MESSAGES, sizeof MESSAGES / sizeof MESSAGES[0], sizeof MESSAGES[0], compare_message);
  return row ? row->descriptor : NULL;
}
