/* directory.c: users, teams and custom roles, as the catalog's documents put them. This is the compiled form only; the
 * catalog persists the documents. Names that lead nowhere (a role or team that does not exist) grant nothing, so the
 * order in which documents arrive does not matter. Every change that could alter a decision ends the contexts it
 * concerns. */
#include <string.h>

#include "core/policy/policy_internal.h"

bool policy_name_valid(const char *name) {
  if (str_is_empty(name))
    return false;
  size_t length = strnlen(name, POLICY_NAME_MAX_BYTES + 1);
  if (length > POLICY_NAME_MAX_BYTES || !str_is_utf8(name, length))
    return false;
  for (size_t i = 0; i < length; i++)
    if ((unsigned char)name[i] <= 0x20 || name[i] == 0x7f)
      return false;
  return true;
}

bool policy_names_contain(const char *const *names, size_t count, const char *name) {
  for (size_t i = 0; i < count; i++)
    if (strcmp(names[i], name) == 0)
      return true;
  return false;
}

const char *const *policy_names_copy(struct arena *arena, const char *const *names, size_t count) {
  if (count == 0)
    return NULL;
  const char **copy = arena_alloc(arena, count * sizeof(*copy));
  for (size_t i = 0; i < count; i++)
    copy[i] = arena_strdup(arena, names[i]);
  return copy;
}

static bool names_validate(const char *const *names, size_t count, const char *what, struct error *err) {
  if (count > POLICY_LIST_MAX)
    return error_set(err, ERR_ARGUMENT_TOO_LARGE, "More than %d %s.", POLICY_LIST_MAX, what);
  for (size_t i = 0; i < count; i++)
    if (!policy_name_valid(names[i]))
      return error_set(err, ERR_ARGUMENT_INVALID, "Number %zu of the %s is not a valid name.", i + 1, what);
  return true;
}

bool policy_user_validate(const struct policy_user *user, struct error *err) {
  if (str_is_empty(user->email))
    return error_set(err, ERR_ARGUMENT_MISSING, "A user needs an e-mail.");
  if (!policy_name_valid(user->email))
    return error_set(err, ERR_ARGUMENT_INVALID, "The user's e-mail is not valid.");
  if (!names_validate(user->teams, user->team_count, "teams", err) ||
      !names_validate(user->roles, user->role_count, "roles", err))
    return false;
  if (user->team_role_count > POLICY_LIST_MAX)
    return error_set(err, ERR_ARGUMENT_TOO_LARGE, "More than %d team roles.", POLICY_LIST_MAX);
  for (size_t i = 0; i < user->team_role_count; i++)
    if (!policy_name_valid(user->team_roles[i].team) || !policy_name_valid(user->team_roles[i].role))
      return error_set(err, ERR_ARGUMENT_INVALID, "Number %zu of the team roles is not valid.", i + 1);
  return true;
}

bool policy_team_validate(const char *team, struct error *err) {
  if (str_is_empty(team))
    return error_set(err, ERR_ARGUMENT_MISSING, "A team needs a name.");
  return policy_name_valid(team) || error_set(err, ERR_ARGUMENT_INVALID, "The team's name is not valid.");
}

bool policy_role_validate(const struct policy_role *role, struct error *err) {
  if (str_is_empty(role->name))
    return error_set(err, ERR_ARGUMENT_MISSING, "A role needs a name.");
  if (!policy_name_valid(role->name))
    return error_set(err, ERR_ARGUMENT_INVALID, "The role's name is not valid.");
  if (permission_role_builtin(role->name, NULL))
    return error_set(err, ERR_ARGUMENT_INVALID, "A built-in role has this name.");
  if (role->permission_count > POLICY_LIST_MAX)
    return error_set(err, ERR_ARGUMENT_TOO_LARGE, "More than %d permissions.", POLICY_LIST_MAX);
  for (size_t i = 0; i < role->permission_count; i++)
    if (!policy_permission_is_known(role->permissions[i]))
      return error_set(err, ERR_ARGUMENT_INVALID, "Number %zu of the permissions is not known.", i + 1);
  return true;
}

/* ---- Users ---- */

static struct user_record *user_find(const struct policy *policy, const char *email) {
  struct user_record *record = NULL;
  if (email != NULL)
    HASH_FIND_STR(policy->users, email, record);
  return record;
}

