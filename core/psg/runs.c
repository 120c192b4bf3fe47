/* runs.c: the graph's root and the trace of each run of the core.
 *
 * Genesis makes the graph id (PSG-16), kept as a row, and the ContextNode "gateway": draft, then active. Each run of
 * the core is a TraceNode: pending, running, completed when the core stops in order, failed when the next run finds it
 * running. */
#include <string.h>

#include "core/psg/psg_internal.h"
#include "sdk/base/json.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

#define META "{\"meta\":{\"protocol_version\":\"1.0.0\",\"schema_version\":\"1.0.0\"}"
#define STATUS_OPEN ",\"status\":\""

void psg_status_set(struct psg *psg, struct psg_node *node, const char *status, const char *more, size_t more_length) {
  const char *at = node->object + node->length;
  size_t open_length = sizeof(STATUS_OPEN) - 1, status_length = strlen(status);
  do
    BASE_CHECK(at-- > node->object); /* every object of ours has it */
  while (*at != ',' || strncmp(at, STATUS_OPEN, open_length) != 0);
  size_t kept = (size_t)(at - node->object) + open_length, length = kept + status_length + 1 + more_length + 1;
  psg_graph_node_reserve(node, length);
  char *out = node->object + kept;
  memcpy(out, status, status_length);
  out += status_length;
  *out++ = '"';
  memcpy(out, more, more_length);
  out += more_length;
  *out++ = '}';
  *out = 0;
  node->length = (uint32_t)length;
  psg_graph_node_changed(&psg->graph, node);
}

static bool genesis_read(struct psg *psg, const struct store_value *value) {
  char *graph_id = NULL, *context_id = NULL;
  bool good = json_check(value->data, value->length, JSON_DEPTH_MAX, NULL) &&
              (graph_id = psg_object_text(value->data, value->length, "graph_id")) && id_is_uuid_v4(graph_id) &&
              (context_id = psg_object_text(value->data, value->length, "context_id")) && id_is_uuid_v4(context_id);
  if (good) {
    memcpy(psg->graph_id, graph_id, ID_UUID_BYTES);
    memcpy(psg->context_id, context_id, ID_UUID_BYTES);
  }
  base_free(graph_id);
  base_free(context_id);
  return good;
}

static void context_stage(struct psg *psg, const char *status, const char *from, const char *to) {
  psg_stage_emit(psg, &(struct psg_stage_event){.type = "context_status_changed",
                                                .pipeline_id = psg->context_id,
                                                .stage_id = psg->context_id,
                                                .stage_name = to,
                                                .status = status,
                                                .resource_type = "context",
                                                .resource_id = psg->context_id,
                                                .from = from,
                                                .to = to,
                                                .reason = "genesis"});
}

static bool context_make(struct psg *psg, struct error *err) {
  struct buf object = {0};
  char at[PSG_TIME_LENGTH + 1];
  psg_time_next(psg, at);
  buf_printf(&object,
             META ",\"context_id\":\"%s\",\"root\":{\"domain\":\"gateway\",\"environment\":\"runtime\"},\"title\":"
                  "\"gateway\",\"created_at\":\"%s\",\"status\":\"draft\"}",
             psg->context_id, at);
  struct psg_node *context =
      psg_graph_node_add(&psg->graph, PSG_TYPE_ContextNode, psg->context_id, object.data, object.length, 16, true);
  buf_free(&object);
  context_stage(psg, "pending", "", "draft");
  if (!psg_commit_now(psg, false, err))
    return false;
  psg_status_set(psg, context, "active", "", 0);
  context_stage(psg, "running", "draft", "active");
  return psg_commit_now(psg, false, err);
}

bool psg_genesis_load(struct psg *psg, struct store *store, bool *fresh, struct error *err) {
  struct store_value value = {0};
  struct error missing = {0};
  *fresh = false;
  if (store_get(store, "psg", "genesis", &value, &missing)) {
    bool good = genesis_read(psg, &value);
    store_value_free(&value);
    if (!good)
      return error_set(err, ERR_STORE_CORRUPT, "The genesis of the state graph is damaged.");
    return psg_load(psg, store, err);
  }
  *fresh = error_is(&missing, ERR_NOT_FOUND);
  if (!*fresh && err)
    *err = missing;
  return *fresh;
}

