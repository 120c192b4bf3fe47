/* executions.c: what the gateway carries out (AEL-3, GLUE-7, SPI-9): an event when it starts and when it ends, a
 * SpanNode under the trace of the run. This is on the path of every invocation: one allocation for the node, one for
 * its object, one for the edge; events go straight into the bytes of the batch. */
#include <stdio.h>
#include <string.h>

#include "core/psg/psg_internal.h"
#include "sdk/base/str.h"

#define RUNNING ",\"status\":\"running\"}" /* the end of the object of a live span */
#define SPAN_SPARE_BYTES 200               /* what the end adds to the object */

static const char *const status_names[] = {[PSG_EXECUTION_COMPLETED] = "completed",
                                           [PSG_EXECUTION_FAILED] = "failed",
                                           [PSG_EXECUTION_CANCELLED] = "cancelled"};
static const char *const event_types[] = {[PSG_EXECUTION_COMPLETED] = "execution_completed",
                                          [PSG_EXECUTION_FAILED] = "execution_failed",
                                          [PSG_EXECUTION_CANCELLED] = "execution_cancelled"};

/* The executor kinds of the schema; what else the caller says is "external". */
static const char *kind_known(const char *kind) {
  static const char *const kinds[] = {"tool", "agent", "llm", "worker"};
  for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
    if (str_equal(kind, kinds[i]))
      return kinds[i];
  return "external";
}

static void text_field(struct buf *json, const char *key, const char *text) {
  if (!str_is_empty(text))
    psg_field(json, key, text);
}

/* What event and node say alike. */
static void about_append(struct buf *json, const struct psg_execution_start *start) {
  text_field(json, "record_id", start->record_id);
  text_field(json, "record_name", start->record_name);
  text_field(json, "module", start->module_id);
  text_field(json, "owner_family", start->owner_family);
  text_field(json, "subject", start->subject);
  text_field(json, "request_id", start->request_id);
}

#define TRACE_FIELD ",\"trace_id\":\""

/* Remembers what the end of the span needs: the kind, and where the trace id lies in the object. field: as it was
 * written there, at `at`. */
static void span_note(struct psg_node *span, const char *kind, const char *field, size_t at, size_t length) {
  size_t open = sizeof(TRACE_FIELD) - 1;
  if (at + length > UINT16_MAX || memchr(field, '\\', length))
    return; /* the object is read again */
  span->kind = kind;
  if (!length)
    return;
  span->trace_at = (uint16_t)(at + open);
  span->trace_length = (uint16_t)(length - open - 1);
}

/* The trace id of a span; `kept` is what the caller frees. */
static const char *trace_of(const struct psg_node *span, char text[static PSG_TEXT_MAX_BYTES + 1], char **kept) {
  if (!span->kind)
    return *kept = psg_object_text(span->object, span->length, "trace_id");
  BASE_CHECK(span->trace_length <= PSG_TEXT_MAX_BYTES);
  memcpy(text, span->object + span->trace_at, span->trace_length);
  text[span->trace_length] = 0;
  return text;
}

void psg_execution_begin(struct psg *psg, const struct psg_execution_start *start,
                         char execution_id[static ID_UUID_BYTES]) {
  BASE_CHECK(psg_wait(psg, NULL)); /* who carries something out has asked */
  char at[PSG_TIME_LENGTH + 1];
  const char *kind = kind_known(start->executor_kind);
  struct buf *about = &psg->scratch;
  buf_clear(about);
  about_append(about, start);
  id_pool_uuid_v4(&psg->ids, execution_id);
  struct buf *json = psg_event_open(psg, "runtime_execution", "execution_started", start->trace_id, at);
  if (json) {
    psg_literal(json, ",\"execution_id\":\"");
    buf_append(json, execution_id, ID_UUID_BYTES - 1);
    psg_literal(json, "\",\"executor_kind\":\"");
    buf_append_text(json, kind);
    psg_literal(json, "\",\"status\":\"running\",\"payload\":{\"operation\":\"invoke\"");
    buf_append(json, about->data, about->length);
    psg_literal(json, "}");
    psg_event_close(psg);
  }
  /* The object: fixed part, what it is about, the status last. */
  size_t begin = about->length;
  psg_literal(about, "{\"span_id\":\"");
  buf_append(about, execution_id, ID_UUID_BYTES - 1);
  psg_literal(about, "\",\"parent_id\":\"");
  buf_append(about, psg->run_id, ID_UUID_BYTES - 1);
  psg_literal(about, "\",\"executor_kind\":\"");
  buf_append_text(about, kind);
  psg_literal(about, "\"");
  buf_reserve(about, begin + 256); /* its own head is copied: no move in between */
  buf_append(about, about->data, begin);
  size_t trace_from = about->length, trace_to;
  text_field(about, "trace_id", start->trace_id);
  trace_to = about->length;
  psg_literal(about, ",\"started_at\":\"");
  buf_append(about, at, PSG_TIME_LENGTH);
  psg_literal(about, "\"" RUNNING);
  struct psg_node *span = psg_graph_node_add(&psg->graph, PSG_TYPE_SpanNode, execution_id, about->data + begin,
                                             about->length - begin, SPAN_SPARE_BYTES, true);
  span->live = true;
  span_note(span, kind, about->data + trace_from, trace_from - begin, trace_to - trace_from);
  psg_graph_parent_link(&psg->graph, span, psg->run);
  psg_source_set(psg, PSG_SOURCE_CORE);
  psg_touch(psg);
}

