/* sessions.c: life of the room, who owns which session, expiry.
 *
 * A session is found only by the subject and token that made it; a foreign one is answered like one that is not there
 * (MCP-2). Moving the end of a session on happens in memory; the row follows when less than half of the idle time would
 * be left of what it says, so after a restart a session lives at least half its idle time longer than its last use. */
#include <string.h>

#include "core/sessions/sessions_internal.h"
#include "sdk/base/clock.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

#define EXPIRE_INTERVAL_MS 5000
#define IDLE_DEFAULT_MS (3600u * 1000)
#define PER_SUBJECT_DEFAULT 1000u
#define EVENTS_DEFAULT 1000u
#define EVENT_BYTES_DEFAULT (4u << 20)

void session_free(struct session *session) {
  session_events_clear(session);
  base_free(session->protocol_family);
  base_free(session->protocol_version);
  base_free(session->server_id);
  base_free(session->state);
  base_free(session->owner_email);
  base_free(session->owner_token);
  base_free(session);
}

static struct session_subject *subject_of(struct sessions *sessions, const char *email) {
  struct session_subject *subject;
  size_t length = strlen(email);
  HASH_FIND(hh, sessions->subjects, email, length, subject);
  if (!subject) {
    subject = base_calloc(1, sizeof(*subject) + length + 1);
    memcpy(subject->email, email, length);
    HASH_ADD_KEYPTR(hh, sessions->subjects, subject->email, length, subject);
  }
  return subject;
}

void session_insert(struct sessions *sessions, struct session *session) {
  session->subject = subject_of(sessions, session->owner_email);
  session->subject->count++;
  HASH_ADD(hh, sessions->by_id, id, SESSION_ID_LENGTH, session);
}

void session_remove(struct sessions *sessions, struct session *session) {
  HASH_DEL(sessions->by_id, session);
  if (--session->subject->count == 0) {
    HASH_DEL(sessions->subjects, session->subject);
    base_free(session->subject);
  }
  session_free(session);
}

const struct session_record *session_view(struct session *session) {
  session->record = (struct session_record){
      .session_id = session->id,
      .protocol_family = session->protocol_family,
      .protocol_version = session->protocol_version,
      .server_id = session->server_id,
      .state_json = session->state,
      .state_length = session->state_length,
      .created_at_ms = session->created_at_ms,
      .expires_at_ms = session->expires_at_ms,
  };
  return &session->record;
}

struct session *sessions_owned(struct sessions *sessions, const struct policy_context *context, const char *session_id,
                               struct error *err) {
  struct session *session = NULL;
  if (session_id && strnlen(session_id, SESSION_ID_LENGTH + 1) == SESSION_ID_LENGTH)
    HASH_FIND(hh, sessions->by_id, session_id, SESSION_ID_LENGTH, session);
  if (!session || !str_equal(session->owner_email, context->user_email) ||
      !str_equal(session->owner_token, context->token_id) || session->expires_at_ms <= clock_wall_ms()) {
    error_set(err, ERR_SESSION_NOT_FOUND, NULL);
    return NULL;
  }
  return session;
}

void sessions_expire(struct sessions *sessions) {
  BASE_CHECK_MAGIC(sessions, SESSIONS_MAGIC);
  struct store_batch *batch = NULL;
  struct session *session, *next;
  int64_t now_ms = clock_wall_ms();
  HASH_ITER(hh, sessions->by_id, session, next) {
    if (session->expires_at_ms > now_ms)
      continue;
    if (!batch)
      batch = store_batch_create();
    store_batch_delete(batch, SESSIONS_NAMESPACE, session->id, STORE_REVISION_ANY);
    session_remove(sessions, session);
  }
  if (batch)
    store_commit(sessions->options.store, &batch, NULL, NULL);
}

static void expire_by_timer(void *arg) {
  struct sessions *sessions = arg;
  sessions->timer = NULL;
  sessions_expire(sessions);
  sessions->timer = core_rpc_timer_start(sessions->options.loop, EXPIRE_INTERVAL_MS, expire_by_timer, sessions);
}

struct loading {
  struct sessions *sessions;
  uint64_t event_id_base;
  bool damaged;
};

static bool row_load(void *arg, const struct store_row *row) {
  struct loading *loading = arg;
  struct session *session = session_row_read(row->key, row->value, row->length);
  if (!session) {
    loading->damaged = true;
    return false;
  }
  session->next_event_id = loading->event_id_base;
  session_insert(loading->sessions, session);
  return true;
}

struct sessions *sessions_open(const struct sessions_options *options, struct error *err) {
  struct sessions *sessions = BASE_NEW(struct sessions);
  sessions->magic = SESSIONS_MAGIC;
  sessions->options = *options;
  struct sessions_options *own = &sessions->options;
  own->idle_timeout_ms = own->idle_timeout_ms ? own->idle_timeout_ms : IDLE_DEFAULT_MS;
  own->per_subject_max = own->per_subject_max ? own->per_subject_max : PER_SUBJECT_DEFAULT;
  own->events_per_session = own->events_per_session ? own->events_per_session : EVENTS_DEFAULT;
  own->event_bytes_max = own->event_bytes_max > SESSION_TEXT_MAX_BYTES ? own->event_bytes_max : EVENT_BYTES_DEFAULT;
  /* Events die with the process; ids given after a restart must not meet those given before it, which counted from 1.
   */
  struct loading loading = {.sessions = sessions, .event_id_base = (uint64_t)clock_wall_us()};
  if (!store_scan(own->store, SESSIONS_NAMESPACE, NULL, row_load, &loading, err))
    goto fail;
  if (loading.damaged) {
    error_set(err, ERR_STORE_CORRUPT, "A stored session is damaged.");
    goto fail;
  }
  sessions_expire(sessions);
  if (own->loop)
    sessions->timer = core_rpc_timer_start(own->loop, EXPIRE_INTERVAL_MS, expire_by_timer, sessions);
  return sessions;
fail:
  sessions_close(&sessions);
  return NULL;
}

void sessions_close(struct sessions **sessions_pointer) {
  struct sessions *sessions = BASE_TAKE(*sessions_pointer);
  if (!sessions)
    return;
  BASE_CHECK_MAGIC(sessions, SESSIONS_MAGIC);
  core_rpc_timer_cancel(&sessions->timer);
  struct session_write *write;
  DL_FOREACH(sessions->writes, write)
  write->sessions = NULL;
  struct session *session, *next;
  HASH_ITER(hh, sessions->by_id, session, next)
  session_remove(sessions, session);
  sessions->magic = 0;
  base_free(sessions);
}

size_t sessions_count(const struct sessions *sessions) {
  BASE_CHECK_MAGIC(sessions, SESSIONS_MAGIC);
  return HASH_COUNT(sessions->by_id);
}
