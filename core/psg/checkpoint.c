/* checkpoint.c: the whole graph as bytes, and its hash.
 *
 * A checkpoint goes into the batch whose GraphUpdateEvents it includes. Its seq is the last one known before that
 * batch, so replay reads on from there and skips through the event "skip_through"; "" when the batch had none.
 *
 * Layout, integers in the byte order of the machine (another order reads as another format):
 *  - struct header;
 *  - node_count nodes in the order of the graph: type and NODE_OWNED in a byte, the 16 bytes of the id, then numbers:
 *    revision, length of the object, and steps until the object is that long;
 *  - edge_count edges, all numbers: type; from and to, which count the nodes above, as differences to the edge before.
 * A number is seven bits a byte, the low ones first; a difference has its sign in the lowest bit. The steps make the
 * object out of the one of the last node before it with the same type, in which a place moves along, since one span
 * says most of what another says: 4 n + 0 copies n bytes from there, 4 n + 1 is followed by n bytes, after which the
 * place is at the next comma, 2 is the node's own id. It is derived data, and the store keeps its checksum: what is of
 * another format, version or set of types is not read at all, and the log is replayed from its start. Objects are not
 * parsed again. */
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "core/psg/psg_internal.h"
#include "sdk/base/str.h"

#define CHECKPOINT_FORMAT 0x33475350u /* "PSG3" */
#define NODE_OWNED 0x80u
#define NODE_BYTES_MIN 20 /* one step at least: no object is empty */
#define COPY_BYTES_MIN 4  /* shorter ones cost as much as they save */
#define ID_SEARCH_BYTES 128
#define ID_LENGTH (ID_UUID_BYTES - 1)

enum step { STEP_COPY, STEP_BYTES, STEP_ID };

struct header {
  uint32_t format, tables;
  uint64_t node_count, edge_count;
  char graph_id[ID_UUID_BYTES], skip_through[ID_UUID_BYTES], update_id[ID_UUID_BYTES], update_at[PSG_TIME_LENGTH + 1];
  uint8_t reserved[5]; /* no bytes of chance go to disk */
};
_Static_assert(sizeof(struct header) == 168, "no padding");
_Static_assert(PSG_TYPE_COUNT < NODE_OWNED, "type and flag in a byte");

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

/* ---- writing ---- */

static void number_put(struct buf *target, uint64_t number) {
  char bytes[10];
  size_t length = 0;
  for (; number > 0x7f; number >>= 7)
    bytes[length++] = (char)(number | 0x80);
  bytes[length++] = (char)number;
  buf_append(target, bytes, length);
}

static void difference_put(struct buf *target, uint32_t number, uint32_t before) {
  int64_t difference = (int64_t)number - before;
  number_put(target, difference < 0 ? (uint64_t)-difference << 1 | 1 : (uint64_t)difference << 1);
}

/* The next comma behind `at`, or the end. */
static size_t comma_find(const char *object, size_t length, size_t at) {
  const char *comma = at + 1 < length ? memchr(object + at + 1, ',', length - at - 1) : NULL;
  return comma ? (size_t)(comma - object) : length;
}

static size_t common_length(const char *left, const char *right, size_t limit) {
  size_t length = 0;
  while (length + 8 <= limit && memcmp(left + length, right + length, 8) == 0)
    length += 8;
  while (length < limit && left[length] == right[length])
    length++;
  return length;
}

static size_t smaller(size_t left, size_t right) {
  return left < right ? left : right;
}

static void object_write(const struct psg_node *node, const struct psg_node *before, struct buf *target) {
  const char *old = before ? before->object : "", *object = node->object;
  size_t old_length = before ? before->length : 0, length = node->length, place = 0, at = 0;
  const char *found = memmem(object, smaller(length, ID_SEARCH_BYTES), node->id, ID_LENGTH);
  size_t id_at = found ? (size_t)(found - object) : length;
  while (at < length) {
    if (at == id_at) {
      number_put(target, STEP_ID);
      at += ID_LENGTH;
      place = smaller(place + ID_LENGTH, old_length);
      id_at = length;
      continue;
    }
    size_t same = common_length(old + place, object + at, smaller(old_length - place, id_at - at));
    if (same >= COPY_BYTES_MIN || (same && at + same == length)) {
      number_put(target, (uint64_t)same << 2 | STEP_COPY);
      place += same;
      at += same;
      continue;
    }
    size_t end = smaller(comma_find(object, length, at), id_at);
    number_put(target, (uint64_t)(end - at) << 2 | STEP_BYTES);
    buf_append(target, object + at, end - at);
    place = comma_find(old, old_length, place);
    at = end;
  }
}

