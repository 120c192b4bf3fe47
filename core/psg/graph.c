/* graph.c: nodes and edges in memory and what changed since the last flush.
 *
 * Changes are kept as their net effect: a node that is added and changed twice is one addition, one that is added and
 * deleted again is nothing. Deletions of what the log knows are remembered by id, because the struct is gone. */
#include <string.h>

#include "core/psg/psg_internal.h"
#include "sdk/base/json.h"

/* A graph begins with the room for its usual thousands of nodes, so that loading one does not rehash on the way. */
#undef HASH_INITIAL_NUM_BUCKETS
#undef HASH_INITIAL_NUM_BUCKETS_LOG2
#define HASH_INITIAL_NUM_BUCKETS 4096u
#define HASH_INITIAL_NUM_BUCKETS_LOG2 12u

/* Only as we write it: in lower case. Else a node would have more than one name. */
bool psg_uuid_parse(const char *text, size_t length, uint8_t key[static ID_UUID_RAW_BYTES]) {
  char written[ID_UUID_BYTES];
  if (!id_uuid_parse(text, length, key))
    return false;
  id_uuid_format(key, written);
  return memcmp(text, written, length) == 0;
}

struct psg_node *psg_graph_find_key(const struct psg_graph *graph, const uint8_t key[static ID_UUID_RAW_BYTES]) {
  struct psg_node *node;
  HASH_FIND(hh, graph->nodes, key, ID_UUID_RAW_BYTES, node);
  return node;
}

struct psg_node *psg_graph_find(const struct psg_graph *graph, const char *id) {
  uint8_t key[ID_UUID_RAW_BYTES];
  return id && psg_uuid_parse(id, strnlen(id, ID_UUID_BYTES), key) ? psg_graph_find_key(graph, key) : NULL;
}

void psg_graph_node_changed(struct psg_graph *graph, struct psg_node *node) {
  node->revision++;
  graph->version++;
  if (node->change != PSG_UNCHANGED || graph->loading)
    return;
  node->change = PSG_UPDATED;
  DL_APPEND2(graph->changed_nodes, node, change_prev, change_next);
}

/* A node or an edge, zeroed; *in_slab: what it is given back by. */
static void *piece_new(struct psg_graph *graph, size_t size_bytes, bool *in_slab) {
  void *piece = graph->loading ? psg_slab_take(&graph->slab, size_bytes) : NULL;
  *in_slab = piece != NULL;
  return piece ? piece : base_calloc(1, size_bytes);
}

static void piece_free(void *piece, bool in_slab) {
  if (in_slab)
    psg_slab_give(piece);
  else
    base_free(piece);
}

void psg_graph_node_reserve(struct psg_node *node, size_t length) {
  BASE_CHECK(length < UINT32_MAX);
  if (length <= node->capacity)
    return;
  node->capacity = (uint32_t)length;
  if (!node->object_in_slab) {
    node->object = base_realloc(node->object, length + 1);
    return;
  }
  char *object = base_alloc(length + 1);
  memcpy(object, node->object, (size_t)node->length + 1);
  psg_slab_give(node->object);
  node->object = object;
  node->object_in_slab = false;
}

/* key and id of the node are set. hash: of the key. */
static void node_enter(struct psg_graph *graph, struct psg_node *node, unsigned hash, const char *object, size_t length,
                       size_t spare) {
  BASE_CHECK(length + spare < UINT32_MAX);
  node->capacity = (uint32_t)(length + spare);
  node->object = graph->loading ? psg_slab_take(&graph->slab, (size_t)node->capacity + 1) : NULL;
  node->object_in_slab = node->object != NULL;
  if (!node->object)
    node->object = base_alloc((size_t)node->capacity + 1);
  memcpy(node->object, object, length);
  node->object[length] = 0;
  node->length = (uint32_t)length;
  HASH_ADD_BYHASHVALUE(hh, graph->nodes, key, ID_UUID_RAW_BYTES, hash, node);
  graph->version++;
  if (graph->loading)
    return;
  node->change = PSG_ADDED;
  DL_APPEND2(graph->changed_nodes, node, change_prev, change_next);
}