void psg_execution_denied(struct psg *psg, const struct psg_execution_start *start, const char *error_code) {
  char at[PSG_TIME_LENGTH + 1], execution_id[ID_UUID_BYTES];
  struct buf *about = &psg->scratch;
  if (!psg_wait(psg, NULL))
    return;
  buf_clear(about);
  about_append(about, start);
  text_field(about, "error_code", error_code);
  id_pool_uuid_v4(&psg->ids, execution_id);
  struct buf *json = psg_event_open(psg, "runtime_execution", "execution_denied", start->trace_id, at);
  if (!json)
    return;
  psg_literal(json, ",\"execution_id\":\"");
  buf_append(json, execution_id, ID_UUID_BYTES - 1);
  psg_literal(json, "\",\"executor_kind\":\"");
  buf_append_text(json, kind_known(start->executor_kind));
  psg_literal(json, "\",\"status\":\"failed\",\"payload\":{\"operation\":\"invoke\"");
  buf_append(json, about->data, about->length);
  psg_literal(json, "}");
  psg_event_close(psg);
  psg_touch(psg);
}

static void history_trim(struct psg *psg) {
  while (psg->ended_count > psg->options.execution_history) {
    struct psg_node *oldest = psg->ended;
    DL_DELETE2(psg->ended, oldest, list_prev, list_next);
    psg->ended_count--;
    psg_graph_node_delete(&psg->graph, oldest);
  }
}

static void span_end(struct psg *psg, struct psg_node *span, enum psg_execution_status status, uint64_t duration_us,
                     const char *error_code, uint64_t result_bytes) {
  char at[PSG_TIME_LENGTH + 1], trace_text[PSG_TEXT_MAX_BYTES + 1];
  struct buf *more = &psg->scratch;
  char *kept_trace = NULL, *kept_kind = NULL;
  const char *trace_id = trace_of(span, trace_text, &kept_trace);
  const char *kind = span->kind;
  if (!kind)
    kind = kept_kind = psg_object_text(span->object, span->length, "executor_kind");
  buf_clear(more);
  psg_literal(more, ",\"duration_us\":");
  buf_append_u64(more, duration_us);
  psg_literal(more, ",\"result_bytes\":");
  buf_append_u64(more, result_bytes);
  text_field(more, "error_code", error_code);
  struct buf *json = psg_event_open(psg, "runtime_execution", event_types[status], trace_id, at);
  if (json) {
    psg_literal(json, ",\"execution_id\":\"");
    buf_append(json, span->id, ID_UUID_BYTES - 1);
    psg_literal(json, "\",\"executor_kind\":\"");
    buf_append_text(json, kind_known(kind));
    psg_literal(json, "\",\"status\":\"");
    buf_append_text(json, status_names[status]);
    psg_literal(json, "\",\"payload\":{\"operation\":\"invoke\"");
    buf_append(json, more->data, more->length);
    psg_literal(json, "}");
    psg_event_close(psg);
  }
  psg_literal(more, ",\"finished_at\":\"");
  buf_append(more, at, PSG_TIME_LENGTH);
  psg_literal(more, "\"");
  psg_status_set(psg, span, status_names[status], more->data, more->length);
  base_free(kept_trace);
  base_free(kept_kind);
  span->live = false;
  DL_APPEND2(psg->ended, span, list_prev, list_next);
  psg->ended_count++;
}

void psg_execution_end(struct psg *psg, const char *execution_id, enum psg_execution_status status,
                       uint64_t duration_us, const char *error_code, uint64_t result_bytes) {
  BASE_CHECK(status <= PSG_EXECUTION_CANCELLED);
  if (!psg_wait(psg, NULL))
    return;
  struct psg_node *span = psg_graph_find(&psg->graph, execution_id);
  if (!span || span->type != PSG_TYPE_SpanNode || !span->live)
    return;
  span_end(psg, span, status, duration_us, error_code, result_bytes);
  history_trim(psg);
  psg_source_set(psg, PSG_SOURCE_CORE);
  psg_touch(psg);
}

void psg_executions_index(struct psg *psg) {
  for (struct psg_node *node = psg->graph.nodes; node; node = node->hh.next) {
    if (node->type != PSG_TYPE_SpanNode)
      continue;
    node->live = node->length >= sizeof(RUNNING) - 1 &&
                 memcmp(node->object + node->length - (sizeof(RUNNING) - 1), RUNNING, sizeof(RUNNING) - 1) == 0;
    if (node->live)
      continue;
    DL_APPEND2(psg->ended, node, list_prev, list_next);
    psg->ended_count++;
  }
}

void psg_executions_abandon(struct psg *psg, enum psg_execution_status status, const char *error_code) {
  for (struct psg_node *node = psg->graph.nodes; node; node = node->hh.next)
    if (node->type == PSG_TYPE_SpanNode && node->live)
      span_end(psg, node, status, 0, error_code, 0);
  history_trim(psg);
}
