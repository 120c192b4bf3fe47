/* sessions_internal.h: what the files of this room share. */
#ifndef GATEHOUSE_CORE_SESSIONS_INTERNAL_H
#define GATEHOUSE_CORE_SESSIONS_INTERNAL_H

#include "core/sessions/sessions.h"
#include "sdk/base/alloc.h"
#include "sdk/base/buf.h"
#include "sdk/base/check.h"

#define uthash_malloc(size_) base_alloc(size_)
#define uthash_free(pointer_, size_) base_free(pointer_)
#include <uthash.h>
#include <utlist.h>

#define SESSIONS_MAGIC 0x5e55104eu
#define SESSIONS_NAMESPACE "sessions"
#define SESSION_ID_RANDOM_BYTES 32
#define SESSION_ID_LENGTH 43 /* base64url of them */
#define SESSION_STATE_MAX_BYTES 65536
#define SESSION_TEXT_MAX_BYTES 256
#define SESSION_IDLE_MIN_MS 1000u
#define SESSION_IDLE_MAX_MS (7u * 24 * 3600 * 1000)

/* One event of a stream; kept in order of ids. */
struct session_event {
  struct session_event *prev, *next;
  uint64_t id;
  char *stream_id;
  size_t length;
  uint8_t data[];
};

/* How many sessions a subject has; anonymous callers share one. */
struct session_subject {
  UT_hash_handle hh;
  uint32_t count;
  char email[];
};

struct session {
  UT_hash_handle hh; /* by id */
  char id[SESSION_ID_LENGTH + 1];
  char *protocol_family, *protocol_version, *server_id, *state; /* state: NUL behind state_length */
  size_t state_length;
  char *owner_email, *owner_token;
  struct session_subject *subject;
  int64_t created_at_ms, expires_at_ms;
  int64_t stored_expires_at_ms; /* what the row says, or will when its commit is through */
  uint32_t idle_ms;
  struct session_event *events;
  uint32_t event_count;
  size_t event_bytes;
  uint64_t next_event_id;
  struct session_record record; /* the borrowed view */
};

/* A commit that somebody waits for. Outlives the room: at close the store still answers. */
struct session_write {
  struct session_write *prev, *next;
  struct sessions *sessions; /* NULL: closed */
  char id[SESSION_ID_LENGTH + 1];
  bool creates, deletes;
  session_done *done;
  void *arg;
};

struct sessions {
  uint32_t magic;
  struct sessions_options options;
  struct session *by_id;
  struct session_subject *subjects;
  struct session_write *writes;
  struct core_rpc_timer *timer;
};

/* row.c: the row of a session, and back. session_parse gives NULL for a row that is none of ours. */
void session_row_write(const struct session *session, struct buf *row);
struct session *session_row_read(const char *id, const void *value, size_t length);

/* event_log.c */
void session_events_clear(struct session *session);

/* sessions.c */
struct session *sessions_owned(struct sessions *sessions, const struct policy_context *context, const char *session_id,
                               struct error *err);
void session_free(struct session *session);
void session_insert(struct sessions *sessions, struct session *session);
void session_remove(struct sessions *sessions, struct session *session); /* and frees */
const struct session_record *session_view(struct session *session);

#endif