struct psg_node *psg_graph_node_add(struct psg_graph *graph, enum psg_type type, const char *id, const char *object,
                                    size_t length, size_t spare, bool owned) {
  struct psg_node *node = BASE_NEW(struct psg_node);
  BASE_CHECK(psg_uuid_parse(id, strlen(id), node->key));
  memcpy(node->id, id, ID_UUID_BYTES);
  node->type = type;
  node->owned = owned;
  node->revision = 1;
  unsigned hash;
  HASH_VALUE(node->key, ID_UUID_RAW_BYTES, hash);
  node_enter(graph, node, hash, object, length, spare);
  return node;
}

struct psg_node *psg_graph_node_restore(struct psg_graph *graph, enum psg_type type,
                                        const uint8_t key[static ID_UUID_RAW_BYTES], const char *object, size_t length,
                                        uint64_t revision, bool owned) {
  struct psg_node *node;
  unsigned hash;
  bool in_slab;
  HASH_VALUE(key, ID_UUID_RAW_BYTES, hash);
  HASH_FIND_BYHASHVALUE(hh, graph->nodes, key, ID_UUID_RAW_BYTES, hash, node);
  if (node)
    return NULL;
  node = piece_new(graph, sizeof(*node), &in_slab);
  node->in_slab = in_slab;
  memcpy(node->key, key, ID_UUID_RAW_BYTES);
  id_uuid_format(key, node->id);
  node->type = type;
  node->owned = owned;
  node->revision = revision;
  node_enter(graph, node, hash, object, length, 0);
  return node;
}

void psg_graph_node_set(struct psg_graph *graph, struct psg_node *node, const char *object, size_t length) {
  psg_graph_node_reserve(node, length);
  memcpy(node->object, object, length);
  node->object[length] = 0;
  node->length = (uint32_t)length;
  psg_graph_node_changed(graph, node);
}

bool psg_edge_is_parental(const struct psg_edge *edge, struct psg_node **parent) {
  const struct psg_type_info *up = &psg_types[edge->from->type], *down = &psg_types[edge->to->type];
  if (up->parent_edge == edge->key.type && up->goes == PSG_GOES_UP) {
    *parent = edge->to;
    return true;
  }
  if (down->parent_edge == edge->key.type && down->goes == PSG_GOES_DOWN && down->parent == edge->from->type) {
    *parent = edge->from;
    return true;
  }
  return false;
}

static void key_make(struct psg_edge_key *key, enum psg_edge_type type, const struct psg_node *from,
                     const struct psg_node *to) {
  memcpy(key->from, from->key, ID_UUID_RAW_BYTES);
  memcpy(key->to, to->key, ID_UUID_RAW_BYTES);
  key->type = (uint8_t)type;
}

struct psg_edge *psg_graph_edge_find(const struct psg_graph *graph, enum psg_edge_type type,
                                     const struct psg_node *from, const struct psg_node *to) {
  struct psg_edge_key key;
  struct psg_edge *edge;
  key_make(&key, type, from, to);
  HASH_FIND(hh, graph->edges, &key, sizeof(key), edge);
  return edge;
}

struct psg_edge *psg_graph_edge_add(struct psg_graph *graph, enum psg_edge_type type, struct psg_node *from,
                                    struct psg_node *to) {
  struct psg_edge_key key;
  struct psg_edge *edge;
  struct psg_node *parent;
  unsigned hash;
  bool in_slab;
  key_make(&key, type, from, to);
  HASH_VALUE(&key, sizeof(key), hash);
  HASH_FIND_BYHASHVALUE(hh, graph->edges, &key, sizeof(key), hash, edge);
  if (edge)
    return NULL;
  edge = piece_new(graph, sizeof(*edge), &in_slab);
  edge->in_slab = in_slab;
  edge->key = key;
  edge->from = from;
  edge->to = to;
  HASH_ADD_BYHASHVALUE(hh, graph->edges, key, sizeof(edge->key), hash, edge);
  DL_APPEND2(from->out, edge, out_prev, out_next);
  DL_APPEND2(to->in, edge, in_prev, in_next);
  if (!graph->loading) {
    edge->change = PSG_ADDED;
    DL_APPEND2(graph->changed_edges, edge, change_prev, change_next);
  }
  if (psg_edge_is_parental(edge, &parent))
    parent->children++;
  else
    to->referrers++;
  graph->version++;
  return edge;
}

