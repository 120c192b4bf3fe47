/* row.c: a session as a row of the store: one JSON object; the state is embedded byte for byte. */
#include <inttypes.h>
#include <string.h>

#include "core/sessions/sessions_internal.h"
#include "sdk/base/json.h"
#include "sdk/base/str.h"

static void member_append(struct buf *row, const char *key, const char *text) {
  buf_printf(row, ",\"%s\":", key);
  buf_append_json_string(row, text, strlen(text));
}

void session_row_write(const struct session *session, struct buf *row) {
  buf_printf(row, "{\"created_at_ms\":%" PRId64 ",\"expires_at_ms\":%" PRId64 ",\"idle_ms\":%" PRIu32,
             session->created_at_ms, session->stored_expires_at_ms, session->idle_ms);
  member_append(row, "family", session->protocol_family);
  member_append(row, "version", session->protocol_version);
  member_append(row, "server", session->server_id);
  member_append(row, "owner_email", session->owner_email);
  member_append(row, "owner_token", session->owner_token);
  if (session->state_length) {
    buf_append_text(row, ",\"state\":");
    buf_append(row, session->state, session->state_length);
  }
  buf_append_char(row, '}');
}

static bool text_read(const char *row, size_t length, const char *key, char **text) {
  const char *token;
  size_t token_length;
  if (json_member(row, length, key, &token, &token_length))
    *text = json_string_decode(token, token_length);
  return *text != NULL;
}

static bool number_read(const char *row, size_t length, const char *key, int64_t *number) {
  const char *token;
  size_t token_length;
  char digits[24];
  if (!json_member(row, length, key, &token, &token_length) || token_length >= sizeof(digits))
    return false;
  memcpy(digits, token, token_length);
  digits[token_length] = 0;
  return str_parse_i64(digits, number);
}

struct session *session_row_read(const char *id, const void *value, size_t length) {
  const char *state;
  int64_t idle_ms = 0;
  if (strlen(id) != SESSION_ID_LENGTH || !json_check(value, length, JSON_DEPTH_MAX, NULL))
    return NULL;
  struct session *session = BASE_NEW(struct session);
  memcpy(session->id, id, SESSION_ID_LENGTH);
  if (!text_read(value, length, "family", &session->protocol_family) ||
      !text_read(value, length, "version", &session->protocol_version) ||
      !text_read(value, length, "server", &session->server_id) ||
      !text_read(value, length, "owner_email", &session->owner_email) ||
      !text_read(value, length, "owner_token", &session->owner_token) ||
      !number_read(value, length, "created_at_ms", &session->created_at_ms) ||
      !number_read(value, length, "expires_at_ms", &session->expires_at_ms) ||
      !number_read(value, length, "idle_ms", &idle_ms) || idle_ms < SESSION_IDLE_MIN_MS ||
      idle_ms > SESSION_IDLE_MAX_MS) {
    session_free(session);
    return NULL;
  }
  session->idle_ms = (uint32_t)idle_ms;
  session->stored_expires_at_ms = session->expires_at_ms;
  size_t state_length;
  if (json_member(value, length, "state", &state, &state_length)) {
    session->state = base_memdup(state, state_length);
    session->state_length = state_length;
  }
  return session;
}
