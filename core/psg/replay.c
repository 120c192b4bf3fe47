/* replay.c: the graph from its last checkpoint and the GraphUpdateEvents after it. Everything is checked on the way:
 * an operation that does not fit, or counts that do not come out, mean that the log is damaged. A checkpoint that this
 * core does not read is passed over: the whole log says the same.
 *
 * A core that was killed is away for as long as this takes, so each byte of an event is looked at once: the reader
 * below goes into objects and arrays where json_member() would look for their ends first. */
#include <string.h>

#include "core/psg/psg_internal.h"
#include "sdk/base/json.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

struct slice {
  const char *data; /* NULL: absent */
  size_t length;
};

/* ---- reading JSON ---- */

struct reader {
  const char *at, *end;
};
enum step { STEP_ITEM, STEP_END, STEP_BAD };

static bool take(struct reader *reader, char wanted) {
  const char *at = reader->at;
  while (at < reader->end && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t'))
    at++;
  reader->at = at;
  if (at == reader->end || *at != wanted)
    return false;
  reader->at++;
  return true;
}

/* To the next member or item of what was entered, or out of it. *begun starts as false. */
static enum step next(struct reader *reader, char close, bool *begun) {
  if (take(reader, close))
    return STEP_END;
  if (*begun && !take(reader, ','))
    return STEP_BAD;
  *begun = true;
  return STEP_ITEM;
}

/* One whole value, checked. */
static bool value_read(struct reader *reader, struct slice *value) {
  struct json_cursor cursor = {.at = reader->at, .end = reader->end};
  struct slice none;
  if (!json_next(&cursor, &none.data, &none.length, &value->data, &value->length))
    return false;
  reader->at = value->data + value->length;
  return true;
}

/* Without its quotes; NULL when the value is no string. Escapes stay: no text that is looked at here has any. */
static struct slice text_of(struct slice value) {
  if (!value.data || value.length < 2 || value.data[0] != '"')
    return (struct slice){0};
  return (struct slice){value.data + 1, value.length - 2};
}

static bool key_read(struct reader *reader, struct slice *key) {
  if (!value_read(reader, key))
    return false;
  *key = text_of(*key);
  return key->data && take(reader, ':');
}

static bool number_of(struct slice value, int64_t *number) {
  char digits[24];
  if (!value.data || value.length >= sizeof(digits))
    return false;
  memcpy(digits, value.data, value.length);
  digits[value.length] = 0;
  return str_parse_i64(digits, number);
}

static bool text_is(struct slice text, const char *wanted) {
  return text.data && text.length == strlen(wanted) && memcmp(text.data, wanted, text.length) == 0;
}

/* ---- operations ---- */

#define OPERATION_FIELDS(F)                                                                                            \
  F(operation)                                                                                                         \
  F(node_type)                                                                                                         \
  F(node_id)                                                                                                           \
  F(revision)                                                                                                          \
  F(owned)                                                                                                             \
  F(new_value)                                                                                                         \
  F(edges)                                                                                                             \
  F(edge_type)                                                                                                         \
  F(from_id)                                                                                                           \
  F(to_id)                                                                                                             \
  F(node_count)                                                                                                        \
  F(edge_count)

/* The members of an operation, or of a payload, which may be one: raw values. */
struct operation {
#define F(name) struct slice name;
  OPERATION_FIELDS(F)
#undef F
};

static struct slice *operation_field(struct operation *operation, struct slice key) {
#define F(name)                                                                                                        \
  if (key.length == sizeof(#name) - 1 && memcmp(key.data, #name, sizeof(#name) - 1) == 0)                              \
    return &operation->name;
  OPERATION_FIELDS(F)
#undef F
  return NULL;
}

static bool member_read(struct reader *reader, struct slice key, struct operation *operation) {
  struct slice *field = operation_field(operation, key), value;
  if (!value_read(reader, &value))
    return false;
  if (field && !field->data)
    *field = value;
  return true;
}

static struct psg_node *node_of(struct psg *psg, struct slice id) {
  uint8_t key[ID_UUID_RAW_BYTES];
  id = text_of(id);
  return id.data && psg_uuid_parse(id.data, id.length, key) ? psg_graph_find_key(&psg->graph, key) : NULL;
}

static bool node_apply(struct psg *psg, const struct operation *operation, bool create) {
  struct slice type_name = text_of(operation->node_type), id = text_of(operation->node_id);
  struct slice object = operation->new_value;
  uint8_t key[ID_UUID_RAW_BYTES];
  int64_t revision;
  if (!id.data || !object.data || !number_of(operation->revision, &revision) ||
      !psg_uuid_parse(id.data, id.length, key))
    return false;
  enum psg_type type = psg_type_find(type_name.data, type_name.length);
  if (type == PSG_TYPE_NONE)
    return false;
  if (create)
    return psg_graph_node_restore(&psg->graph, type, key, object.data, object.length, (uint64_t)revision,
                                  operation->owned.data != NULL) != NULL;
  struct psg_node *node = psg_graph_find_key(&psg->graph, key);
  if (!node || node->type != type)
    return false;
  psg_graph_node_set(&psg->graph, node, object.data, object.length);
  node->revision = (uint64_t)revision;
  return true;
}

static bool node_remove(struct psg *psg, const struct operation *operation) {
  struct psg_node *node = node_of(psg, operation->node_id);
  int64_t edges;
  if (!node || !number_of(operation->edges, &edges))
    return false;
  unsigned before = HASH_COUNT(psg->graph.edges);
  psg_graph_node_delete(&psg->graph, node);
  return before - HASH_COUNT(psg->graph.edges) == (uint64_t)edges;
}

static bool edge_apply(struct psg *psg, const struct operation *operation, bool create) {
  struct slice type_name = text_of(operation->edge_type);
  struct psg_node *from = node_of(psg, operation->from_id), *to = node_of(psg, operation->to_id);
  if (!from || !to || !type_name.data)
    return false;
  enum psg_edge_type type = psg_edge_type_find(type_name.data, type_name.length);
  if (type == PSG_EDGE_NONE)
    return false;
  if (create)
    return psg_graph_edge_add(&psg->graph, type, from, to) != NULL;
  struct psg_edge *edge = psg_graph_edge_find(&psg->graph, type, from, to);
  if (!edge)
    return false;
  psg_graph_edge_delete(&psg->graph, edge);
  return true;
}

static bool operation_apply(struct psg *psg, const struct operation *operation) {
  struct slice verb = text_of(operation->operation);
  bool create = text_is(verb, "create"), delete = text_is(verb, "delete");
  psg->operations++;
  if (text_of(operation->node_type).data)
    return delete ? node_remove(psg, operation)
                  : (create || text_is(verb, "update")) && node_apply(psg, operation, create);
  return (create || delete) && edge_apply(psg, operation, create);
}

static bool operations_apply(struct psg *psg, struct reader *reader) {
  bool begun = false;
  enum step step;
  if (!take(reader, '['))
    return false;
  while ((step = next(reader, ']', &begun)) == STEP_ITEM) {
    struct operation operation = {0};
    struct slice key;
    bool inside = false;
    if (!take(reader, '{'))
      return false;
    while ((step = next(reader, '}', &inside)) == STEP_ITEM)
      if (!key_read(reader, &key) || !member_read(reader, key, &operation))
        return false;
    if (step == STEP_BAD || !operation_apply(psg, &operation))
      return false;
  }
  return step == STEP_END;
}

/* ---- events ---- */

static bool payload_apply(struct psg *psg, struct reader *reader) {
  struct operation payload = {0};
  struct slice key;
  bool begun = false, bulk = false;
  int64_t nodes, edges;
  enum step step;
  if (!take(reader, '{'))
    return false;
  while ((step = next(reader, '}', &begun)) == STEP_ITEM) {
    if (!key_read(reader, &key))
      return false;
    bool list = text_is(key, "operations");
    if (list && bulk)
      return false;
    bulk |= list;
    if (list ? !operations_apply(psg, reader) : !member_read(reader, key, &payload))
      return false;
  }
  return step == STEP_END && (bulk || operation_apply(psg, &payload)) && number_of(payload.node_count, &nodes) &&
         number_of(payload.edge_count, &edges) && (uint64_t)nodes == HASH_COUNT(psg->graph.nodes) &&
         (uint64_t)edges == HASH_COUNT(psg->graph.edges);
}

struct replay {
  struct psg *psg;
  char skip_through[ID_UUID_BYTES]; /* "": nothing is skipped any more */
  uint64_t from_seq, bad_seq;       /* of the checkpoint; of what does not fit */
};

/* Modules write graph_updates as well, about graphs of their own. */
static bool event_apply(struct psg *psg, const struct store_event *event) {
  struct reader reader = {event->bytes, (const char *)event->bytes + event->length};
  struct slice key, value, graph_id = {0}, at = {0};
  bool begun = false, applied = false;
  enum step step;
  if (!take(&reader, '{'))
    return false;
  while ((step = next(&reader, '}', &begun)) == STEP_ITEM) {
    if (!key_read(&reader, &key))
      return false;
    if (text_is(key, "payload")) {
      if (!graph_id.data && !json_member(event->bytes, event->length, "graph_id", &graph_id.data, &graph_id.length))
        return false;
      if (!text_is(text_of(graph_id), psg->graph_id))
        return true;
      if (applied || !payload_apply(psg, &reader))
        return false;
      applied = true;
    } else if (!value_read(&reader, &value)) {
      return false;
    } else if (text_is(key, "graph_id")) {
      graph_id = value;
    } else if (text_is(key, "timestamp")) {
      at = text_of(value);
    }
  }
  if (step == STEP_BAD || !text_of(graph_id).data)
    return false;
  if (!applied)
    return !text_is(text_of(graph_id), psg->graph_id);
  memcpy(psg->last_update_id, event->event_id, sizeof(psg->last_update_id));
  if (at.length == PSG_TIME_LENGTH)
    memcpy(psg->last_update_at, at.data, at.length);
  return true;
}

static bool event_visit(void *arg, const struct store_event *event) {
  struct replay *replay = arg;
  if (replay->skip_through[0]) {
    if (str_equal(event->event_id, replay->skip_through))
      replay->skip_through[0] = 0;
    return true;
  }
  if (event_apply(replay->psg, event))
    return true;
  replay->bad_seq = event->seq;
  return false;
}

static void checkpoint_visit(void *arg, uint64_t seq, const void *data, size_t length) {
  struct replay *replay = arg;
  if (psg_checkpoint_read(replay->psg, data, length, replay->skip_through))
    replay->from_seq = seq;
  else
    log_event(LOG_WARN, "psg", "the checkpoint is of no use to this version; the whole log is replayed");
}

static bool load(struct psg *psg, struct store *store, struct error *err) {
  struct replay replay = {.psg = psg};
  struct error missing = {0};
  store_checkpoint_read(store, "psg.graph", checkpoint_visit, &replay, &missing);
  if (error_is(&missing, ERR_STORE_CORRUPT)) {
    log_event(LOG_ERROR, "psg", "the checkpoint is damaged; the whole log is replayed");
  } else if (error_is_set(&missing) && !error_is(&missing, ERR_NOT_FOUND)) {
    if (err)
      *err = missing;
    return false;
  }
  struct store_event_query query = {.after_seq = replay.from_seq, .family = PSG_FAMILY_UPDATE};
  if (!store_events_read(store, &query, event_visit, &replay, err))
    return false;
  if (replay.bad_seq || replay.skip_through[0])
    return error_set(err, ERR_STORE_CORRUPT, "The log of the state graph is damaged at event %llu.",
                     (unsigned long long)(replay.bad_seq ? replay.bad_seq : replay.from_seq));
  psg_graph_settle(&psg->graph);
  return true;
}

bool psg_load(struct psg *psg, struct store *store, struct error *err) {
  psg->graph.loading = true;
  bool good = load(psg, store, err);
  psg->graph.loading = false;
  psg_slab_close(&psg->graph.slab);
  return good;
}
