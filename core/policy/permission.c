/* permission.c: the permission table, sets of permissions, and the built-in roles (SPI-20). A set is a bit per
 * permission; aliases share the bit of the permission they stand for. */
#include <string.h>

#include "core/policy/policy_internal.h"

struct permission_row {
  const char *text;
  enum permission permission;
};

static const struct permission_row permission_rows[] = {
#define PERMISSION(identifier, text) {text, PERMISSION_##identifier},
#define PERMISSION_ALIAS(text, identifier) {text, PERMISSION_##identifier},
#include "core/policy/permissions.def"
#undef PERMISSION
#undef PERMISSION_ALIAS
};
#define PERMISSION_ROWS (sizeof(permission_rows) / sizeof(permission_rows[0]))

struct role_row {
  const char *name;
  const char *contains;
  const char *const *permissions;
  size_t permission_count;
};

static const struct role_row role_rows[] = {
#define ROLE(name, contains, ...)                                                                                      \
  {name, contains, (const char *const[]){__VA_ARGS__},                                                                 \
   sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *)},
#include "core/policy/roles.def"
#undef ROLE
};

const char *policy_permission_name(size_t index) {
  static const char *const names[] = {
#define PERMISSION(identifier, text) text,
#define PERMISSION_ALIAS(text, identifier)
#include "core/policy/permissions.def"
#undef PERMISSION
#undef PERMISSION_ALIAS
  };
  return index < PERMISSION_COUNT ? names[index] : NULL;
}

int permission_find(const char *text, size_t length) {
  size_t low = 0, high = PERMISSION_ROWS;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    const char *row = permission_rows[middle].text;
    int order = strncmp(text, row, length);
    if (order == 0 && row[length] != '\0')
      order = -1;
    if (order == 0)
      return (int)permission_rows[middle].permission;
    if (order < 0)
      high = middle;
    else
      low = middle + 1;
  }
  return -1;
}

static void permission_set_bit(struct permission_set *set, enum permission permission) {
  set->words[permission / 64] |= UINT64_C(1) << (permission % 64);
}

bool permission_set_has(const struct permission_set *set, int permission) {
  return permission >= 0 && (set->words[permission / 64] >> (permission % 64) & 1) != 0;
}

/* Length of "<category>." in "<category>.*", 0 when text is no such wildcard. */
static size_t wildcard_prefix_length(const char *text) {
  size_t length = strlen(text);
  const char *dot = strchr(text, '.');
  return dot != NULL && dot > text && dot + 2 == text + length && dot[1] == '*' ? length - 1 : 0;
}

bool permission_set_add(struct permission_set *set, const char *text) {
  if (str_equal(text, "*")) {
    for (int permission = 0; permission < PERMISSION_COUNT; permission++)
      permission_set_bit(set, (enum permission)permission);
    return true;
  }
  size_t prefix = wildcard_prefix_length(text);
  if (prefix == 0) {
    int permission = permission_find(text, strlen(text));
    if (permission >= 0)
      permission_set_bit(set, (enum permission)permission);
    return permission >= 0;
  }
  bool found = false;
  for (size_t i = 0; i < PERMISSION_ROWS; i++)
    if (strncmp(permission_rows[i].text, text, prefix) == 0) {
      permission_set_bit(set, permission_rows[i].permission);
      found = true;
    }
  return found;
}

bool policy_permission_is_known(const char *permission) {
  struct permission_set unused = {{0}};
  return permission != NULL && permission_set_add(&unused, permission);
}

void permission_set_union(struct permission_set *set, const struct permission_set *other) {
  set->words[0] |= other->words[0];
  set->words[1] |= other->words[1];
}

void permission_set_intersect(struct permission_set *set, const struct permission_set *other) {
  set->words[0] &= other->words[0];
  set->words[1] &= other->words[1];
}

void permission_set_remove_category(struct permission_set *set, const char *wildcard) {
  struct permission_set category = {{0}};
  BASE_CHECK(permission_set_add(&category, wildcard));
  set->words[0] &= ~category.words[0];
  set->words[1] &= ~category.words[1];
}

void permission_set_of_scope(struct permission_set *set, const struct policy_scope *scope) {
  static const char *const implies_servers_use[] = {"tools.*", "resources.*", "prompts.*"};
  *set = (struct permission_set){{0}};
  if (scope->permission_count == 0) {
    permission_set_add(set, "*");
    return;
  }
  for (size_t i = 0; i < scope->permission_count; i++)
    permission_set_add(set, scope->permissions[i]);
  for (size_t i = 0; i < sizeof(implies_servers_use) / sizeof(implies_servers_use[0]); i++) {
    struct permission_set category = {{0}};
    permission_set_add(&category, implies_servers_use[i]);
    permission_set_intersect(&category, set);
    if ((category.words[0] | category.words[1]) != 0)
      permission_set_bit(set, PERMISSION_SERVERS_USE);
  }
}

bool permission_role_builtin(const char *name, struct permission_set *set) {
  for (size_t i = 0; i < sizeof(role_rows) / sizeof(role_rows[0]); i++) {
    const struct role_row *row = &role_rows[i];
    if (!str_equal(row->name, name))
      continue;
    if (set != NULL) {
      if (row->contains != NULL)
        BASE_CHECK(permission_role_builtin(row->contains, set));
      for (size_t k = 0; k < row->permission_count; k++)
        BASE_CHECK(permission_set_add(set, row->permissions[k]));
    }
    return true;
  }
  return false;
}
