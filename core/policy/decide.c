/* decide.c: the two layers of SPI-5. Both only compare what resolving the caller prepared; nothing here allocates. */
#include <string.h>

#include "core/policy/policy_internal.h"

static const struct context *context_of(const struct policy_context *seen) {
  const struct context *context = (const struct context *)seen; /* first member */
  BASE_CHECK_MAGIC(context, CONTEXT_MAGIC);
  return context;
}

/* The rows of spec/protocols.md 5.6 in their order, by number. */
static bool sees(const struct context *context, const struct policy_record_facts *facts) {
  const struct policy_context *seen = &context->seen;
  const struct policy_teams *teams = &seen->teams;
  bool unrestricted = teams->kind == POLICY_TEAMS_NULL;
  bool known = !str_is_empty(seen->user_email);
  bool private = facts->visibility != POLICY_VISIBILITY_PUBLIC && facts->visibility != POLICY_VISIBILITY_TEAM;
  bool own = known && !str_is_empty(facts->owner_email) && strcmp(facts->owner_email, seen->user_email) == 0;

  if (facts->visibility == POLICY_VISIBILITY_PUBLIC)
    return true; /* 1 */
  if (unrestricted && !known)
    return !private; /* 2 */
  if (unrestricted && seen->is_admin)
    return !private || own; /* 3 */
  if (!known)
    return false; /* 4 */
  if (!unrestricted && teams->count == 0)
    return false; /* 5 */
  if (private)
    return own; /* 6; else 8 */
  if (str_is_empty(facts->team_id))
    return false; /* 8 */
  const struct policy_teams *member = unrestricted ? &context->directory_teams : teams;
  return policy_names_contain(member->ids, member->count, facts->team_id); /* 7; else 8 */
}

static bool may(const struct context *context, int permission, const char *team_id) {
  if (permission_set_has(&context->everywhere, permission))
    return true;
  if (str_is_empty(team_id))
    return permission_set_has(&context->anywhere, permission);
  for (size_t i = 0; i < context->grant_count; i++)
    if (strcmp(context->grants[i].team, team_id) == 0)
      return permission_set_has(&context->grants[i].permissions, permission);
  return false;
}

bool policy_can_see(const struct policy_context *context, const struct policy_record_facts *facts) {
  return sees(context_of(context), facts);
}

bool policy_may(const struct policy_context *context, const char *permission, const char *team_id) {
  return may(context_of(context), permission_find(permission, strlen(permission)), team_id);
}

bool policy_check_access(const struct policy_context *seen, const struct policy_record_facts *facts,
                         const char *permission, struct error *err) {
  /* For a record that is not there the same comparisons are made as for one that nobody sees. */
  static const struct policy_record_facts absent = {POLICY_VISIBILITY_PRIVATE, "\x01", "\x01"};
  const struct context *context = context_of(seen);
  const struct policy_record_facts *asked = facts == NULL ? &absent : facts;
  bool visible = sees(context, asked);
  /* A record without a team: "in any team" would let a role of one team act outside it. */
  const char *team_id = str_is_empty(asked->team_id) ? "\x01" : asked->team_id;
  bool allowed = permission == NULL || may(context, permission_find(permission, strlen(permission)), team_id);
  if (!visible || facts == NULL)
    return error_set(err, ERR_CATALOG_NOT_FOUND, NULL);
  return allowed || error_set(err, ERR_AUTH_PERMISSION_DENIED, NULL);
}
