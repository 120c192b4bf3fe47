/* run_events.c: `events`. Reads the log from a place on; with --follow it outlives restarts of the core: it asks again
 * from the last event that was shown, and says so on stderr. A log that has become shorter meanwhile (the memory store
 * forgets) is read from its beginning. */
#include <stdio.h>
#include <string.h>

#include "sdk/base/json.h"
#include "sdk/base/str.h"
#include "supervisor/ctl/ctl_internal.h"
#include "wire/pbc/core/admin/v1/admin.pb-c.h"
#include "wire/pbc/core/spi/psg/v1/psg.pb-c.h"

#define TAIL_STANDARD 20
#define RETRY_PAUSE_MS 200
#define VALUE_BYTES_MAX 100

struct view {
  struct ctl *ctl;
  uint64_t last; /* sequence of the last event that was shown or is to be passed over */
  int status;
};

/* Appends " text" of a member; quotes are taken off texts, objects and lists are left out. */
static bool value_append(const char *json, size_t length, const char *member, struct buf *target) {
  const char *value;
  size_t value_length;
  if (!json_member(json, length, member, &value, &value_length) || value[0] == '{' || value[0] == '[' ||
      value[0] == 'n')
    return false;
  char *text = value[0] == '"' ? json_string_decode(value, value_length) : base_strndup(value, value_length);
  if (text && *text) {
    size_t shown = strlen(text);
    buf_append_text(target, target->length ? " " : "");
    buf_append(target, text, shown < VALUE_BYTES_MAX ? shown : VALUE_BYTES_MAX);
  }
  base_free(text);
  return true;
}

/* What an event is about: the members of its family that say so, then what the payload holds as single values. */
static void subject_write(const char *json, size_t length, struct buf *target) {
  static const char *const members[] = {"source_module", "update_kind", "stage_name",  "executor_kind",
                                        "executor_role", "status",      "stage_status"};
  const char *payload, *key, *value;
  size_t payload_length, key_length, value_length;
  struct json_cursor cursor;
  for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
    value_append(json, length, members[i], target);
  if (!json_member(json, length, "payload", &payload, &payload_length) ||
      !json_walk(payload, payload_length, '{', &cursor))
    return;
  while (json_next(&cursor, &key, &key_length, &value, &value_length)) {
    struct buf shown = {0};
    char *name = json_string_decode(key, key_length);
    if (name && value_append(payload, payload_length, name, &shown) && shown.length)
      buf_printf(target, "%s%s=%s", target->length ? " " : "", name, shown.data);
    base_free(name);
    buf_free(&shown);
  }
}

static void member_write(const char *json, size_t length, const char *member, int width, struct buf *target) {
  struct buf value = {0}, safe = {0};
  value_append(json, length, member, &value);
  ctl_text_append_safe(&safe, value.data ? value.data : "-", value.data ? value.length : 1);
  buf_printf(target, "%-*s  ", width, safe.data);
  buf_free(&value);
  buf_free(&safe);
}

static void line_write(const Core__Spi__Psg__V1__EventRecord *record, const char *json, size_t length,
                       struct buf *target) {
  struct buf subject = {0};
  member_write(json, length, "timestamp", 27, target);
  buf_printf(target, "%8llu  ", (unsigned long long)record->sequence);
  member_write(json, length, "event_family", 17, target);
  member_write(json, length, "event_type", 22, target);
  subject_write(json, length, &subject);
  ctl_text_append_safe(target, subject.data, subject.length);
  buf_append_char(target, '\n');
  buf_free(&subject);
}

