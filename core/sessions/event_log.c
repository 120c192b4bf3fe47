/* event_log.c: the events of a session's streams, in memory, bounded by count and bytes; the oldest go first. */
#include <string.h>

#include "core/sessions/sessions_internal.h"
#include "sdk/base/str.h"

static size_t event_cost(const struct session_event *event) {
  return event->length + strlen(event->stream_id);
}

static void event_drop(struct session *session, struct session_event *event) {
  DL_DELETE(session->events, event);
  session->event_count--;
  session->event_bytes -= event_cost(event);
  base_free(event->stream_id);
  base_free(event);
}

void session_events_clear(struct session *session) {
  while (session->events)
    event_drop(session, session->events);
}

bool session_event_append(struct sessions *sessions, const struct policy_context *context, const char *session_id,
                          const char *stream_id, const void *data, size_t length, uint64_t *event_id,
                          struct error *err) {
  BASE_CHECK_MAGIC(sessions, SESSIONS_MAGIC);
  struct session *session = sessions_owned(sessions, context, session_id, err);
  if (!session)
    return false;
  if (!stream_id)
    stream_id = "";
  size_t stream_length = strnlen(stream_id, SESSION_TEXT_MAX_BYTES + 1);
  if (stream_length > SESSION_TEXT_MAX_BYTES || length > sessions->options.event_bytes_max - stream_length)
    return error_set(err, ERR_ARGUMENT_TOO_LARGE, "The event is larger than what a session may keep.");
  struct session_event *event = base_alloc(sizeof(*event) + length);
  event->id = session->next_event_id++;
  event->stream_id = base_strdup(stream_id);
  event->length = length;
  if (length)
    memcpy(event->data, data, length);
  DL_APPEND(session->events, event);
  session->event_count++;
  session->event_bytes += event_cost(event);
  while (session->event_count > sessions->options.events_per_session ||
         session->event_bytes > sessions->options.event_bytes_max)
    event_drop(session, session->events);
  *event_id = event->id;
  return true;
}

bool session_events_replay(struct sessions *sessions, const struct policy_context *context, const char *session_id,
                           uint64_t after_event_id, session_event_visit *visit, void *arg, struct error *err) {
  BASE_CHECK_MAGIC(sessions, SESSIONS_MAGIC);
  struct session *session = sessions_owned(sessions, context, session_id, err);
  if (!session)
    return false;
  struct session_event *from;
  DL_SEARCH_SCALAR(session->events, from, id, after_event_id);
  if (!from)
    return error_set(err, ERR_NOT_FOUND, "The event to resume after is no longer kept.");
  for (const struct session_event *event = from->next; event; event = event->next)
    if (str_equal(event->stream_id, from->stream_id) &&
        !visit(arg, event->id, event->stream_id, event->data, event->length))
      break;
  return true;
}
