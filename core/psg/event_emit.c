/* event_emit.c: events of modules. Each is a batch of its own: one that the store refuses (an event_id that is there
 * already, VSL-2) takes no other down with it. Bytes are stored as they came. */
#include <string.h>

#include "core/psg/event_schema.h"
#include "core/psg/psg_internal.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

#define EVENT_MAX_BYTES (1u << 20)

struct emission {
  psg_event_done *done;
  void *arg;
};

static void emitted(void *arg, const struct store_commit_result *result, const struct error *err) {
  struct emission *emission = arg;
  if (emission->done)
    emission->done(emission->arg, err ? 0 : result->first_seq, err);
  base_free(emission);
}

/* The state graph alone says what happens to it: a foreign event of its graph would break the conservation law. */
static bool graph_is_foreign(const struct psg *psg, const char *json, size_t length, struct error *err) {
  char *graph_id = psg_object_text(json, length, "graph_id");
  bool foreign = !str_equal(graph_id, psg->graph_id);
  base_free(graph_id);
  return foreign || error_set(err, ERR_PSG_EVENT_INVALID, "graph_id: only the core reports changes of this graph.");
}

static bool emission_check(const struct psg *psg, const char *json, size_t length, const char *trace_id,
                           const char *context_id, enum psg_event_schema *schema, struct error *err) {
  const char *const texts[] = {trace_id, context_id};
  if (length > EVENT_MAX_BYTES)
    return error_set(err, ERR_ARGUMENT_TOO_LARGE, "The event is larger than %u bytes.", EVENT_MAX_BYTES);
  for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
    if (!str_is_empty(texts[i]) &&
        (strnlen(texts[i], PSG_TEXT_MAX_BYTES) == PSG_TEXT_MAX_BYTES || !str_is_visible_ascii(texts[i])))
      return error_set(err, ERR_ARGUMENT_INVALID, "The %s is not acceptable.", i ? "context id" : "trace id");
  return psg_event_examine(json, length, schema, err) &&
         (*schema != PSG_SCHEMA_GRAPH_UPDATE || graph_is_foreign(psg, json, length, err));
}

void psg_event_emit(struct psg *psg, const void *event_json, size_t length, const char *trace_id,
                    const char *context_id, psg_event_done *done, void *arg) {
  struct error err = {0};
  enum psg_event_schema schema;
  if (!psg_wait(psg, &err) || !emission_check(psg, event_json, length, trace_id, context_id, &schema, &err)) {
    log_error_value(LOG_WARN, "psg", "an event was refused", &err); /* EVT-11 */
    if (done)
      done(arg, 0, &err);
    return;
  }
  char *event_id = psg_object_text(event_json, length, "event_id");
  char *type = psg_object_text(event_json, length, "event_type");
  char *family = schema >= PSG_SCHEMA_SA ? base_strdup(schema == PSG_SCHEMA_SA ? "sa" : "map")
                                         : psg_object_text(event_json, length, "event_family");
  struct emission *emission = BASE_NEW(struct emission);
  *emission = (struct emission){.done = done, .arg = arg};
  struct store_batch *batch = store_batch_create();
  store_batch_append_event(batch, &(struct store_event){
                                      .event_id = event_id,
                                      .trace_id = trace_id,
                                      .context_id = context_id,
                                      .family = family,
                                      .type = type,
                                      .wall_us = store_event_time_next(psg->options.store),
                                      .bytes = event_json,
                                      .length = length,
                                  });
  store_commit(psg->options.store, &batch, emitted, emission);
  base_free(event_id);
  base_free(type);
  base_free(family);
}