bool psg_genesis_make(struct psg *psg, bool fresh, struct error *err) {
  if (!fresh)
    return psg_graph_find(&psg->graph, psg->context_id) || context_make(psg, err);
  id_pool_uuid_v4(&psg->ids, psg->graph_id);
  id_pool_uuid_v4(&psg->ids, psg->context_id);
  struct buf row = {0};
  buf_printf(&row, "{\"psg_schema_version\":1,\"graph_id\":\"%s\",\"context_id\":\"%s\"}", psg->graph_id,
             psg->context_id);
  struct store_batch *batch = store_batch_create();
  store_batch_put(batch, "psg", "genesis", row.data, row.length, STORE_REVISION_NONE);
  buf_free(&row);
  return store_commit_sync(psg->options.store, &batch, NULL, err) && context_make(psg, err);
}

/* ---- runs ---- */

static void run_stage(struct psg *psg, const struct psg_node *run, const char *status, const char *from,
                      const char *reason) {
  psg_stage_emit(psg, &(struct psg_stage_event){.type = "trace_status_changed",
                                                .pipeline_id = run->id,
                                                .stage_id = run->id,
                                                .stage_name = "run",
                                                .status = status,
                                                .trace_id = run->id,
                                                .resource_type = "trace",
                                                .resource_id = run->id,
                                                .from = from,
                                                .to = status,
                                                .reason = reason});
}

static void run_finish(struct psg *psg, struct psg_node *run, const char *status, const char *reason) {
  char more[64], at[PSG_TIME_LENGTH + 1];
  psg_time_next(psg, at);
  int length = snprintf(more, sizeof(more), ",\"finished_at\":\"%s\"", at);
  run->live = false;
  psg_status_set(psg, run, status, more, (size_t)length);
  run_stage(psg, run, status, "running", reason);
}

void psg_runs_index(struct psg *psg) {
  for (struct psg_node *node = psg->graph.nodes; node; node = node->hh.next) {
    if (node->type != PSG_TYPE_TraceNode || !node->owned)
      continue;
    char *status = psg_object_text(node->object, node->length, "status");
    node->live = str_equal(status, "running") || str_equal(status, "pending");
    base_free(status);
    DL_APPEND2(psg->runs, node, list_prev, list_next);
    psg->run_count++;
  }
}

/* Traces of old runs go once nothing hangs on them. */
static void runs_trim(struct psg *psg) {
  struct psg_node *run, *next;
  DL_FOREACH_SAFE2(psg->runs, run, next, list_next) {
    if (psg->run_count <= PSG_RUNS_MAX)
      break;
    if (run->children)
      continue;
    DL_DELETE2(psg->runs, run, list_prev, list_next);
    psg->run_count--;
    psg_graph_node_delete(&psg->graph, run);
  }
}

/* Each status is an event of its own in the log, in the one batch that nobody waits for. */
void psg_run_begin(struct psg *psg) {
  struct buf object = {0};
  char at[PSG_TIME_LENGTH + 1], span_id[ID_UUID_BYTES];
  for (struct psg_node *old = psg->runs; old; old = old->list_next) {
    if (!old->live)
      continue;
    char *status = psg_object_text(old->object, old->length, "status");
    if (str_equal(status, "pending")) { /* stopped between the two: it ran, as far as anybody can tell */
      psg_status_set(psg, old, "running", "", 0);
      run_stage(psg, old, "running", "pending", "core.restarted");
      psg_update_emit(psg);
    }
    base_free(status);
    run_finish(psg, old, "failed", "core.restarted");
  }
  runs_trim(psg);
  psg_time_next(psg, at);
  id_pool_uuid_v4(&psg->ids, span_id);
  buf_printf(&object,
             META ",\"trace_id\":\"%s\",\"context_id\":\"%s\",\"root_span\":{\"trace_id\":\"%s\",\"span_id\":\"%s\","
                  "\"context_id\":\"%s\"},\"started_at\":\"%s\",\"status\":\"pending\"}",
             psg->run_id, psg->context_id, psg->run_id, span_id, psg->context_id, at);
  psg->run = psg_graph_node_add(&psg->graph, PSG_TYPE_TraceNode, psg->run_id, object.data, object.length, 64, true);
  buf_free(&object);
  psg->run->live = true;
  psg_graph_parent_link(&psg->graph, psg->run, psg_graph_find(&psg->graph, psg->context_id));
  DL_APPEND2(psg->runs, psg->run, list_prev, list_next);
  psg->run_count++;
  run_stage(psg, psg->run, "pending", "", "core.started");
  psg_update_emit(psg);
  psg_status_set(psg, psg->run, "running", "", 0);
  run_stage(psg, psg->run, "running", "pending", "core.started");
}

void psg_run_end(struct psg *psg) {
  if (psg->run)
    run_finish(psg, psg->run, "completed", "core.stopped");
}
