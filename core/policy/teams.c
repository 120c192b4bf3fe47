/* teams.c: what the teams of a credential come to (SPI-4; spec/protocols.md 5.6). The result is POLICY_TEAMS_NULL (no
 * team filter) or POLICY_TEAMS_LIST (those teams and public; empty: public only). Whatever is not understood is an
 * empty list. */
#include <string.h>

#include "core/policy/policy_internal.h"

static const struct policy_teams public_only = {.kind = POLICY_TEAMS_LIST};

bool policy_claims_admin(const json_t *claims) {
  return json_is_true(json_object_get(claims, "is_admin")) ||
         json_is_true(json_object_get(json_object_get(claims, "user"), "is_admin"));
}

/* One element of the list: a string as it is, an object by its id (text or whole number), anything else is dropped. */
static const char *team_of_element(struct arena *arena, const json_t *element) {
  const json_t *id = json_is_object(element) ? json_object_get(element, "id") : element;
  const char *team = NULL;
  if (json_is_string(id))
    team = arena_strdup(arena, json_string_value(id));
  else if (json_is_object(element) && json_is_integer(id))
    team = arena_printf(arena, "%" JSON_INTEGER_FORMAT, json_integer_value(id));
  return policy_name_valid(team) ? team : NULL;
}

struct policy_teams policy_normalize_token_teams(struct arena *arena, const json_t *claims) {
  const json_t *claim = json_object_get(claims, "teams");
  if (json_is_null(claim) && policy_claims_admin(claims))
    return (struct policy_teams){.kind = POLICY_TEAMS_NULL};
  size_t count = json_is_array(claim) ? json_array_size(claim) : 0; /* a bare string is no list */
  if (count == 0 || count > POLICY_LIST_MAX)
    return public_only;
  struct policy_teams teams = public_only;
  const char **ids = arena_alloc(arena, count * sizeof(*ids));
  for (size_t i = 0; i < count; i++) {
    const char *team = team_of_element(arena, json_array_get(claim, i));
    if (team != NULL)
      ids[teams.count++] = team;
  }
  teams.ids = ids;
  return teams;
}

struct policy_teams policy_normalize_stored_teams(const struct policy_teams *teams, bool is_admin) {
  if (teams->kind == POLICY_TEAMS_NULL && is_admin)
    return *teams;
  return teams->kind == POLICY_TEAMS_LIST ? *teams : public_only;
}

static struct policy_teams intersect(struct arena *arena, const struct policy_teams *teams,
                                     const struct policy_teams *with) {
  struct policy_teams both = public_only;
  if (teams->count == 0)
    return both;
  const char **ids = arena_alloc(arena, teams->count * sizeof(*ids));
  for (size_t i = 0; i < teams->count; i++)
    if (policy_names_contain(with->ids, with->count, teams->ids[i]))
      ids[both.count++] = teams->ids[i];
  both.ids = ids;
  return both;
}

struct policy_teams policy_resolve_session_teams(const struct policy *policy, struct arena *arena, const char *email,
                                                 const struct policy_teams *token_teams) {
  if (str_is_empty(email))
    return public_only;
  const struct policy_user *user = directory_user(policy, email);
  if (user != NULL && user->is_admin)
    return (struct policy_teams){.kind = POLICY_TEAMS_NULL};
  struct policy_teams all = directory_user_teams(policy, user, arena);
  if (token_teams->kind == POLICY_TEAMS_LIST && token_teams->count > 0)
    return intersect(arena, token_teams, &all);
  return all;
}

struct policy_teams policy_narrow_to_membership(const struct policy *policy, struct arena *arena, const char *email,
                                                const struct policy_teams *teams) {
  const struct policy_user *user = directory_user(policy, email);
  if (teams->kind != POLICY_TEAMS_LIST || (user != NULL && user->is_admin))
    return *teams;
  struct policy_teams all = directory_user_teams(policy, user, arena);
  return intersect(arena, teams, &all);
}
