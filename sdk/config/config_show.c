/* config_show.c: an effective configuration as JSON, in the order of the table; groups of keys become objects. The keys
 * of a group stand together in the table (a test says so). */
#include <string.h>

#include "sdk/config/config_internal.h"

static void write_scope(const struct config_scope *scope, const void *base, struct buf *target);

static void write_text(const char *text, struct buf *target) {
  buf_append_json_string(target, text, strlen(text));
}

static void write_choice(const char *choices, unsigned index, struct buf *target) {
  for (; index > 0; index--)
    choices += strcspn(choices, "|") + 1;
  buf_append_json_string(target, choices, strcspn(choices, "|"));
}

static void write_list(const struct config_list *list, struct buf *target) {
  buf_append_char(target, '[');
  for (size_t i = 0; i < list->count; i++) {
    buf_append_text(target, i ? "," : "");
    write_text(list->items[i], target);
  }
  buf_append_char(target, ']');
}

static void write_map(const struct config_map *map, struct buf *target) {
  buf_append_char(target, '{');
  for (size_t i = 0; i < map->count; i++) {
    buf_append_text(target, i ? "," : "");
    write_text(map->items[i].key, target);
    buf_append_char(target, ':');
    write_text(map->items[i].value, target);
  }
  buf_append_char(target, '}');
}

static void write_elements(const struct config_scope *scope, const void *elements, size_t count, struct buf *target) {
  buf_append_char(target, '[');
  for (size_t i = 0; i < count; i++) {
    buf_append_text(target, i ? "," : "");
    write_scope(scope, (const char *)elements + i * scope->struct_bytes, target);
  }
  buf_append_char(target, ']');
}

static void write_value(const struct config_key *key, const void *base, struct buf *target) {
  const void *value = (const char *)base + key->offset;
  switch (key->kind) {
  case CONFIG_KIND_TEXT:
    write_text(*(char *const *)value, target);
    return;
  case CONFIG_KIND_INT:
    buf_printf(target, "%lld", (long long)*(const int64_t *)value);
    return;
  case CONFIG_KIND_BOOL:
    buf_append_text(target, *(const bool *)value ? "true" : "false");
    return;
  case CONFIG_KIND_CHOICE:
    write_choice(key->extra, *(const unsigned *)value, target);
    return;
  case CONFIG_KIND_LIST:
    write_list(value, target);
    return;
  case CONFIG_KIND_MAP:
    write_map(value, target);
    return;
  case CONFIG_KIND_JSON:
    buf_append_text(target, *(char *const *)value);
    return;
  case CONFIG_KIND_LISTENERS:
    write_elements(&config_listener_scope, ((const struct config *)base)->listeners,
                   ((const struct config *)base)->listeners_count, target);
    return;
  case CONFIG_KIND_MODULES:
    write_elements(&config_module_scope, ((const struct config *)base)->modules,
                   ((const struct config *)base)->modules_count, target);
    return;
  }
}

/* Length of the group part that two paths share, its dot included: "auth." of "auth.jwt.issuer" and "auth.role". */
static size_t shared_group(const char *a, const char *b) {
  size_t shared = 0;
  for (size_t i = 0; a[i] && a[i] == b[i]; i++)
    if (a[i] == '.')
      shared = i + 1;
  return shared;
}

static unsigned dots(const char *text) {
  unsigned count = 0;
  for (; *text; text++)
    count += *text == '.';
  return count;
}

static void write_scope(const struct config_scope *scope, const void *base, struct buf *target) {
  const char *before = "";
  buf_append_char(target, '{');
  for (size_t i = 0; i < scope->count; i++) {
    const char *path = scope->keys[i].path;
    size_t shared = shared_group(before, path);
    for (unsigned open = dots(before + shared); open > 0; open--)
      buf_append_char(target, '}');
    buf_append_text(target, i ? "," : "");
    for (const char *part = path + shared; *part;) {
      size_t length = strcspn(part, ".");
      buf_append_json_string(target, part, length);
      buf_append_text(target, part[length] ? ":{" : ":");
      part += length + (part[length] == '.');
    }
    write_value(&scope->keys[i], base, target);
    before = path;
  }
  for (unsigned open = dots(before); open > 0; open--)
    buf_append_char(target, '}');
  buf_append_char(target, '}');
}

void config_json_write(const struct config *config, struct buf *target) {
  write_scope(&config_root_scope, config, target);
}
