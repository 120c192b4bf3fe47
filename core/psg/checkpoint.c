/* checkpoint.c: the whole graph as JSON, and its hash.
 *
 * A checkpoint goes into the batch whose GraphUpdateEvents it includes. Its seq is the last one known before that
 * batch, so replay reads on from there and skips through the event "skip_through"; "" when the batch had none. */
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "core/psg/psg_internal.h"
#include "sdk/base/str.h"

void psg_checkpoint_write(struct psg *psg, const char *skip_through, struct buf *target) {
  const struct psg_graph *graph = &psg->graph;
  char hash[65];
  psg_state_hash(psg, hash);
  buf_printf(target,
             "{\"version\":1,\"graph_id\":\"%s\",\"skip_through\":\"%s\",\"state_hash\":\"%s\",\"node_count\":%" PRIu64
             ",\"edge_count\":%" PRIu64 ",\"nodes\":[",
             psg->graph_id, skip_through, hash, graph->logged_nodes, graph->logged_edges);
  for (const struct psg_node *node = graph->nodes; node; node = node->hh.next) {
    buf_printf(target, "%s{\"node_type\":\"%s\",\"node_id\":\"%s\",\"revision\":%" PRIu64 "%s,\"new_value\":",
               node == graph->nodes ? "" : ",", psg_types[node->type].name, node->id, node->revision,
               node->owned ? ",\"owned\":true" : "");
    buf_append(target, node->object, node->length);
    buf_append_char(target, '}');
  }
  psg_literal(target, "],\"edges\":[");
  for (const struct psg_edge *edge = graph->edges; edge; edge = edge->hh.next)
    buf_printf(target, "%s{\"edge_type\":\"%s\",\"from_id\":\"%s\",\"to_id\":\"%s\"}", edge == graph->edges ? "" : ",",
               psg_edge_types[edge->key.type].name, edge->from->id, edge->to->id);
  psg_literal(target, "]}");
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

void psg_state_hash(const struct psg *psg, char hash_hex[static 65]) {
  BASE_CHECK_MAGIC(psg, PSG_MAGIC);
  hash_make(&psg->graph, hash_hex);
}
