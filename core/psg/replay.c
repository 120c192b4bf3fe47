/* replay.c: the graph from its last checkpoint and the GraphUpdateEvents after it. Everything is checked on the way:
 * an operation that does not fit, or counts that do not come out, mean that the log is damaged. */
#include <string.h>

#include "core/psg/psg_internal.h"
#include "sdk/base/json.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

struct slice {
  const char *data;
  size_t length;
};

static bool member(struct slice object, const char *key, struct slice *value) {
  return json_member(object.data, object.length, key, &value->data, &value->length);
}

/* A string without escapes, without its quotes. */
static bool member_text(struct slice object, const char *key, struct slice *text) {
  if (!member(object, key, text) || text->length < 2 || text->data[0] != '"')
    return false;
  text->data++;
  text->length -= 2;
  return true;
}

static bool member_number(struct slice object, const char *key, int64_t *number) {
  struct slice token;
  char digits[24];
  if (!member(object, key, &token) || token.length >= sizeof(digits))
    return false;
  memcpy(digits, token.data, token.length);
  digits[token.length] = 0;
  return str_parse_i64(digits, number);
}

static bool text_is(struct slice text, const char *wanted) {
  return text.length == strlen(wanted) && memcmp(text.data, wanted, text.length) == 0;
}

static struct psg_node *member_node(struct psg *psg, struct slice object, const char *key) {
  struct slice id;
  uint8_t binary[PSG_UUID_BYTES];
  return member_text(object, key, &id) && psg_uuid_parse(id.data, id.length, binary)
             ? psg_graph_find_key(&psg->graph, binary)
             : NULL;
}

static bool node_apply(struct psg *psg, struct slice operation, bool create) {
  struct slice type_name, id, object, owned;
  uint8_t key[PSG_UUID_BYTES];
  char id_text[ID_UUID_BYTES] = "";
  int64_t revision;
  if (!member_text(operation, "node_type", &type_name) || !member_text(operation, "node_id", &id) ||
      !member(operation, "new_value", &object) || !member_number(operation, "revision", &revision) ||
      !psg_uuid_parse(id.data, id.length, key))
    return false;
  enum psg_type type = psg_type_find(type_name.data, type_name.length);
  struct psg_node *node = psg_graph_find_key(&psg->graph, key);
  if (type == PSG_TYPE_NONE || (create ? node != NULL : !node || node->type != type))
    return false;
  memcpy(id_text, id.data, id.length);
  if (create)
    node = psg_graph_node_add(&psg->graph, type, id_text, object.data, object.length, 0,
                              member(operation, "owned", &owned));
  else
    psg_graph_node_set(&psg->graph, node, object.data, object.length);
  node->revision = (uint64_t)revision;
  return true;
}

static bool node_remove(struct psg *psg, struct slice operation) {
  struct psg_node *node = member_node(psg, operation, "node_id");
  int64_t edges;
  if (!node || !member_number(operation, "edges", &edges))
    return false;
  unsigned before = HASH_COUNT(psg->graph.edges);
  psg_graph_node_delete(&psg->graph, node);
  return before - HASH_COUNT(psg->graph.edges) == (uint64_t)edges;
}

static bool edge_apply(struct psg *psg, struct slice operation, bool create) {
  struct slice type_name;
  struct psg_node *from = member_node(psg, operation, "from_id"), *to = member_node(psg, operation, "to_id");
  if (!from || !to || !member_text(operation, "edge_type", &type_name))
    return false;
  enum psg_edge_type type = psg_edge_type_find(type_name.data, type_name.length);
  if (type == PSG_EDGE_NONE)
    return false;
  struct psg_edge *edge = psg_graph_edge_find(&psg->graph, type, from, to);
  if (create == (edge != NULL))
    return false;
  if (create)
    psg_graph_edge_add(&psg->graph, type, from, to);
  else
    psg_graph_edge_delete(&psg->graph, edge);
  return true;
}

static bool operation_apply(struct psg *psg, struct slice operation) {
  struct slice verb, node_type;
  if (!member_text(operation, "operation", &verb))
    return false;
  bool create = text_is(verb, "create"), delete = text_is(verb, "delete");
  if (member_text(operation, "node_type", &node_type))
    return delete ? node_remove(psg, operation)
                  : (create || text_is(verb, "update")) && node_apply(psg, operation, create);
  return (create || delete) && edge_apply(psg, operation, create);
}

static bool counts_match(struct psg *psg, struct slice object) {
  int64_t nodes, edges;
  return member_number(object, "node_count", &nodes) && member_number(object, "edge_count", &edges) &&
         (uint64_t)nodes == HASH_COUNT(psg->graph.nodes) && (uint64_t)edges == HASH_COUNT(psg->graph.edges);
}

