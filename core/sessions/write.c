/* write.c: making, using, changing and ending sessions. Who waits is answered when the store says so. */
#include <string.h>

#include "core/sessions/sessions_internal.h"
#include "sdk/base/clock.h"
#include "sdk/base/id.h"
#include "sdk/base/json.h"
#include "sdk/base/str.h"

static void fail(session_done *done, void *arg, const struct error *err) {
  if (done)
    done(arg, NULL, err);
}

static void row_put(struct sessions *sessions, struct session *session, uint64_t expected, store_done *done,
                    void *arg) {
  struct buf row = {0};
  struct store_batch *batch = store_batch_create();
  session->stored_expires_at_ms = session->expires_at_ms;
  session_row_write(session, &row);
  store_batch_put(batch, SESSIONS_NAMESPACE, session->id, row.data, row.length, expected);
  store_commit(sessions->options.store, &batch, done, arg);
  buf_free(&row);
}

static void write_done(void *arg, const struct store_commit_result *result, const struct error *err) {
  struct session_write *write = arg;
  struct sessions *sessions = write->sessions;
  struct session *session = NULL;
  struct error gone = {0};
  (void)result;
  if (sessions) {
    DL_DELETE(sessions->writes, write);
    HASH_FIND(hh, sessions->by_id, write->id, SESSION_ID_LENGTH, session);
  }
  if (err && write->creates && session) {
    session_remove(sessions, session);
    session = NULL;
  }
  if (!err && !session && !write->deletes) { /* ended while it was being written */
    error_set(&gone, sessions ? ERR_SESSION_NOT_FOUND : ERR_UNAVAILABLE, NULL);
    err = &gone;
  }
  if (write->done)
    write->done(write->arg, err || !session ? NULL : session_view(session), err);
  base_free(write);
}

static struct session_write *write_create(struct sessions *sessions, const char *id, session_done *done, void *arg) {
  struct session_write *write = BASE_NEW(struct session_write);
  write->sessions = sessions;
  str_copy(write->id, sizeof(write->id), id);
  write->done = done;
  write->arg = arg;
  DL_APPEND(sessions->writes, write);
  return write;
}

/* Moves the end on; the row follows when it lags too far behind. */
static void use(struct sessions *sessions, struct session *session) {
  int64_t now_ms = clock_wall_ms();
  session->expires_at_ms = now_ms + session->idle_ms;
  if (session->stored_expires_at_ms - now_ms < session->idle_ms / 2)
    row_put(sessions, session, STORE_REVISION_ANY, NULL, NULL);
}

static bool text_check(const char *what, const char *text, struct error *err) {
  if (text && strnlen(text, SESSION_TEXT_MAX_BYTES + 1) > SESSION_TEXT_MAX_BYTES)
    return error_set(err, ERR_ARGUMENT_TOO_LARGE, "The %s is too long.", what);
  return true;
}

static bool state_check(const void *state_json, size_t state_length, struct error *err) {
  if (state_length > SESSION_STATE_MAX_BYTES)
    return error_set(err, ERR_ARGUMENT_TOO_LARGE, "The session's state is larger than %d bytes.",
                     SESSION_STATE_MAX_BYTES);
  return !state_length || json_check(state_json, state_length, JSON_DEPTH_MAX / 2, err);
}

static void id_make(char target[static SESSION_ID_LENGTH + 1]) {
  uint8_t bytes[SESSION_ID_RANDOM_BYTES];
  id_random_bytes(bytes, sizeof(bytes));
  char *text = str_base64url_encode(bytes, sizeof(bytes));
  BASE_CHECK(strlen(text) == SESSION_ID_LENGTH);
  memcpy(target, text, SESSION_ID_LENGTH + 1);
  base_free(text);
}

static uint32_t idle_choose(const struct sessions *sessions, uint32_t asked_ms) {
  uint32_t idle_ms = asked_ms ? asked_ms : sessions->options.idle_timeout_ms;
  if (idle_ms < SESSION_IDLE_MIN_MS)
    return SESSION_IDLE_MIN_MS;
  return idle_ms > SESSION_IDLE_MAX_MS ? SESSION_IDLE_MAX_MS : idle_ms;
}

