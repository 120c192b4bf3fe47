/* sample.c: prints every event and node that a short life of the graph leaves, as JSON lines, for a validator that is
 * not ours: {"event":…} and {"node":…,"type":"ContextNode"}. */
#include <stdio.h>
#include <string.h>

#include "core/psg/psg_internal.h"
#include "sdk/base/log.h"

static bool event_print(void *arg, const struct store_event *event) {
  (void)arg;
  printf("{\"event\":%.*s}\n", (int)event->length, (const char *)event->bytes);
  return true;
}

static void live(struct psg *psg, unsigned round) {
  static const char *const kinds[] = {"tool", "agent", "llm", "external", "something else"};
  static const char *const states[] = {"discovered", "registered", "initializing", "warming", "ready",
                                       "degraded",   "draining",   "stopping",     "stopped", "backoff"};
  char execution_id[ID_UUID_BYTES];
  for (size_t i = 0; i < 40; i++) {
    psg_execution_begin(psg,
                        &(struct psg_execution_start){.executor_kind = kinds[i % 5],
                                                      .record_name = "n\xff\"\\\n",
                                                      .subject = "dev@example.com",
                                                      .trace_id = i % 2 ? "" : "0af7651916cd43dd8448eb211c80319c"},
                        execution_id);
    if (i % 4 == 0)
      psg_commit_now(psg, false, NULL);
    if (i % 7)
      psg_execution_end(psg, execution_id, (enum psg_execution_status)(i % 3), i, i % 3 ? "some.code" : NULL, i);
  }
  for (size_t i = 1; i < sizeof(states) / sizeof(states[0]); i++) {
    psg_module_transition_record(psg, &(struct psg_module_transition){.module_id = "mcp",
                                                                      .protocol_family = "mcp",
                                                                      .module_version = round ? "1.2.3-rc.1" : "next",
                                                                      .generation = round,
                                                                      .from_state = states[i - 1],
                                                                      .to_state = states[i],
                                                                      .cause = "sample"});
    if (i % 2)
      psg_commit_now(psg, false, NULL);
  }
}

int main(void) {
  struct error err = {0};
  log_level_set(LOG_FATAL);
  struct store *store = store_open(&(struct store_options){.backend = "memory"}, &err);
  for (unsigned round = 0; store && round < 3; round++) {
    struct psg *psg = psg_open(&(struct psg_options){.store = store, .execution_history = 20}, &err);
    if (!psg)
      break;
    live(psg, round);
    for (const struct psg_node *node = psg->graph.nodes; node; node = node->hh.next)
      printf("{\"node\":%s,\"type\":\"%s\"}\n", node->object, psg_types[node->type].name);
    psg_close(&psg);
  }
  bool good = !error_is_set(&err) && store_events_read(store, &(struct store_event_query){0}, event_print, NULL, &err);
  if (!good)
    fprintf(stderr, "sample: %s\n", err.message);
  store_close(&store);
  return good ? 0 : 1;
}