void psg_checkpoint_write(struct psg *psg, const char *skip_through, struct buf *target) {
  struct psg_graph *graph = &psg->graph;
  struct header header = {.format = CHECKPOINT_FORMAT,
                          .tables = tables_sum(),
                          .node_count = HASH_COUNT(graph->nodes),
                          .edge_count = HASH_COUNT(graph->edges)};
  const struct psg_node *before[PSG_TYPE_COUNT] = {0};
  uint32_t place = 0, from = 0, to = 0;
  memcpy(header.graph_id, psg->graph_id, sizeof(header.graph_id));
  str_copy(header.skip_through, sizeof(header.skip_through), skip_through);
  memcpy(header.update_id, psg->last_update_id, sizeof(header.update_id));
  memcpy(header.update_at, psg->last_update_at, sizeof(header.update_at));
  buf_append(target, &header, sizeof(header));
  for (struct psg_node *node = graph->nodes; node; node = node->hh.next) {
    buf_append_char(target, (char)(node->type | (node->owned ? NODE_OWNED : 0)));
    buf_append(target, node->key, sizeof(node->key));
    number_put(target, node->revision);
    number_put(target, node->length);
    object_write(node, before[node->type], target);
    before[node->type] = node;
    node->place = place++;
  }
  for (const struct psg_edge *edge = graph->edges; edge; edge = edge->hh.next) {
    number_put(target, edge->key.type);
    difference_put(target, edge->from->place, from);
    difference_put(target, edge->to->place, to);
    from = edge->from->place;
    to = edge->to->place;
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

static bool number_take(struct bytes *bytes, uint64_t *number) {
  *number = 0;
  for (unsigned shift = 0; shift < 64 && bytes->left > 0; shift += 7) {
    uint8_t byte = (uint8_t)*bytes->at++;
    bytes->left--;
    *number |= (uint64_t)(byte & 0x7f) << shift;
    if (!(byte & 0x80))
      return true;
  }
  return false;
}

static bool difference_take(struct bytes *bytes, uint64_t *number) {
  uint64_t difference;
  if (!number_take(bytes, &difference))
    return false;
  *number = difference & 1 ? *number - (difference >> 1) : *number + (difference >> 1); /* judged by its bound */
  return true;
}

/* length bytes into target, which has room for them. */
static bool object_read(struct bytes *bytes, const char *id, const struct psg_node *before, size_t length,
                        char *target) {
  const char *old = before ? before->object : "";
  size_t old_length = before ? before->length : 0, place = 0;
  uint64_t number;
  while (length > 0) {
    if (!number_take(bytes, &number))
      return false;
    size_t count = (number & 3) == STEP_ID ? ID_LENGTH : (size_t)(number >> 2);
    if (count == 0 || count > length || (number & 3) > STEP_ID)
      return false;
    if ((number & 3) == STEP_ID) {
      memcpy(target, id, ID_LENGTH);
      place = smaller(place + ID_LENGTH, old_length);
    } else if ((number & 3) == STEP_COPY) {
      if (count > old_length - place)
        return false;
      memcpy(target, old + place, count);
      place += count;
    } else if (!take(bytes, target, count)) {
      return false;
    } else {
      place = comma_find(old, old_length, place);
    }
    target += count;
    length -= count;
  }
  return true;
}

static bool node_read(struct psg_graph *graph, struct bytes *bytes, struct psg_node **before, struct buf *object,
                      struct psg_node **node) {
  uint8_t type, key[ID_UUID_RAW_BYTES];
  uint64_t revision, length;
  char id[ID_UUID_BYTES];
  if (!take(bytes, &type, 1) || !take(bytes, key, sizeof(key)) || !number_take(bytes, &revision) ||
      !number_take(bytes, &length) || length == 0 || length > STORE_VALUE_MAX_BYTES ||
      (type & ~NODE_OWNED) >= PSG_TYPE_COUNT)
    return false;
  enum psg_type of = (enum psg_type)(type & ~NODE_OWNED);
  id_uuid_format(key, id);
  buf_clear(object);
  buf_reserve(object, (size_t)length);
  if (!object_read(bytes, id, before[of], (size_t)length, object->data))
    return false;
  before[of] = *node =
      psg_graph_node_restore(graph, of, key, object->data, (size_t)length, revision, type & NODE_OWNED);
  return *node != NULL;
}

static bool nodes_read(struct psg_graph *graph, struct bytes *bytes, struct psg_node **nodes, uint64_t count) {
  struct psg_node *before[PSG_TYPE_COUNT] = {0};
  struct buf object = {0};
  bool good = true;
  for (uint64_t i = 0; good && i < count; i++)
    good = node_read(graph, bytes, before, &object, &nodes[i]);
  buf_free(&object);
  return good;
}

static bool edges_read(struct psg_graph *graph, struct bytes *bytes, struct psg_node **nodes,
                       const struct header *header) {
  uint64_t type, from = 0, to = 0;
  for (uint64_t i = 0; i < header->edge_count; i++) {
    if (!number_take(bytes, &type) || !difference_take(bytes, &from) || !difference_take(bytes, &to) ||
        from >= header->node_count || to >= header->node_count || type >= PSG_EDGE_COUNT ||
        !psg_graph_edge_add(graph, (enum psg_edge_type)type, nodes[from], nodes[to]))
      return false;
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
      header.node_count > bytes.left / NODE_BYTES_MIN || header.node_count > UINT32_MAX)
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
  return memcmp((*left)->key, (*right)->key, ID_UUID_RAW_BYTES);
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

bool psg_state_hash(struct psg *psg, char hash_hex[static 65], struct error *err) {
  if (!psg_wait(psg, err))
    return false;
  hash_make(&psg->graph, hash_hex);
  return true;
}