const struct policy_user *directory_user(const struct policy *policy, const char *email) {
  const struct user_record *record = user_find(policy, email);
  return record == NULL ? NULL : &record->user;
}

static bool names_equal(const char *const *a, size_t a_count, const char *const *b, size_t b_count) {
  if (a_count != b_count)
    return false;
  for (size_t i = 0; i < a_count; i++)
    if (strcmp(a[i], b[i]) != 0)
      return false;
  return true;
}

static bool user_equal(const struct policy_user *a, const struct policy_user *b) {
  if (a->is_admin != b->is_admin || !names_equal(a->teams, a->team_count, b->teams, b->team_count) ||
      !names_equal(a->roles, a->role_count, b->roles, b->role_count) || a->team_role_count != b->team_role_count)
    return false;
  for (size_t i = 0; i < a->team_role_count; i++)
    if (strcmp(a->team_roles[i].team, b->team_roles[i].team) != 0 ||
        strcmp(a->team_roles[i].role, b->team_roles[i].role) != 0)
      return false;
  return true;
}

static struct user_record *user_record_create(const struct policy_user *user) {
  struct arena *arena = arena_create(512);
  struct user_record *record = arena_alloc(arena, sizeof(*record));
  struct policy_team_role *team_roles = arena_alloc(arena, (user->team_role_count + 1) * sizeof(*team_roles));
  for (size_t i = 0; i < user->team_role_count; i++) {
    team_roles[i].team = arena_strdup(arena, user->team_roles[i].team);
    team_roles[i].role = arena_strdup(arena, user->team_roles[i].role);
  }
  record->arena = arena;
  record->user = (struct policy_user){
      .email = arena_strdup(arena, user->email),
      .is_admin = user->is_admin,
      .teams = policy_names_copy(arena, user->teams, user->team_count),
      .team_count = user->team_count,
      .roles = policy_names_copy(arena, user->roles, user->role_count),
      .role_count = user->role_count,
      .team_roles = team_roles,
      .team_role_count = user->team_role_count,
  };
  return record;
}

static void user_record_drop(struct policy *policy, struct user_record *record) {
  HASH_DEL(policy->users, record);
  struct arena *arena = record->arena; /* the record lives in it */
  arena_free(&arena);
}

bool policy_user_put(struct policy *policy, const struct policy_user *user, struct error *err) {
  BASE_CHECK_MAGIC(policy, POLICY_MAGIC);
  if (!policy_user_validate(user, err))
    return false;
  struct user_record *old = user_find(policy, user->email);
  if (old != NULL && user_equal(&old->user, user))
    return true;
  struct user_record *record = user_record_create(user);
  if (old != NULL)
    user_record_drop(policy, old);
  HASH_ADD_KEYPTR(hh, policy->users, record->user.email, strlen(record->user.email), record);
  policy->revision++;
  context_revoke(policy, record->user.email, NULL, NULL);
  return true;
}

bool policy_user_delete(struct policy *policy, const char *email) {
  BASE_CHECK_MAGIC(policy, POLICY_MAGIC);
  struct user_record *record = user_find(policy, email);
  if (record == NULL)
    return false;
  struct arena *keep = arena_create(512); /* email may point into the record */
  const char *copy = arena_strdup(keep, email);
  user_record_drop(policy, record);
  policy->revision++;
  context_revoke(policy, copy, NULL, NULL);
  arena_free(&keep);
  return true;
}

bool policy_user_exists(const struct policy *policy, const char *email) {
  return user_find(policy, email) != NULL;
}

/* ---- Teams ---- */

static struct team_record *team_find(const struct policy *policy, const char *team) {
  struct team_record *record = NULL;
  if (team != NULL)
    HASH_FIND_STR(policy->teams, team, record);
  return record;
}

static bool concerns_team(const struct policy *policy, const struct context *context, const void *team) {
  const struct policy_user *user = directory_user(policy, context->seen.user_email);
  return user != NULL && policy_names_contain(user->teams, user->team_count, team);
}

bool policy_team_put(struct policy *policy, const char *team, struct error *err) {
  BASE_CHECK_MAGIC(policy, POLICY_MAGIC);
  if (!policy_team_validate(team, err))
    return false;
  if (team_find(policy, team) != NULL)
    return true;
  size_t size = strlen(team) + 1;
  struct team_record *record = base_calloc(1, sizeof(*record) + size);
  memcpy(record->name, team, size);
  HASH_ADD_STR(policy->teams, name, record);
  policy->revision++;
  context_revoke(policy, NULL, concerns_team, team); /* dangling memberships begin to count */
  return true;
}

