/* update.c: what changed since the last flush, as GraphUpdateEvents (GLUE-2, EVT-2, EVT-5, EVT-10).
 *
 * One change is an event of its own kind, several are one event of kind "bulk" with the net deltas. The payload of a
 * single change is the operation itself, that of a bulk event has them in "operations"; both end in the counts after
 * the event. An operation carries everything that replay needs: node
 * {"operation":"create"|"update","node_type":…,"node_id":…,"revision":n,"owned":true?,"new_value":{…}}
 *         {"operation":"delete","node_type":…,"node_id":…,"edges":n}      edges: how many went with it
 *   edge  {"operation":"create"|"delete","edge_type":…,"from_id":…,"to_id":…}
 * Order: edges gone, nodes gone, nodes new and changed, edges new. */
#include <inttypes.h>
#include <string.h>

#include "core/psg/psg_internal.h"

struct update {
  struct psg *psg;
  struct buf operations; /* separated by commas */
  size_t count;
  int64_t node_delta, edge_delta;
  const char *kind; /* of the only operation */
};

static void update_close(struct update *update) {
  struct psg *psg = update->psg;
  struct psg_graph *graph = &psg->graph;
  bool bulk = update->count > 1;
  const char *kind = bulk ? "bulk" : update->kind;
  if (!update->count)
    return;
  struct psg_pending *pending = &psg->waiting;
  char at[PSG_TIME_LENGTH + 1];
  pending->has_update = true;
  struct buf *json = psg_event_open(psg, PSG_FAMILY_UPDATE, kind, NULL, at);
  graph->logged_nodes = (uint64_t)((int64_t)graph->logged_nodes + update->node_delta);
  graph->logged_edges = (uint64_t)((int64_t)graph->logged_edges + update->edge_delta);
  buf_printf(json, ",\"graph_id\":\"%s\",\"update_kind\":\"%s\",\"node_delta\":%" PRId64 ",\"edge_delta\":%" PRId64,
             psg->graph_id, kind, update->node_delta, update->edge_delta);
  psg_field(json, "source_module", psg->source[0] ? psg->source : PSG_SOURCE_CORE);
  psg_literal(json, ",\"payload\":{");
  if (bulk) {
    psg_literal(json, "\"operations\":[");
    buf_append(json, update->operations.data, update->operations.length);
    psg_literal(json, "]");
  } else { /* without its braces */
    buf_append(json, update->operations.data + 1, update->operations.length - 2);
  }
  buf_printf(json, ",\"node_count\":%" PRIu64 ",\"edge_count\":%" PRIu64 "}", graph->logged_nodes, graph->logged_edges);
  psg_event_close(psg);
  memcpy(psg->last_update_id, pending->entries[pending->entry_count - 1].event_id, ID_UUID_BYTES);
  memcpy(psg->last_update_at, at, sizeof(at));
  buf_clear(&update->operations);
  update->count = 0;
  update->node_delta = update->edge_delta = 0;
}

static struct buf *operation_open(struct update *update, const char *kind, int node_delta, int64_t edge_delta) {
  if (update->operations.length > PSG_UPDATE_MAX_BYTES)
    update_close(update);
  if (update->count++)
    buf_append_char(&update->operations, ',');
  update->kind = kind;
  update->node_delta += node_delta;
  update->edge_delta += edge_delta;
  update->psg->operations++;
  return &update->operations;
}

static void edge_operation(struct update *update, bool create, enum psg_edge_type type, const char *from,
                           const char *to) {
  struct buf *json = operation_open(update, create ? "edge_add" : "edge_delete", 0, create ? 1 : -1);
  if (create)
    psg_literal(json, "{\"operation\":\"create\",\"edge_type\":\"");
  else
    psg_literal(json, "{\"operation\":\"delete\",\"edge_type\":\"");
  buf_append_text(json, psg_edge_types[type].name);
  psg_literal(json, "\",\"from_id\":\"");
  buf_append(json, from, ID_UUID_BYTES - 1);
  psg_literal(json, "\",\"to_id\":\"");
  buf_append(json, to, ID_UUID_BYTES - 1);
  psg_literal(json, "\"}");
}

static void node_operation(struct update *update, const struct psg_node *node) {
  bool create = node->change == PSG_ADDED;
  struct buf *json = operation_open(update, create ? "node_add" : "node_update", create, 0);
  if (create)
    psg_literal(json, "{\"operation\":\"create\",\"node_type\":\"");
  else
    psg_literal(json, "{\"operation\":\"update\",\"node_type\":\"");
  buf_append_text(json, psg_types[node->type].name);
  psg_literal(json, "\",\"node_id\":\"");
  buf_append(json, node->id, ID_UUID_BYTES - 1);
  psg_literal(json, "\",\"revision\":");
  buf_append_u64(json, node->revision);
  if (node->owned)
    psg_literal(json, ",\"owned\":true");
  psg_literal(json, ",\"new_value\":");
  buf_append(json, node->object, node->length);
  buf_append_char(json, '}');
}

void psg_update_emit(struct psg *psg) {
  struct psg_graph *graph = &psg->graph;
  struct update update = {.psg = psg, .operations = psg->scratch};
  buf_clear(&update.operations);
  for (size_t i = 0; i < graph->gone_edge_count; i++)
    edge_operation(&update, false, graph->gone_edges[i].type, graph->gone_edges[i].from, graph->gone_edges[i].to);
  for (size_t i = 0; i < graph->gone_node_count; i++) {
    const struct psg_gone_node *gone = &graph->gone_nodes[i];
    struct buf *json = operation_open(&update, "node_delete", -1, -(int64_t)gone->edges);
    psg_literal(json, "{\"operation\":\"delete\",\"node_type\":\"");
    buf_append_text(json, psg_types[gone->type].name);
    psg_literal(json, "\",\"node_id\":\"");
    buf_append(json, gone->id, ID_UUID_BYTES - 1);
    psg_literal(json, "\",\"edges\":");
    buf_append_u64(json, gone->edges);
    psg_literal(json, "}");
  }
  for (const struct psg_node *node = graph->changed_nodes; node; node = node->change_next)
    node_operation(&update, node);
  for (const struct psg_edge *edge = graph->changed_edges; edge; edge = edge->change_next)
    edge_operation(&update, true, (enum psg_edge_type)edge->key.type, edge->from->id, edge->to->id);
  update_close(&update);
  psg->scratch = update.operations;
  /* The conservation law (PSG-12): what the log adds up to is what is here. */
  BASE_CHECK(graph->logged_nodes == HASH_COUNT(graph->nodes) && graph->logged_edges == HASH_COUNT(graph->edges));
  psg_graph_settle(graph);
}