static bool room_for_one(struct sessions *sessions, const char *email, struct error *err) {
  struct session_subject *subject;
  HASH_FIND(hh, sessions->subjects, email, strlen(email), subject);
  if (subject && subject->count >= sessions->options.per_subject_max)
    return error_set(err, ERR_RATE_LIMIT_EXCEEDED, "The caller has too many sessions.");
  return true;
}

void session_create(struct sessions *sessions, const struct policy_context *context, const char *protocol_family,
                    const char *protocol_version, const char *server_id, const void *state_json, size_t state_length,
                    uint32_t idle_timeout_ms, session_done *done, void *arg) {
  BASE_CHECK_MAGIC(sessions, SESSIONS_MAGIC);
  struct error err = {0};
  if (!text_check("protocol family", protocol_family, &err) ||
      !text_check("protocol version", protocol_version, &err) || !text_check("server", server_id, &err) ||
      !state_check(state_json, state_length, &err) || !room_for_one(sessions, context->user_email, &err)) {
    fail(done, arg, &err);
    return;
  }
  struct session *session = BASE_NEW(struct session);
  id_make(session->id);
  session->protocol_family = base_strdup(protocol_family ? protocol_family : "");
  session->protocol_version = base_strdup(protocol_version ? protocol_version : "");
  session->server_id = base_strdup(server_id ? server_id : "");
  session->owner_email = base_strdup(context->user_email);
  session->owner_token = base_strdup(context->token_id);
  session->state_length = state_length;
  session->state = state_length ? base_memdup(state_json, state_length) : NULL;
  session->idle_ms = idle_choose(sessions, idle_timeout_ms);
  session->created_at_ms = clock_wall_ms();
  session->expires_at_ms = session->created_at_ms + session->idle_ms;
  session->next_event_id = 1;
  session_insert(sessions, session);
  struct session_write *write = write_create(sessions, session->id, done, arg);
  write->creates = true;
  row_put(sessions, session, STORE_REVISION_NONE, write_done, write);
}

const struct session_record *session_find(struct sessions *sessions, const struct policy_context *context,
                                          const char *session_id, const char *server_id, struct error *err) {
  BASE_CHECK_MAGIC(sessions, SESSIONS_MAGIC);
  struct session *session = sessions_owned(sessions, context, session_id, err);
  if (!session)
    return NULL;
  if (server_id && !str_equal(server_id, session->server_id)) {
    error_set(err, ERR_SESSION_NOT_FOUND, NULL);
    return NULL;
  }
  use(sessions, session);
  return session_view(session);
}

void session_touch(struct sessions *sessions, const struct policy_context *context, const char *session_id,
                   const void *state_json, size_t state_length, session_done *done, void *arg) {
  BASE_CHECK_MAGIC(sessions, SESSIONS_MAGIC);
  struct error err = {0};
  struct session *session = sessions_owned(sessions, context, session_id, &err);
  if (!session || !state_check(state_json, state_length, &err)) {
    fail(done, arg, &err);
    return;
  }
  if (!state_length) {
    use(sessions, session);
    if (done)
      done(arg, session_view(session), NULL);
    return;
  }
  base_free(session->state);
  session->state = base_memdup(state_json, state_length);
  session->state_length = state_length;
  session->expires_at_ms = clock_wall_ms() + session->idle_ms;
  row_put(sessions, session, STORE_REVISION_ANY, write_done, write_create(sessions, session->id, done, arg));
}

void session_delete(struct sessions *sessions, const struct policy_context *context, const char *session_id,
                    session_done *done, void *arg) {
  BASE_CHECK_MAGIC(sessions, SESSIONS_MAGIC);
  struct error err = {0};
  struct session *session = sessions_owned(sessions, context, session_id, &err);
  if (!session) {
    fail(done, arg, &err);
    return;
  }
  struct session_write *write = write_create(sessions, session->id, done, arg);
  write->deletes = true;
  struct store_batch *batch = store_batch_create();
  store_batch_delete(batch, SESSIONS_NAMESPACE, session->id, STORE_REVISION_ANY);
  session_remove(sessions, session);
  store_commit(sessions->options.store, &batch, write_done, write);
}