bool policy_team_delete(struct policy *policy, const char *team) {
  BASE_CHECK_MAGIC(policy, POLICY_MAGIC);
  struct team_record *record = team_find(policy, team);
  if (record == NULL)
    return false;
  HASH_DEL(policy->teams, record);
  policy->revision++;
  context_revoke(policy, NULL, concerns_team, record->name);
  base_free(record);
  return true;
}

bool policy_team_exists(const struct policy *policy, const char *team) {
  return team_find(policy, team) != NULL;
}

struct policy_teams directory_user_teams(const struct policy *policy, const struct policy_user *user,
                                         struct arena *arena) {
  struct policy_teams teams = {.kind = POLICY_TEAMS_LIST};
  if (user == NULL || user->team_count == 0)
    return teams;
  const char **ids = arena_alloc(arena, user->team_count * sizeof(*ids));
  for (size_t i = 0; i < user->team_count; i++)
    if (team_find(policy, user->teams[i]) != NULL)
      ids[teams.count++] = arena_strdup(arena, user->teams[i]);
  teams.ids = ids;
  return teams;
}

/* ---- Roles ---- */

static struct role_record *role_find(const struct policy *policy, const char *name) {
  struct role_record *record = NULL;
  if (name != NULL)
    HASH_FIND_STR(policy->roles, name, record);
  return record;
}

static bool concerns_role(const struct policy *policy, const struct context *context, const void *role) {
  const struct policy_user *user = directory_user(policy, context->seen.user_email);
  if (user == NULL)
    return false;
  if (policy_names_contain(user->roles, user->role_count, role))
    return true;
  for (size_t i = 0; i < user->team_role_count; i++)
    if (strcmp(user->team_roles[i].role, role) == 0)
      return true;
  return false;
}

bool policy_role_put(struct policy *policy, const struct policy_role *role, struct error *err) {
  BASE_CHECK_MAGIC(policy, POLICY_MAGIC);
  if (!policy_role_validate(role, err))
    return false;
  struct permission_set permissions = {{0}};
  for (size_t i = 0; i < role->permission_count; i++)
    BASE_CHECK(permission_set_add(&permissions, role->permissions[i]));
  struct role_record *record = role_find(policy, role->name);
  if (record != NULL && memcmp(&record->permissions, &permissions, sizeof(permissions)) == 0)
    return true;
  if (record == NULL) {
    size_t size = strlen(role->name) + 1;
    record = base_calloc(1, sizeof(*record) + size);
    memcpy(record->name, role->name, size);
    HASH_ADD_STR(policy->roles, name, record);
  }
  record->permissions = permissions;
  policy->revision++;
  context_revoke(policy, NULL, concerns_role, record->name);
  return true;
}

bool policy_role_delete(struct policy *policy, const char *name) {
  BASE_CHECK_MAGIC(policy, POLICY_MAGIC);
  struct role_record *record = role_find(policy, name);
  if (record == NULL)
    return false;
  HASH_DEL(policy->roles, record);
  policy->revision++;
  context_revoke(policy, NULL, concerns_role, record->name);
  base_free(record);
  return true;
}

bool policy_role_exists(const struct policy *policy, const char *name) {
  return name != NULL && (permission_role_builtin(name, NULL) || role_find(policy, name) != NULL);
}

void directory_role_permissions(const struct policy *policy, const char *role, struct permission_set *set) {
  const struct role_record *record = role_find(policy, role);
  if (record != NULL)
    permission_set_union(set, &record->permissions);
  else
    permission_role_builtin(role, set);
}

void directory_free(struct policy *policy) {
  struct user_record *user, *next_user;
  HASH_ITER(hh, policy->users, user, next_user)
  user_record_drop(policy, user);
  struct team_record *team, *next_team;
  HASH_ITER(hh, policy->teams, team, next_team) {
    HASH_DEL(policy->teams, team);
    base_free(team);
  }
  struct role_record *role, *next_role;
  HASH_ITER(hh, policy->roles, role, next_role) {
    HASH_DEL(policy->roles, role);
    base_free(role);
  }
}