/* Takes the edge out; returns whether the log knows it. */
static bool edge_unlink(struct psg_graph *graph, struct psg_edge *edge) {
  struct psg_node *parent;
  bool logged = edge->change == PSG_UNCHANGED;
  if (psg_edge_is_parental(edge, &parent))
    parent->children--;
  else
    edge->to->referrers--;
  HASH_DEL(graph->edges, edge);
  DL_DELETE2(edge->from->out, edge, out_prev, out_next);
  DL_DELETE2(edge->to->in, edge, in_prev, in_next);
  if (!logged)
    DL_DELETE2(graph->changed_edges, edge, change_prev, change_next);
  piece_free(edge, edge->in_slab);
  graph->version++;
  return logged;
}

void psg_graph_edge_delete(struct psg_graph *graph, struct psg_edge *edge) {
  struct psg_gone_edge gone = {.type = (enum psg_edge_type)edge->key.type};
  memcpy(gone.from, edge->from->id, ID_UUID_BYTES);
  memcpy(gone.to, edge->to->id, ID_UUID_BYTES);
  if (!edge_unlink(graph, edge) || graph->loading)
    return;
  if (graph->gone_edge_count == graph->gone_edge_capacity) {
    graph->gone_edge_capacity = graph->gone_edge_capacity ? graph->gone_edge_capacity * 2 : 16;
    graph->gone_edges = base_realloc_array(graph->gone_edges, graph->gone_edge_capacity, sizeof(gone));
  }
  graph->gone_edges[graph->gone_edge_count++] = gone;
}

void psg_graph_node_delete(struct psg_graph *graph, struct psg_node *node) {
  struct psg_gone_node gone = {.type = node->type};
  memcpy(gone.id, node->id, ID_UUID_BYTES);
  while (node->out)
    gone.edges += edge_unlink(graph, node->out);
  while (node->in)
    gone.edges += edge_unlink(graph, node->in);
  HASH_DEL(graph->nodes, node);
  if (node->change != PSG_UNCHANGED)
    DL_DELETE2(graph->changed_nodes, node, change_prev, change_next);
  if (node->change != PSG_ADDED && !graph->loading) {
    if (graph->gone_node_count == graph->gone_node_capacity) {
      graph->gone_node_capacity = graph->gone_node_capacity ? graph->gone_node_capacity * 2 : 16;
      graph->gone_nodes = base_realloc_array(graph->gone_nodes, graph->gone_node_capacity, sizeof(gone));
    }
    graph->gone_nodes[graph->gone_node_count++] = gone;
  }
  piece_free(node->object, node->object_in_slab);
  piece_free(node, node->in_slab);
  graph->version++;
}

void psg_graph_parent_link(struct psg_graph *graph, struct psg_node *node, struct psg_node *parent) {
  const struct psg_type_info *type = &psg_types[node->type];
  bool up = type->goes == PSG_GOES_UP;
  psg_graph_edge_add(graph, type->parent_edge, up ? node : parent, up ? parent : node);
}

bool psg_graph_is_changed(const struct psg_graph *graph) {
  return graph->changed_nodes || graph->changed_edges || graph->gone_node_count || graph->gone_edge_count;
}

void psg_graph_settle(struct psg_graph *graph) {
  struct psg_node *node, *next_node;
  struct psg_edge *edge, *next_edge;
  DL_FOREACH_SAFE2(graph->changed_nodes, node, next_node, change_next) {
    DL_DELETE2(graph->changed_nodes, node, change_prev, change_next);
    node->change = PSG_UNCHANGED;
  }
  DL_FOREACH_SAFE2(graph->changed_edges, edge, next_edge, change_next) {
    DL_DELETE2(graph->changed_edges, edge, change_prev, change_next);
    edge->change = PSG_UNCHANGED;
  }
  graph->gone_node_count = graph->gone_edge_count = 0;
  graph->logged_nodes = HASH_COUNT(graph->nodes);
  graph->logged_edges = HASH_COUNT(graph->edges);
}

void psg_graph_clear(struct psg_graph *graph) {
  struct psg_node *node, *next;
  HASH_ITER(hh, graph->nodes, node, next)
  psg_graph_node_delete(graph, node);
  base_free(graph->gone_nodes);
  base_free(graph->gone_edges);
  psg_slab_close(&graph->slab);
  *graph = (struct psg_graph){.loading = graph->loading};
}

char *psg_object_text(const char *object, size_t length, const char *field) {
  const char *token;
  size_t token_length;
  return json_member(object, length, field, &token, &token_length) ? json_string_decode(token, token_length) : NULL;
}
