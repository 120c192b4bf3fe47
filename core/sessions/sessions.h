/* sessions.h: protocol sessions of record and their replayable event logs (SPI-SES, MCP-2): they outlive the module
 * that serves them. A session belongs to exactly one caller (subject and token) and server; anyone else gets
 * ERR_SESSION_NOT_FOUND, whatever they ask. One thread: the core thread. Sessions are rows of the store; the events of
 * a stream are kept in memory up to a bound and for as long as the session lives. */
#ifndef GATEHOUSE_CORE_SESSIONS_H
#define GATEHOUSE_CORE_SESSIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/policy/policy.h"
#include "core/rpc/core_rpc.h"
#include "core/store/store.h"
#include "sdk/base/error.h"

struct sessions;

struct sessions_options {
  struct core_rpc_loop *loop; /* for expiry; NULL (tests): sessions_expire only */
  struct store *store;
  uint32_t idle_timeout_ms;    /* 0: one hour */
  uint32_t per_subject_max;    /* 0: 1000; more: ERR_RATE_LIMIT_EXCEEDED */
  uint32_t events_per_session; /* 0: 1000; older ones are dropped */
  uint32_t event_bytes_max;    /* of one session's events; 0: 4 MiB */
};

struct session_record {
  const char *session_id;
  const char *protocol_family;
  const char *protocol_version;
  const char *server_id;
  const void *state_json;
  size_t state_length;
  int64_t created_at_ms;
  int64_t expires_at_ms;
};

struct sessions *sessions_open(const struct sessions_options *options, struct error *err);
void sessions_close(struct sessions **sessions);
void sessions_expire(struct sessions *sessions); /* ends what is over; also runs by timer */
size_t sessions_count(const struct sessions *sessions);

/* done on the core thread when durable; record is valid in it only. */
typedef void session_done(void *arg, const struct session_record *record, const struct error *err);
void session_create(struct sessions *sessions, const struct policy_context *context, const char *protocol_family,
                    const char *protocol_version, const char *server_id, const void *state_json, size_t state_length,
                    uint32_t idle_timeout_ms, session_done *done, void *arg);
/* server_id NULL: not compared. Touches the idle end in memory (stored lazily). Borrowed until control returns to the
 * loop. */
const struct session_record *session_find(struct sessions *sessions, const struct policy_context *context,
                                          const char *session_id, const char *server_id, struct error *err);
void session_touch(struct sessions *sessions, const struct policy_context *context, const char *session_id,
                   const void *state_json, size_t state_length, session_done *done, void *arg);
void session_delete(struct sessions *sessions, const struct policy_context *context, const char *session_id,
                    session_done *done, void *arg);
/* Appends to a stream; *event_id is the id given. */
bool session_event_append(struct sessions *sessions, const struct policy_context *context, const char *session_id,
                          const char *stream_id, const void *data, size_t length, uint64_t *event_id,
                          struct error *err);
/* Events of the stream that after_event_id belongs to, after it, in order. */
typedef bool session_event_visit(void *arg, uint64_t event_id, const char *stream_id, const void *data, size_t length);
bool session_events_replay(struct sessions *sessions, const struct policy_context *context, const char *session_id,
                           uint64_t after_event_id, session_event_visit *visit, void *arg, struct error *err);

#endif
