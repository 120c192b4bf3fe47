/* config_diff.c: what differs between two configurations, by the table of keys (config_keys.def). */
#include <stdlib.h>
#include <string.h>

#include "sdk/base/str.h"
#include "sdk/config/config.h"

static bool list_equal(const struct config_list *a, const struct config_list *b) {
  bool equal = a->count == b->count;
  for (size_t i = 0; equal && i < a->count; i++)
    equal = str_equal(a->items[i], b->items[i]);
  return equal;
}

/* Keys are unique, and their order means nothing. */
static bool map_equal(const struct config_map *a, const struct config_map *b) {
  size_t same = 0;
  for (size_t i = 0; i < a->count; i++)
    for (size_t j = 0; j < b->count; j++)
      same += str_equal(a->items[i].key, b->items[j].key) && str_equal(a->items[i].value, b->items[j].value);
  return a->count == b->count && same == a->count;
}

/* Equality of one field of `a` and `b` by its kind. Lists of elements have functions of their own. */
#define EQUAL_TEXT(field) str_equal(a->field, b->field)
#define EQUAL_INT(field) (a->field == b->field)
#define EQUAL_BOOL(field) (a->field == b->field)
#define EQUAL_CHOICE(field) (a->field == b->field)
#define EQUAL_LIST(field) list_equal(&a->field, &b->field)
#define EQUAL_MAP(field) map_equal(&a->field, &b->field)
#define EQUAL_JSON(field) str_equal(a->field, b->field)
#define EQUAL_LISTENERS(field) true
#define EQUAL_MODULES(field) true
#define IF_DIFFERENT(kind, field, path, ...)                                                                           \
  if (!(EQUAL_##kind(field)) && !str_equal(path, except))                                                              \
    return path;

const char *config_root_difference(const struct config *a, const struct config *b, const char *except) {
  CONFIG_ROOT_KEYS(IF_DIFFERENT)
  return NULL;
}

const char *config_listener_difference(const struct config_listener *a, const struct config_listener *b) {
  const char *except = NULL;
  CONFIG_LISTENER_KEYS(IF_DIFFERENT)
  return NULL;
}

const char *config_module_difference(const struct config_module *a, const struct config_module *b, const char *except) {
  CONFIG_MODULE_KEYS(IF_DIFFERENT)
  return NULL;
}
