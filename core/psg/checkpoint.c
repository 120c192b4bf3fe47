/* checkpoint.c: the whole graph as bytes, and its hash.
 *
 * A checkpoint goes into the batch whose GraphUpdateEvents it includes. Its seq is the last one known before that
 * batch, so replay reads on from there and skips through the event "skip_through"; "" when the batch had none.
 *
 * Layout, integers in the byte order of the machine (another order reads as another format):
 *   struct header
 *   node_count × (struct node_record, object bytes)    in the order of the graph
 *   edge_count × struct edge_record                    from and to count the nodes above
 * It is derived data, and the store keeps its checksum: what is of another format, version or set of types is not read
 * at all, and the log is replayed from its start. Objects are not parsed again. */
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "core/psg/psg_internal.h"
#include "sdk/base/str.h"

#define CHECKPOINT_FORMAT 0x32475350u /* "PSG2" */
#define NODE_OWNED 1u

struct header {
  uint32_t format, tables;
  uint64_t node_count, edge_count;
  char graph_id[ID_UUID_BYTES], skip_through[ID_UUID_BYTES], update_id[ID_UUID_BYTES], update_at[PSG_TIME_LENGTH + 1];
  uint8_t reserved[5]; /* no bytes of chance go to disk */
};
_Static_assert(sizeof(struct header) == 168, "no padding");
struct node_record {
  uint64_t revision;
  uint32_t length;
  uint8_t type, flags;
  uint8_t key[PSG_UUID_BYTES];
  uint8_t reserved[2];
};
_Static_assert(sizeof(struct node_record) == 32, "no padding");
struct edge_record {
  uint32_t from, to, type;
};

static uint32_t name_mix(uint32_t sum, const char *name) {
  do
    sum = (sum ^ (uint8_t)*name) * 16777619u; /* FNV-1a, the NUL included */
  while (*name++);
  return sum;
}

/* What the numbers of types mean: a core with other tables does not read this checkpoint. */
static uint32_t tables_sum(void) {
  uint32_t sum = 2166136261u;
  for (size_t i = 0; i < PSG_TYPE_COUNT; i++)
    sum = name_mix(sum, psg_types[i].name);
  for (size_t i = 0; i < PSG_EDGE_COUNT; i++)
    sum = name_mix(sum, psg_edge_types[i].name);
  return sum;
}

void psg_checkpoint_write(struct psg *psg, const char *skip_through, struct buf *target) {
  struct psg_graph *graph = &psg->graph;
  struct header header = {.format = CHECKPOINT_FORMAT,
                          .tables = tables_sum(),
                          .node_count = HASH_COUNT(graph->nodes),
                          .edge_count = HASH_COUNT(graph->edges)};
  uint32_t place = 0;
  memcpy(header.graph_id, psg->graph_id, sizeof(header.graph_id));
  str_copy(header.skip_through, sizeof(header.skip_through), skip_through);
  memcpy(header.update_id, psg->last_update_id, sizeof(header.update_id));
  memcpy(header.update_at, psg->last_update_at, sizeof(header.update_at));
  size_t size =
      sizeof(header) + header.node_count * sizeof(struct node_record) + header.edge_count * sizeof(struct edge_record);
  for (const struct psg_node *node = graph->nodes; node; node = node->hh.next)
    size += node->length;
  buf_reserve(target, size);
  buf_append(target, &header, sizeof(header));
  for (struct psg_node *node = graph->nodes; node; node = node->hh.next) {
    struct node_record record = {.revision = node->revision,
                                 .length = node->length,
                                 .type = (uint8_t)node->type,
                                 .flags = node->owned ? NODE_OWNED : 0};
    memcpy(record.key, node->key, sizeof(record.key));
    node->place = place++;
    buf_append(target, &record, sizeof(record));
    buf_append(target, node->object, node->length);
  }
  for (const struct psg_edge *edge = graph->edges; edge; edge = edge->hh.next) {
    struct edge_record record = {.from = edge->from->place, .to = edge->to->place, .type = edge->key.type};
    buf_append(target, &record, sizeof(record));
  }
}

/* ---- reading ---- */

struct bytes {
  const char *at;
  size_t left;
};

static bool take(struct bytes *bytes, void *target, size_t length) {
  if (bytes->left < length)
    return false;
  memcpy(target, bytes->at, length);
  bytes->at += length;
  bytes->left -= length;
  return true;
}

static bool nodes_read(struct psg_graph *graph, struct bytes *bytes, struct psg_node **nodes, uint64_t count) {
  struct node_record record;
  for (uint64_t i = 0; i < count; i++) {
    if (!take(bytes, &record, sizeof(record)) || record.length > bytes->left || record.type >= PSG_TYPE_COUNT ||
        psg_graph_find_key(graph, record.key))
      return false;
    nodes[i] = psg_graph_node_restore(graph, (enum psg_type)record.type, record.key, bytes->at, record.length,
                                      record.revision, record.flags & NODE_OWNED);
    bytes->at += record.length;
    bytes->left -= record.length;
  }
  return true;
}

