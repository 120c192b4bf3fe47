/* token_row.c: an API token as a row of the store: JSON of one version, without the token itself, only its SHA-256.
 * Teams keep the three states apart as JSON does: no member, null, a list. A row that is not exactly this is not read
 * at all. */
#include <string.h>

#include "core/policy/policy_internal.h"

#define TOKEN_ROW_VERSION 1

void token_record_free(struct token_record **record) {
  struct token_record *gone = BASE_TAKE(*record);
  if (gone == NULL)
    return;
  struct arena *arena = gone->arena; /* the record lives in it */
  arena_free(&arena);
}

static json_t *teams_to_json(const struct policy_teams *teams) {
  if (teams->kind == POLICY_TEAMS_NULL)
    return json_null();
  json_t *list = json_array();
  for (size_t i = 0; i < teams->count; i++)
    json_array_append_new(list, json_string(teams->ids[i]));
  return list;
}

char *token_row_encode(const struct token_record *record) {
  char hash[2 * POLICY_HASH_BYTES + 1];
  const struct policy_token_info *info = &record->info;
  str_hex_encode(hash, record->hash, POLICY_HASH_BYTES);
  json_t *row = json_pack("{s:i, s:s, s:s, s:s, s:o, s:I, s:I, s:I}", "version", TOKEN_ROW_VERSION, "hash", hash,
                          "user", info->user_email, "name", info->name, "scope", scope_to_json(&info->scope),
                          "created_at_ms", (json_int_t)info->created_at_ms, "expires_at_ms",
                          (json_int_t)info->expires_at_ms, "revoked_at_ms", (json_int_t)info->revoked_at_ms);
  BASE_CHECK(row != NULL); /* every text was validated as UTF-8 */
  if (info->teams.kind != POLICY_TEAMS_ABSENT)
    json_object_set_new(row, "teams", teams_to_json(&info->teams));
  char *encoded = json_dumps(row, JSON_COMPACT);
  BASE_CHECK(encoded != NULL);
  char *text = base_strdup(encoded);
  free(encoded);
  json_decref(row);
  return text;
}

static bool teams_from_json(struct arena *arena, const json_t *json, struct policy_teams *teams) {
  *teams = (struct policy_teams){.kind = json == NULL         ? POLICY_TEAMS_ABSENT
                                         : json_is_null(json) ? POLICY_TEAMS_NULL
                                                              : POLICY_TEAMS_LIST};
  if (teams->kind != POLICY_TEAMS_LIST)
    return true;
  size_t count = json_array_size(json);
  if (!json_is_array(json) || count > POLICY_LIST_MAX)
    return false;
  const char **ids = arena_alloc(arena, (count + 1) * sizeof(*ids));
  for (size_t i = 0; i < count; i++) {
    const char *team = json_string_value(json_array_get(json, i));
    if (!policy_name_valid(team))
      return false;
    ids[i] = arena_strdup(arena, team);
  }
  teams->ids = ids;
  teams->count = count;
  return true;
}

static bool row_read(struct token_record *record, json_t *row) {
  struct policy_token_info *info = &record->info;
  const char *hash, *user, *name;
  json_t *scope;
  json_int_t created, expires, revoked;
  int version;
  if (json_unpack_ex(row, NULL, 0, "{s:i, s:s, s:s, s:s, s:o, s:I, s:I, s:I}", "version", &version, "hash", &hash,
                     "user", &user, "name", &name, "scope", &scope, "created_at_ms", &created, "expires_at_ms",
                     &expires, "revoked_at_ms", &revoked) != 0)
    return false;
  if (version != TOKEN_ROW_VERSION || !str_hex_decode(record->hash, POLICY_HASH_BYTES, hash) ||
      !policy_name_valid(user))
    return false;
  info->user_email = arena_strdup(record->arena, user);
  info->name = arena_strdup(record->arena, name);
  info->created_at_ms = created;
  info->expires_at_ms = expires;
  info->revoked_at_ms = revoked;
  return teams_from_json(record->arena, json_object_get(row, "teams"), &info->teams) &&
         scope_from_json(record->arena, scope, &info->scope) && scope_validate(&info->scope, NULL);
}

struct token_record *token_row_decode(const char *token_id, const void *value, size_t length) {
  json_t *row = json_loadb(value, length, JSON_REJECT_DUPLICATES, NULL);
  if (row == NULL)
    return NULL;
  struct arena *arena = arena_create(512);
  struct token_record *record = arena_alloc(arena, sizeof(*record));
  record->arena = arena;
  record->info.token_id = arena_strdup(arena, token_id);
  if (!row_read(record, row))
    token_record_free(&record);
  json_decref(row);
  return record;
}
