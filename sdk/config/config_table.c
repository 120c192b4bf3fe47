/* config_table.c: config_keys.def as data, and the questions one asks of it. No allocation but for defaults. */
#include <stdio.h>
#include <string.h>

#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/str.h"
#include "sdk/config/config_internal.h"

#define KEY(type, kind_, field, path_, environment_, standard_, low_, high_, extra_, doc_)                             \
  {.kind = CONFIG_KIND_##kind_,                                                                                        \
   .offset = offsetof(struct type, field),                                                                             \
   .path = (path_),                                                                                                    \
   .environment = (environment_),                                                                                      \
   .standard = (standard_),                                                                                            \
   .low = (low_),                                                                                                      \
   .high = (high_),                                                                                                    \
   .extra = (extra_),                                                                                                  \
   .doc = (doc_)},
#define ROOT_KEY(...) KEY(config, __VA_ARGS__)
#define LISTENER_KEY(...) KEY(config_listener, __VA_ARGS__)
#define MODULE_KEY(...) KEY(config_module, __VA_ARGS__)

static const struct config_key root_keys[] = {CONFIG_ROOT_KEYS(ROOT_KEY)};
static const struct config_key listener_keys[] = {CONFIG_LISTENER_KEYS(LISTENER_KEY)};
static const struct config_key module_keys[] = {CONFIG_MODULE_KEYS(MODULE_KEY)};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
const struct config_scope config_root_scope = {"the file", root_keys, COUNT(root_keys), sizeof(struct config)};
const struct config_scope config_listener_scope = {"a listener", listener_keys, COUNT(listener_keys),
                                                   sizeof(struct config_listener)};
const struct config_scope config_module_scope = {"a module", module_keys, COUNT(module_keys),
                                                 sizeof(struct config_module)};

void config_key_expectation(const struct config_key *key, char *target, size_t target_bytes) {
  switch (key->kind) {
  case CONFIG_KIND_TEXT:
    snprintf(target, target_bytes, "a text");
    return;
  case CONFIG_KIND_INT:
    if (key->high == INT64_MAX)
      snprintf(target, target_bytes, "a whole number, at least %lld", (long long)key->low);
    else
      snprintf(target, target_bytes, "a whole number from %lld to %lld", (long long)key->low, (long long)key->high);
    return;
  case CONFIG_KIND_BOOL:
    snprintf(target, target_bytes, "true or false");
    return;
  case CONFIG_KIND_CHOICE:
    snprintf(target, target_bytes, "one of %s", key->extra);
    for (char *bar = strchr(target, '|'); bar; bar = strchr(bar, '|'))
      *bar = ',';
    return;
  case CONFIG_KIND_LIST:
    snprintf(target, target_bytes, "a list of texts");
    return;
  case CONFIG_KIND_MAP:
    snprintf(target, target_bytes, "a mapping of names to texts");
    return;
  case CONFIG_KIND_JSON:
    snprintf(target, target_bytes, "a mapping");
    return;
  case CONFIG_KIND_LISTENERS:
  case CONFIG_KIND_MODULES:
    snprintf(target, target_bytes, "a list of mappings");
    return;
  }
}

const struct config_key *config_key_find(const struct config_scope *scope, const char *path) {
  for (size_t i = 0; i < scope->count; i++)
    if (str_equal(scope->keys[i].path, path))
      return &scope->keys[i];
  return NULL;
}

bool config_key_is_group(const struct config_scope *scope, const char *path) {
  size_t length = strlen(path);
  for (size_t i = 0; i < scope->count; i++)
    if (strncmp(scope->keys[i].path, path, length) == 0 && scope->keys[i].path[length] == '.')
      return true;
  return false;
}

/* Edit distance with neighbours swapped counted as one; words longer than the window are never near. */
static unsigned edit_distance(const char *a, const char *b) {
  enum { WINDOW = 48 };
  size_t a_length = strlen(a), b_length = strlen(b);
  if (a_length >= WINDOW || b_length >= WINDOW)
    return WINDOW;
  unsigned cost[WINDOW][WINDOW];
  for (size_t i = 0; i <= a_length; i++)
    for (size_t j = 0; j <= b_length; j++) {
      if (i == 0 || j == 0) {
        cost[i][j] = (unsigned)(i + j);
        continue;
      }
      unsigned best = cost[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
      if (cost[i - 1][j] + 1 < best)
        best = cost[i - 1][j] + 1;
      if (cost[i][j - 1] + 1 < best)
        best = cost[i][j - 1] + 1;
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && cost[i - 2][j - 2] + 1 < best)
        best = cost[i - 2][j - 2] + 1;
      cost[i][j] = best;
    }
  return cost[a_length][b_length];
}