static bool event_visit(void *arg, const ProtobufCMessage *message) {
  const Core__Spi__Psg__V1__EventRecord *record = (const void *)message;
  const char *json = (const char *)record->event_json.data;
  size_t length = record->event_json.len;
  struct view *view = arg;
  struct buf text = {0};
  view->last = record->sequence;
  if (!json || !json_check(json, length, JSON_DEPTH_MAX, NULL)) {
    ctl_note("event %llu is no JSON; left out", (unsigned long long)record->sequence);
    return true;
  }
  if (view->ctl->output == CTL_OUTPUT_JSON) {
    buf_append(&text, json, length);
    buf_append_char(&text, '\n');
  } else if (view->ctl->output == CTL_OUTPUT_YAML) {
    ctl_yaml_write(json, length, &text);
  } else {
    line_write(record, json, length, &text);
  }
  view->status = ctl_print(&text);
  buf_free(&text);
  return view->status == CTL_EXIT_OK;
}

static bool last_sequence_get(struct ctl *ctl, uint64_t *sequence, struct error *err) {
  const Core__Admin__V1__GetStatusRequest request = CORE__ADMIN__V1__GET_STATUS_REQUEST__INIT;
  ProtobufCMessage *reply = NULL;
  if (!ctl_call(ctl, "StatusService/GetStatus", &request.base, &reply, err))
    return false;
  *sequence = ((const Core__Admin__V1__GetStatusResponse *)reply)->event_sequence;
  ctl_message_free(reply);
  return true;
}

/* Until there is a core again. */
static void wait_for_core(struct view *view) {
  struct error err = {0};
  uint64_t sequence = 0;
  ctl_note("the core is gone; waiting for it");
  do
    ctl_sleep(view->ctl, RETRY_PAUSE_MS);
  while (!last_sequence_get(view->ctl, &sequence, &err));
  if (sequence < view->last) {
    view->last = 0;
    ctl_note("the core is back; its event log began anew");
  } else {
    ctl_note("the core is back; going on after event %llu", (unsigned long long)view->last);
  }
}

static int follow(struct view *view, Core__Spi__Psg__V1__ReadEventsRequest *request) {
  for (;;) {
    struct error err = {0};
    bool ended = ctl_stream(view->ctl, "EventAdminService/ReadEvents", &request->base, 0, event_visit, view, &err);
    if (view->status != CTL_EXIT_OK)
      return view->status;
    /* A core that stops in order ends the stream; one that dies breaks it. */
    if (!ended && err.category != ERROR_CATEGORY_UNAVAILABLE)
      return ctl_fail(&err);
    wait_for_core(view);
    request->tail = false;
    request->limit = 0;
    request->after_sequence = view->last;
  }
}

int ctl_run_events(struct ctl *ctl) {
  Core__Spi__Psg__V1__ReadEventsRequest request = CORE__SPI__PSG__V1__READ_EVENTS_REQUEST__INIT;
  struct view view = {.ctl = ctl};
  struct error err = {0};
  uint64_t tail, after, last;
  if (ctl_has(ctl, "tail") && ctl_has(ctl, "after"))
    return ctl_fail_usage("either --tail or --after");
  if (!ctl_number(ctl, "tail", TAIL_STANDARD, &tail, &err) || !ctl_number(ctl, "after", 0, &after, &err))
    return ctl_fail_usage("%s", err.message);
  if (!last_sequence_get(ctl, &last, &err))
    return ctl_fail(&err);
  request.follow = ctl_has(ctl, "follow");
  request.trace_id = ctl_borrow(ctl_text(ctl, "trace"));
  request.tail = !ctl_has(ctl, "after") && tail > 0;
  request.limit = request.tail ? tail : 0;
  request.after_sequence = ctl_has(ctl, "after") ? after : request.tail ? 0 : last;
  view.last = ctl_has(ctl, "after") ? after : last;
  request.families = ctl_texts(ctl, "family", &request.n_families);
  int status;
  if (request.follow)
    status = follow(&view, &request);
  else if (ctl_stream(ctl, "EventAdminService/ReadEvents", &request.base, ctl->timeout_ms, event_visit, &view, &err))
    status = view.status;
  else
    status = ctl_fail(&err);
  base_free(request.families);
  return status;
}