struct replay {
  struct psg *psg;
  char skip_through[ID_UUID_BYTES]; /* "": nothing is skipped any more */
  uint64_t bad_seq;
};

static bool event_apply(struct psg *psg, struct slice event) {
  struct slice payload, operations, item, key, graph_id, at;
  struct json_cursor cursor;
  if (!json_check(event.data, event.length, JSON_DEPTH_MAX, NULL) || !member_text(event, "graph_id", &graph_id))
    return false;
  if (!text_is(graph_id, psg->graph_id)) /* another graph, of a module */
    return true;
  if (!member(event, "payload", &payload))
    return false;
  if (!member(payload, "operations", &operations)) {
    if (!operation_apply(psg, payload))
      return false;
  } else {
    if (!json_walk(operations.data, operations.length, '[', &cursor))
      return false;
    while (json_next(&cursor, &key.data, &key.length, &item.data, &item.length))
      if (!operation_apply(psg, item))
        return false;
  }
  if (member_text(event, "event_id", &key) && key.length == ID_UUID_BYTES - 1)
    memcpy(psg->last_update_id, key.data, key.length);
  if (member_text(event, "timestamp", &at) && at.length == PSG_TIME_LENGTH)
    memcpy(psg->last_update_at, at.data, at.length);
  return counts_match(psg, payload);
}

static bool event_visit(void *arg, const struct store_event *event) {
  struct replay *replay = arg;
  if (replay->skip_through[0]) {
    if (str_equal(event->event_id, replay->skip_through))
      replay->skip_through[0] = 0;
    return true;
  }
  if (event_apply(replay->psg, (struct slice){event->bytes, event->length}))
    return true;
  replay->bad_seq = event->seq;
  return false;
}

static bool checkpoint_apply(struct psg *psg, struct slice checkpoint, struct replay *replay) {
  struct slice nodes, edges, item, key, skip, hash, graph_id;
  struct json_cursor cursor;
  char found[65];
  if (!json_check(checkpoint.data, checkpoint.length, JSON_DEPTH_MAX, NULL) ||
      !member_text(checkpoint, "graph_id", &graph_id) || !text_is(graph_id, psg->graph_id) ||
      !member_text(checkpoint, "skip_through", &skip) || skip.length >= ID_UUID_BYTES ||
      !member_text(checkpoint, "state_hash", &hash) || !member(checkpoint, "nodes", &nodes) ||
      !member(checkpoint, "edges", &edges))
    return false;
  memcpy(replay->skip_through, skip.data, skip.length);
  replay->skip_through[skip.length] = 0;
  memcpy(psg->last_update_id, replay->skip_through, sizeof(psg->last_update_id));
  if (!json_walk(nodes.data, nodes.length, '[', &cursor))
    return false;
  while (json_next(&cursor, &key.data, &key.length, &item.data, &item.length))
    if (!node_apply(psg, item, true))
      return false;
  if (!json_walk(edges.data, edges.length, '[', &cursor))
    return false;
  while (json_next(&cursor, &key.data, &key.length, &item.data, &item.length))
    if (!edge_apply(psg, item, true))
      return false;
  psg_state_hash(psg, found);
  return counts_match(psg, checkpoint) && text_is(hash, found);
}

bool psg_load(struct psg *psg, struct error *err) {
  struct replay replay = {.psg = psg};
  struct store_value value = {0};
  struct error missing = {0};
  uint64_t seq = 0;
  if (store_checkpoint_get(psg->options.store, "psg.graph", &seq, &value, &missing)) {
    bool good = checkpoint_apply(psg, (struct slice){value.data, value.length}, &replay);
    store_value_free(&value);
    if (!good)
      return error_set(err, ERR_STORE_CORRUPT, "The checkpoint of the state graph is damaged.");
  } else if (!error_is(&missing, ERR_NOT_FOUND)) {
    if (err)
      *err = missing;
    return false;
  }
  struct store_event_query query = {.after_seq = seq, .family = PSG_FAMILY_UPDATE};
  if (!store_events_read(psg->options.store, &query, event_visit, &replay, err))
    return false;
  if (replay.bad_seq || replay.skip_through[0])
    return error_set(err, ERR_STORE_CORRUPT, "The log of the state graph is damaged at event %llu.",
                     (unsigned long long)(replay.bad_seq ? replay.bad_seq : seq));
  psg_graph_settle(&psg->graph);
  return true;
}