const char *config_key_nearest(const struct config_scope *scope, const char *group, const char *name) {
  static char nearest[CONFIG_PROBLEM_KEY_BYTES];
  size_t group_length = strlen(group);
  unsigned best = strlen(name) < 6 ? 1 : (unsigned)(strlen(name) / 3); /* a third of the letters may be wrong */
  bool found = false;
  for (size_t i = 0; i < scope->count; i++) {
    const char *rest = scope->keys[i].path;
    if (group_length > 0) {
      if (strncmp(rest, group, group_length) != 0 || rest[group_length] != '.')
        continue;
      rest += group_length + 1;
    }
    char segment[CONFIG_PROBLEM_KEY_BYTES];
    snprintf(segment, sizeof(segment), "%.*s", (int)strcspn(rest, "."), rest);
    unsigned distance = edit_distance(name, segment);
    if (distance > best || (found && distance == best))
      continue;
    best = distance;
    found = true;
    memcpy(nearest, segment, sizeof(nearest));
  }
  return found ? nearest : NULL;
}

static void *member(const struct config_key *key, void *base) {
  return (char *)base + key->offset;
}

void config_default_set(const struct config_key *key, void *base) {
  struct config_problems problems; /* only counted; kilobytes, for every key of every module */
  problems.count = problems.total = 0;
  const char *text = key->standard ? key->standard : "";
  switch (key->kind) {
  case CONFIG_KIND_TEXT:
  case CONFIG_KIND_JSON:
    *(char **)member(key, base) = base_strdup(text);
    return;
  case CONFIG_KIND_INT:
  case CONFIG_KIND_BOOL:
  case CONFIG_KIND_CHOICE:
    BASE_CHECK(config_scalar_set(key, base, text, strlen(text), true, &(struct config_where){0}, &problems));
    return;
  case CONFIG_KIND_LIST:
  case CONFIG_KIND_MAP:
  case CONFIG_KIND_LISTENERS:
  case CONFIG_KIND_MODULES:
    return; /* empty, as zeroed */
  }
}

void config_scope_defaults(const struct config_scope *scope, void *base) {
  for (size_t i = 0; i < scope->count; i++)
    config_default_set(&scope->keys[i], base);
}

static void free_listeners(struct config *config) {
  for (size_t i = 0; i < config->listeners_count; i++)
    config_scope_free(&config_listener_scope, &config->listeners[i]);
  base_free(config->listeners);
}

static void free_modules(struct config *config) {
  for (size_t i = 0; i < config->modules_count; i++)
    config_scope_free(&config_module_scope, &config->modules[i]);
  base_free(config->modules);
}

void config_scope_free(const struct config_scope *scope, void *base) {
  for (size_t i = 0; i < scope->count; i++) {
    void *value = member(&scope->keys[i], base);
    struct config_list *list = value;
    struct config_map *map = value;
    switch (scope->keys[i].kind) {
    case CONFIG_KIND_TEXT:
    case CONFIG_KIND_JSON:
      base_free(*(char **)value);
      break;
    case CONFIG_KIND_LIST:
      for (size_t j = 0; j < list->count; j++)
        base_free(list->items[j]);
      base_free(list->items);
      break;
    case CONFIG_KIND_MAP:
      for (size_t j = 0; j < map->count; j++) {
        base_free(map->items[j].key);
        base_free(map->items[j].value);
      }
      base_free(map->items);
      break;
    case CONFIG_KIND_LISTENERS:
      free_listeners(base);
      break;
    case CONFIG_KIND_MODULES:
      free_modules(base);
      break;
    case CONFIG_KIND_INT:
    case CONFIG_KIND_BOOL:
    case CONFIG_KIND_CHOICE:
      break;
    }
  }
}