static bool edges_read(struct psg_graph *graph, struct bytes *bytes, struct psg_node **nodes,
                       const struct header *header) {
  struct edge_record record;
  for (uint64_t i = 0; i < header->edge_count; i++) {
    if (!take(bytes, &record, sizeof(record)) || record.from >= header->node_count || record.to >= header->node_count ||
        record.type >= PSG_EDGE_COUNT)
      return false;
    struct psg_node *from = nodes[record.from], *to = nodes[record.to];
    if (psg_graph_edge_find(graph, (enum psg_edge_type)record.type, from, to))
      return false;
    psg_graph_edge_add(graph, (enum psg_edge_type)record.type, from, to);
  }
  return bytes->left == 0;
}

static bool texts_end(const struct header *header) {
  return memchr(header->graph_id, 0, sizeof(header->graph_id)) &&
         memchr(header->skip_through, 0, sizeof(header->skip_through)) &&
         memchr(header->update_id, 0, sizeof(header->update_id)) &&
         memchr(header->update_at, 0, sizeof(header->update_at));
}

bool psg_checkpoint_read(struct psg *psg, const void *data, size_t length, char skip_through[static ID_UUID_BYTES]) {
  struct bytes bytes = {.at = data, .left = length};
  struct header header;
  if (!take(&bytes, &header, sizeof(header)) || header.format != CHECKPOINT_FORMAT || header.tables != tables_sum() ||
      !texts_end(&header) || !str_equal(header.graph_id, psg->graph_id) ||
      header.node_count > bytes.left / sizeof(struct node_record) || header.node_count > UINT32_MAX)
    return false;
  struct psg_node **nodes = base_calloc(header.node_count + 1, sizeof(struct psg_node *));
  bool good =
      nodes_read(&psg->graph, &bytes, nodes, header.node_count) && edges_read(&psg->graph, &bytes, nodes, &header);
  base_free(nodes);
  if (!good) {
    psg_graph_clear(&psg->graph);
    return false;
  }
  memcpy(skip_through, header.skip_through, ID_UUID_BYTES);
  memcpy(psg->last_update_id, header.update_id, sizeof(psg->last_update_id));
  memcpy(psg->last_update_at, header.update_at, sizeof(psg->last_update_at));
  return true;
}

/* ---- hash ---- */

static int node_compare(const void *a, const void *b) {
  const struct psg_node *const *left = a, *const *right = b;
  if ((*left)->type != (*right)->type)
    return (*left)->type < (*right)->type ? -1 : 1;
  return memcmp((*left)->key, (*right)->key, PSG_UUID_BYTES);
}

static int edge_compare(const void *a, const void *b) {
  const struct psg_edge *const *left = a, *const *right = b;
  return memcmp(&(*left)->key, &(*right)->key, sizeof((*left)->key));
}

static void hash_text(EVP_MD_CTX *context, const char *text, size_t length) {
  BASE_CHECK(EVP_DigestUpdate(context, text, length) == 1);
}

/* SHA-256 over "N <type> <id> <length>\n<object>\n" of the nodes by type and id, then "E <type> <from> <to>\n" of the
 * edges by from, to and type. Sorted each time it is asked for after a change. */
static void hash_make(const struct psg_graph *graph, char hash_hex[static 65]) {
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  size_t node_count = HASH_COUNT(graph->nodes), edge_count = HASH_COUNT(graph->edges), at = 0;
  const struct psg_node **nodes = base_calloc(node_count + 1, sizeof(struct psg_node *));
  const struct psg_edge **edges = base_calloc(edge_count + 1, sizeof(struct psg_edge *));
  uint8_t hash[EVP_MAX_MD_SIZE];
  unsigned hash_length = 0;
  struct buf line = {0};
  BASE_CHECK(context != NULL && EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1);
  for (const struct psg_node *node = graph->nodes; node; node = node->hh.next)
    nodes[at++] = node;
  at = 0;
  for (const struct psg_edge *edge = graph->edges; edge; edge = edge->hh.next)
    edges[at++] = edge;
  qsort(nodes, node_count, sizeof(*nodes), node_compare);
  qsort(edges, edge_count, sizeof(*edges), edge_compare);
  for (size_t i = 0; i < node_count; i++) {
    buf_clear(&line);
    buf_printf(&line, "N %s %s %" PRIu32 "\n", psg_types[nodes[i]->type].name, nodes[i]->id, nodes[i]->length);
    hash_text(context, line.data, line.length);
    hash_text(context, nodes[i]->object, nodes[i]->length);
    hash_text(context, "\n", 1);
  }
  for (size_t i = 0; i < edge_count; i++) {
    buf_clear(&line);
    buf_printf(&line, "E %s %s %s\n", psg_edge_types[edges[i]->key.type].name, edges[i]->from->id, edges[i]->to->id);
    hash_text(context, line.data, line.length);
  }
  BASE_CHECK(EVP_DigestFinal_ex(context, hash, &hash_length) == 1);
  str_hex_encode(hash_hex, hash, hash_length);
  EVP_MD_CTX_free(context);
  base_free(nodes);
  base_free(edges);
  buf_free(&line);
}

void psg_state_hash(struct psg *psg, char hash_hex[static 65]) {
  BASE_CHECK(psg_wait(psg, NULL)); /* who asks has waited */
  hash_make(&psg->graph, hash_hex);
}
