/* query.c: reads of modules: one node, edges at a node, nodes by filters, a neighbourhood (PSG-1). Answers are bounded
 * in count and bytes; members of a response come from malloc, as its free function expects. */
#include <stdlib.h>
#include <string.h>

#include "core/psg/psg_internal.h"
#include "sdk/base/json.h"
#include "sdk/base/str.h"

#define LIMIT_DEFAULT 100u
#define LIMIT_MAX 1000u
#define DEPTH_MAX 32u
#define RESPONSE_MAX_BYTES (3u << 20)
#define EDGES_MAX 10000u
#define FILTERS_MAX 16u

typedef Core__Spi__Psg__V1__Node node_message;
typedef Core__Spi__Psg__V1__Edge edge_message;
typedef Core__Spi__Psg__V1__Filter filter_message;

static void *owned(void *memory) { /* malloc that, as everything here, does not fail */
  BASE_CHECK(memory != NULL);
  return memory;
}

static node_message *node_copy(const struct psg_node *node) {
  node_message *copy = owned(malloc(sizeof(*copy)));
  core__spi__psg__v1__node__init(copy);
  copy->type = owned(strdup(psg_types[node->type].name));
  copy->id = owned(strdup(node->id));
  copy->object_json.data = owned(malloc(node->length + 1u));
  memcpy(copy->object_json.data, node->object, node->length);
  copy->object_json.len = node->length;
  copy->revision = node->revision;
  return copy;
}

static edge_message *edge_copy(const struct psg_edge *edge) {
  edge_message *copy = owned(malloc(sizeof(*copy)));
  core__spi__psg__v1__edge__init(copy);
  copy->type = owned(strdup(psg_edge_types[edge->key.type].name));
  copy->from_id = owned(strdup(edge->from->id));
  copy->to_id = owned(strdup(edge->to->id));
  return copy;
}

const char *psg_node_get(struct psg *psg, const char *type, const char *id, uint64_t *revision) {
  if (!psg_wait(psg, NULL))
    return NULL;
  const struct psg_node *node = psg_graph_find(&psg->graph, id);
  if (!node || !str_equal(psg_types[node->type].name, type))
    return NULL;
  if (revision)
    *revision = node->revision;
  return node->object;
}

/* ---- filters ---- */

static bool field_find(const struct psg_node *node, const char *path, const char **value, size_t *length) {
  char name[PSG_TEXT_MAX_BYTES];
  *value = node->object;
  *length = node->length;
  do {
    size_t part = strcspn(path, ".");
    if (part == 0 || part >= sizeof(name))
      return false;
    memcpy(name, path, part);
    name[part] = 0;
    if (!json_member(*value, *length, name, value, length))
      return false;
    path += part + (path[part] == '.');
  } while (*path);
  return true;
}

static bool is_number(const char *token) {
  return *token == '-' || (*token >= '0' && *token <= '9');
}

static double number_read(const char *token, size_t length) {
  char digits[64];
  size_t kept = length < sizeof(digits) ? length : sizeof(digits) - 1;
  memcpy(digits, token, kept);
  digits[kept] = 0;
  return strtod(digits, NULL);
}

/* Orders two JSON values of one kind; false: they cannot be compared. */
static bool values_compare(const char *a, size_t a_length, const char *b, size_t b_length, int *order) {
  if (is_number(a) && is_number(b)) {
    double left = number_read(a, a_length), right = number_read(b, b_length);
    *order = (left > right) - (left < right);
    return true;
  }
  if (*a == '"' && *b == '"') {
    char *left = json_string_decode(a, a_length), *right = json_string_decode(b, b_length);
    bool good = left && right;
    if (good)
      *order = strcmp(left, right);
    base_free(left);
    base_free(right);
    return good;
  }
  return false;
}

static bool filter_holds(const struct psg_node *node, const filter_message *filter) {
  const char *value, *wanted = (const char *)filter->value_json.data;
  size_t length, wanted_length = filter->value_json.len;
  while (wanted_length && strchr(" \t\r\n", *wanted)) {
    wanted++;
    wanted_length--;
  }
  while (wanted_length && strchr(" \t\r\n", wanted[wanted_length - 1]))
    wanted_length--;
  bool found = field_find(node, filter->field, &value, &length);
  int order = 0;
  bool comparable = found && values_compare(value, length, wanted, wanted_length, &order);
  bool equal = comparable ? order == 0 : found && length == wanted_length && memcmp(value, wanted, length) == 0;
  switch (filter->operator_) {
  case CORE__SPI__PSG__V1__FILTER_OPERATOR__FILTER_OPERATOR_NOT_EQUAL:
    return !equal;
  case CORE__SPI__PSG__V1__FILTER_OPERATOR__FILTER_OPERATOR_GREATER:
    return comparable && order > 0;
  case CORE__SPI__PSG__V1__FILTER_OPERATOR__FILTER_OPERATOR_LESS:
    return comparable && order < 0;
  default:
    return equal;
  }
}

static bool filters_check(const Core__Spi__Psg__V1__QueryRequest *request, struct error *err) {
  if (request->n_filters > FILTERS_MAX)
    return error_set(err, ERR_ARGUMENT_TOO_LARGE, "filters: at most %u.", FILTERS_MAX);
  for (size_t i = 0; i < request->n_filters; i++) {
    const filter_message *filter = request->filters[i];
    if (str_is_empty(filter->field))
      return error_set(err, ERR_ARGUMENT_MISSING, "filters: a field is missing.");
    if (!filter->value_json.len ||
        !json_check((const char *)filter->value_json.data, filter->value_json.len, PSG_OBJECT_DEPTH_MAX, err))
      return filter->value_json.len ? false : error_set(err, ERR_ARGUMENT_MISSING, "filters: a value is missing.");
  }
  return true;
}

Core__Spi__Psg__V1__QueryResponse *psg_query(struct psg *psg, const Core__Spi__Psg__V1__QueryRequest *request,
                                             struct error *err) {
  if (!psg_wait(psg, err))
    return NULL;
  enum psg_type type = PSG_TYPE_ANY;
  if (!str_is_empty(request->type) && (type = psg_type_find(request->type, strlen(request->type))) == PSG_TYPE_NONE) {
    error_set(err, ERR_ARGUMENT_INVALID, "type: no such type of node.");
    return NULL;
  }
  if (!filters_check(request, err))
    return NULL;
  uint32_t limit = request->limit ? request->limit : LIMIT_DEFAULT;
  size_t bytes = 0;
  limit = limit < LIMIT_MAX ? limit : LIMIT_MAX;
  Core__Spi__Psg__V1__QueryResponse *response = owned(malloc(sizeof(*response)));
  core__spi__psg__v1__query_response__init(response);
  response->nodes = owned(calloc(limit, sizeof(node_message *)));
  for (const struct psg_node *node = psg->graph.nodes; node; node = node->hh.next) {
    size_t at = 0;
    if (type != PSG_TYPE_ANY && node->type != type)
      continue;
    while (at < request->n_filters && filter_holds(node, request->filters[at]))
      at++;
    if (at < request->n_filters || response->total++ < request->offset || response->n_nodes >= limit ||
        bytes > RESPONSE_MAX_BYTES)
      continue;
    bytes += node->length;
    if (bytes <= RESPONSE_MAX_BYTES)
      response->nodes[response->n_nodes++] = node_copy(node);
  }
  return response;
}

/* ---- edges and neighbourhoods ---- */

/* A set of edge types; false: a name is unknown. */
static bool types_read(char *const *names, size_t count, uint32_t *set, struct error *err) {
  *set = count ? 0 : UINT32_MAX;
  for (size_t i = 0; i < count; i++) {
    enum psg_edge_type type = psg_edge_type_find(names[i], strlen(names[i]));
    if (type == PSG_EDGE_NONE)
      return error_set(err, ERR_ARGUMENT_INVALID, "No such type of edge.");
    *set |= 1u << type;
  }
  return true;
}

static bool in_set(uint32_t set, const struct psg_edge *edge) {
  return set >> edge->key.type & 1;
}

Core__Spi__Psg__V1__GetEdgesResponse *psg_edges(struct psg *psg, const Core__Spi__Psg__V1__GetEdgesRequest *request,
                                                struct error *err) {
  if (!psg_wait(psg, err))
    return NULL;
  uint32_t set;
  const struct psg_node *node = psg_graph_find(&psg->graph, request->node_id);
  if (!node) {
    error_set(err, ERR_PSG_NODE_NOT_FOUND, NULL);
    return NULL;
  }
  if (!types_read(request->types, request->n_types, &set, err))
    return NULL;
  bool out = request->direction != CORE__SPI__PSG__V1__EDGE_DIRECTION__EDGE_DIRECTION_IN;
  bool in = request->direction != CORE__SPI__PSG__V1__EDGE_DIRECTION__EDGE_DIRECTION_OUT;
  Core__Spi__Psg__V1__GetEdgesResponse *response = owned(malloc(sizeof(*response)));
  core__spi__psg__v1__get_edges_response__init(response);
  response->edges = owned(calloc(EDGES_MAX, sizeof(edge_message *)));
  for (const struct psg_edge *edge = out ? node->out : NULL; edge && response->n_edges < EDGES_MAX;
       edge = edge->out_next)
    if (in_set(set, edge))
      response->edges[response->n_edges++] = edge_copy(edge);
  for (const struct psg_edge *edge = in ? node->in : NULL; edge && response->n_edges < EDGES_MAX; edge = edge->in_next)
    if (in_set(set, edge))
      response->edges[response->n_edges++] = edge_copy(edge);
  return response;
}

/* A node that the traversal has met. */
struct visit {
  UT_hash_handle hh;
  const struct psg_node *node;
};

struct traversal {
  struct visit visits[LIMIT_MAX], *met;
  size_t count, bytes;
  Core__Spi__Psg__V1__TraverseResponse *response;
};

static void visit_add(struct traversal *traversal, const struct psg_node *node) {
  struct visit *found;
  HASH_FIND_PTR(traversal->met, &node, found);
  if (found || traversal->count == LIMIT_MAX || (traversal->bytes += node->length) > RESPONSE_MAX_BYTES)
    return;
  found = &traversal->visits[traversal->count++];
  found->node = node;
  HASH_ADD_PTR(traversal->met, node, found);
  traversal->response->nodes[traversal->response->n_nodes++] = node_copy(node);
}

/* The edges among the nodes that were met: each once, at its start. */
static void edges_collect(struct traversal *traversal, uint32_t set) {
  Core__Spi__Psg__V1__TraverseResponse *response = traversal->response;
  for (size_t i = 0; i < traversal->count; i++)
    for (const struct psg_edge *edge = traversal->visits[i].node->out; edge && response->n_edges < EDGES_MAX;
         edge = edge->out_next) {
      struct visit *other;
      const struct psg_node *to = edge->to;
      HASH_FIND_PTR(traversal->met, &to, other);
      if (other && in_set(set, edge))
        response->edges[response->n_edges++] = edge_copy(edge);
    }
}

Core__Spi__Psg__V1__TraverseResponse *psg_traverse(struct psg *psg, const Core__Spi__Psg__V1__TraverseRequest *request,
                                                   struct error *err) {
  if (!psg_wait(psg, err))
    return NULL;
  uint32_t set, depth = request->depth ? request->depth : 1;
  const struct psg_node *start = psg_graph_find(&psg->graph, request->start_id);
  if (!start) {
    error_set(err, ERR_PSG_NODE_NOT_FOUND, NULL);
    return NULL;
  }
  if (!types_read(request->edge_types, request->n_edge_types, &set, err))
    return NULL;
  if (depth > DEPTH_MAX) {
    error_set(err, ERR_OUT_OF_RANGE, "depth: at most %u.", DEPTH_MAX);
    return NULL;
  }
  struct traversal *traversal = BASE_NEW(struct traversal);
  Core__Spi__Psg__V1__TraverseResponse *response = owned(malloc(sizeof(*response)));
  core__spi__psg__v1__traverse_response__init(response);
  response->nodes = owned(calloc(LIMIT_MAX, sizeof(node_message *)));
  response->edges = owned(calloc(EDGES_MAX, sizeof(edge_message *)));
  traversal->response = response;
  visit_add(traversal, start);
  for (size_t from = 0; depth; depth--) { /* one ring after the other */
    size_t ring_end = traversal->count;
    for (; from < ring_end; from++) {
      const struct psg_node *node = traversal->visits[from].node;
      for (const struct psg_edge *edge = node->out; edge; edge = edge->out_next)
        if (in_set(set, edge))
          visit_add(traversal, edge->to);
      for (const struct psg_edge *edge = node->in; edge; edge = edge->in_next)
        if (in_set(set, edge))
          visit_add(traversal, edge->from);
    }
  }
  edges_collect(traversal, set);
  HASH_CLEAR(hh, traversal->met);
  base_free(traversal);
  return response;
}
