/* write.c: nodes and edges that modules write: types, ids, parents, transitions, owners (PSG-1, PSG-3, PSG-4, PSG-5,
 * PSG-8, PSG-9, PSG-10, PSG-11, PSG-14). A change is in the graph when the function returns; done says that it is
 * durable. A node that changed since the last flush is flushed before it changes again where that is possible, so that
 * the log has both. */
#include <string.h>

#include "core/psg/psg_internal.h"
#include "sdk/base/json.h"
#include "sdk/base/str.h"

/* References beside the parent that must resolve where they are given (REF-1). */
static const struct {
  enum psg_type type;
  const char *field;
  enum psg_type target;
} references[] = {
    {PSG_TYPE_TraceNode, "plan_id", PSG_TYPE_PlanNode},
    {PSG_TYPE_CollabNode, "plan_id", PSG_TYPE_PlanNode},
};

static void fail(psg_write_done *done, void *arg, const struct error *err) {
  if (done)
    done(arg, 0, "", err);
}

/* Top-level names that the checks look at may stand once only: readers disagree about which one counts. */
static bool stands_once(const char *object, size_t length, const char *field) {
  struct json_cursor cursor;
  const char *key, *value;
  size_t key_length, value_length, field_length = strlen(field);
  unsigned found = 0;
  if (!json_walk(object, length, '{', &cursor))
    return false;
  while (json_next(&cursor, &key, &key_length, &value, &value_length)) {
    char *escaped = memchr(key, '\\', key_length) ? json_string_decode(key, key_length) : NULL;
    found += escaped ? str_equal(escaped, field)
                     : key_length == field_length + 2 && memcmp(key + 1, field, field_length) == 0;
    base_free(escaped);
  }
  return found <= 1;
}

static bool object_check(const struct psg_type_info *type, const char *id, const char *object, size_t length,
                         struct error *err) {
  const char *const fields[] = {type->id_field, type->parent_field, "status"};
  if (length > PSG_OBJECT_MAX_BYTES)
    return error_set(err, ERR_ARGUMENT_TOO_LARGE, "The node is larger than %d bytes.", PSG_OBJECT_MAX_BYTES);
  if (!length || !json_check(object, length, PSG_OBJECT_DEPTH_MAX, err))
    return length ? false : error_set(err, ERR_ARGUMENT_MISSING, "The node is missing.");
  for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
    if (!stands_once(object, length, fields[i]))
      return error_set(err, ERR_PSG_NODE_INVALID, "%s: an object in which it stands once is expected.", fields[i]);
  char *own_id = psg_object_text(object, length, type->id_field);
  bool good = str_equal(own_id, id);
  base_free(own_id);
  return good || error_set(err, ERR_PSG_NODE_INVALID, "%s: not the id of the node.", type->id_field);
}

static bool parent_read(const struct psg *psg, const struct psg_type_info *type, const char *object, size_t length,
                        struct psg_node **parent, struct error *err) {
  *parent = NULL;
  if (type->parent == PSG_TYPE_NONE)
    return true;
  char *id = psg_object_text(object, length, type->parent_field);
  *parent = psg_graph_find(&psg->graph, id);
  base_free(id);
  if (*parent && (type->parent == PSG_TYPE_ANY || type->parent == (*parent)->type))
    return true;
  return error_set(err, ERR_PSG_PARENT_MISSING, "%s: the node it names does not exist.", type->parent_field);
}

static bool references_check(const struct psg *psg, enum psg_type type, const char *object, size_t length,
                             struct error *err) {
  for (size_t i = 0; i < sizeof(references) / sizeof(references[0]); i++) {
    const char *token;
    size_t token_length;
    if (references[i].type != type || !json_member(object, length, references[i].field, &token, &token_length))
      continue;
    char *id = json_string_decode(token, token_length);
    const struct psg_node *node = psg_graph_find(&psg->graph, id);
    base_free(id);
    if (!node || node->type != references[i].target)
      return error_set(err, ERR_PSG_PARENT_MISSING, "%s: the node it names does not exist.", references[i].field);
  }
  return true;
}

static bool status_check(enum psg_machine machine, const char *before, const char *status, struct error *err) {
  const struct psg_status_info *info = psg_status_find(machine, status), *old = psg_status_find(machine, before);
  if (machine == PSG_MACHINE_NONE)
    return true;
  if (!info)
    return error_set(err, ERR_PSG_NODE_INVALID, "status: not one of this type's.");
  if (!before)
    return info->kind == PSG_STATUS_INITIAL ||
           error_set(err, ERR_PSG_TRANSITION, "status: a new node does not begin as %s.", info->status);
  if (old && old->kind == PSG_STATUS_TERMINAL)
    return error_set(err, ERR_PSG_TRANSITION, "status: %s is final, nothing changes any more.", old->status);
  if (str_equal(before, status))
    return !old || old->kind != PSG_STATUS_FROZEN ||
           error_set(err, ERR_PSG_TRANSITION, "status: only the status changes any more.");
  return psg_transition_allowed(machine, before, status) ||
         error_set(err, ERR_PSG_TRANSITION, "status: from %s to %s is not allowed.", old ? old->status : "?",
                   info->status);
}

/* The parent of a node as the graph has it. */
static struct psg_node *parent_of(const struct psg_node *node) {
  const struct psg_type_info *type = &psg_types[node->type];
  struct psg_node *parent;
  for (const struct psg_edge *edge = type->goes == PSG_GOES_UP ? node->out : node->in; edge;
       edge = type->goes == PSG_GOES_UP ? edge->out_next : edge->in_next)
    if (edge->key.type == type->parent_edge && psg_edge_is_parental(edge, &parent) && parent != node)
      return parent;
  return NULL;
}

static bool may_write(enum psg_type type, const struct psg_node *node, struct error *err) {
  if (psg_types[type].writer == PSG_WRITER_CORE || (node && node->owned))
    return error_set(err, ERR_PSG_OWNER, NULL);
  return true;
}

static void status_event(struct psg *psg, const struct psg_node *node, const char *from, const char *to) {
  const struct psg_type_info *type = &psg_types[node->type];
  const struct psg_status_info *info = psg_status_find(type->machine, to);
  static const struct {
    const char *to, *event;
  } steps[] = {{"in_progress", "step_started"}, {"completed", "step_completed"}, {"failed", "step_failed"}};
  static const char *const events[PSG_TYPE_COUNT] = {
#define PSG_TYPE(name, word, id, parent_field, parent, edge, goes, machine, writer)                                    \
  [PSG_TYPE_##name] = word "_status_changed",
#include "core/psg/types.def"
#undef PSG_TYPE
  };
  const struct psg_node *parent = parent_of(node);
  if (!info)
    return;
  struct psg_stage_event event = {.type = events[node->type],
                                  .pipeline_id = node->type == PSG_TYPE_StepNode && parent ? parent->id : node->id,
                                  .stage_id = node->id,
                                  .stage_name = to,
                                  .status = info->stage,
                                  .resource_type = type->word,
                                  .resource_id = node->id,
                                  .from = from,
                                  .to = to};
  for (size_t i = 0; node->type == PSG_TYPE_StepNode && i < sizeof(steps) / sizeof(steps[0]); i++)
    if (str_equal(steps[i].to, to))
      event.type = steps[i].event;
  psg_stage_emit(psg, &event);
}

static void written(struct psg *psg, const char *source, psg_write_done *done, void *arg, uint64_t revision) {
  psg_source_set(psg, source);
  psg_waiter_add(psg, done, arg, revision);
  psg_touch(psg);
}

void psg_node_put(struct psg *psg, const char *type_name, const char *id, const void *object_json, size_t length,
                  uint64_t expected_revision, const char *source_module, psg_write_done *done, void *arg) {
  struct error err = {0};
  if (!psg_wait(psg, &err)) {
    fail(done, arg, &err);
    return;
  }
  struct psg_node *parent;
  char *status = NULL, *before = NULL;
  enum psg_type type = psg_type_find(type_name ? type_name : "", type_name ? strlen(type_name) : 0);
  struct psg_node *node = psg_graph_find(&psg->graph, id);
  if (type == PSG_TYPE_NONE)
    error_set(&err, ERR_ARGUMENT_INVALID, "type: no such type of node.");
  else if (!id_is_uuid_v4(id))
    error_set(&err, ERR_PSG_NODE_INVALID, "id: not a UUID of version 4.");
  else if (node && node->type != type)
    error_set(&err, ERR_PSG_NODE_EXISTS, "A node of another type has this id.");
  else if (expected_revision && !node)
    error_set(&err, ERR_PSG_NODE_NOT_FOUND, NULL);
  else if (expected_revision && node->revision != expected_revision)
    error_set(&err, ERR_PSG_REVISION, NULL);
  if (error_is_set(&err) || !may_write(type, node, &err) ||
      !object_check(&psg_types[type], id, object_json, length, &err) ||
      !parent_read(psg, &psg_types[type], object_json, length, &parent, &err) ||
      !references_check(psg, type, object_json, length, &err))
    goto out;
  status = psg_object_text(object_json, length, "status");
  before = node ? psg_object_text(node->object, node->length, "status") : NULL;
  if (!status_check(psg_types[type].machine, before, status, &err))
    goto out;
  if (node && parent_of(node) != parent) {
    error_set(&err, ERR_PSG_PARENT_MISSING, "%s: a node keeps its parent.", psg_types[type].parent_field);
    goto out;
  }
  if (node && node->change != PSG_UNCHANGED)
    psg_flush(psg);
  if (node) {
    psg_graph_node_set(&psg->graph, node, object_json, length);
  } else {
    node = psg_graph_node_add(&psg->graph, type, id, object_json, length, 0, false);
    if (parent)
      psg_graph_parent_link(&psg->graph, node, parent);
  }
  if (status && !str_equal(before, status))
    status_event(psg, node, before, status);
  written(psg, source_module, done, arg, node->revision);
out:
  base_free(status);
  base_free(before);
  if (error_is_set(&err))
    fail(done, arg, &err);
}

void psg_node_delete(struct psg *psg, const char *type_name, const char *id, const char *source_module,
                     psg_write_done *done, void *arg) {
  struct error err = {0};
  if (!psg_wait(psg, &err)) {
    fail(done, arg, &err);
    return;
  }
  struct psg_node *node = psg_graph_find(&psg->graph, id);
  if (!node || !str_equal(psg_types[node->type].name, type_name))
    error_set(&err, ERR_PSG_NODE_NOT_FOUND, NULL);
  else if (may_write(node->type, node, &err) && (node->children || node->referrers))
    error_set(&err, ERR_PSG_REFERENCED, NULL);
  if (error_is_set(&err)) {
    fail(done, arg, &err);
    return;
  }
  psg_graph_node_delete(&psg->graph, node);
  written(psg, source_module, done, arg, 0);
}

/* ---- edges ---- */

static bool type_fits(enum psg_type wanted, const struct psg_node *node) {
  return wanted == PSG_TYPE_ANY || wanted == node->type;
}

/* Is `target` reached from `node` over edges of this type? Depth-first with a stack of its own; a node is looked at
 * once. */
static bool reaches(const struct psg_node *node, const struct psg_node *target, enum psg_edge_type type) {
  struct seen {
    UT_hash_handle hh;
    const struct psg_node *node;
  } *seen = NULL, *entry, *next;
  const struct psg_node **stack = base_calloc(16, sizeof(struct psg_node *));
  size_t depth = 0, capacity = 16;
  bool found = false;
  stack[depth++] = node;
  while (depth && !found) {
    node = stack[--depth];
    found = node == target;
    HASH_FIND_PTR(seen, &node, entry);
    if (entry)
      continue;
    entry = BASE_NEW(struct seen);
    entry->node = node;
    HASH_ADD_PTR(seen, node, entry);
    for (const struct psg_edge *edge = node->out; edge; edge = edge->out_next) {
      if (edge->key.type != type)
        continue;
      if (depth == capacity)
        stack = base_realloc_array(stack, capacity *= 2, sizeof(struct psg_node *));
      stack[depth++] = edge->to;
    }
  }
  HASH_ITER(hh, seen, entry, next) {
    HASH_DEL(seen, entry);
    base_free(entry);
  }
  base_free(stack);
  return found;
}

/* The ends and type of an edge that a module may write. */
static bool edge_check(struct psg *psg, const char *type_name, const char *from_id, const char *to_id,
                       enum psg_edge_type *type, struct psg_node **from, struct psg_node **to, struct error *err) {
  if (!psg_wait(psg, err))
    return false;
  *type = psg_edge_type_find(type_name ? type_name : "", type_name ? strlen(type_name) : 0);
  *from = psg_graph_find(&psg->graph, from_id);
  *to = psg_graph_find(&psg->graph, to_id);
  if (*type == PSG_EDGE_NONE)
    return error_set(err, ERR_ARGUMENT_INVALID, "type: no such type of edge.");
  if (!*from || !*to)
    return error_set(err, ERR_PSG_NODE_NOT_FOUND, NULL);
  if ((*from)->owned)
    return error_set(err, ERR_PSG_OWNER, NULL);
  const struct psg_edge_info *info = &psg_edge_types[*type];
  if (!type_fits(info->from, *from) || !type_fits(info->to, *to))
    return error_set(err, ERR_PSG_NODE_INVALID, "An edge of this type does not join nodes of these types.");
  struct psg_edge edge = {.key.type = (uint8_t)*type, .from = *from, .to = *to};
  struct psg_node *parent;
  if (psg_edge_is_parental(&edge, &parent))
    return error_set(err, ERR_PSG_NODE_INVALID, "The edge to a parent comes and goes with the node.");
  return true;
}

void psg_edge_add(struct psg *psg, const char *type_name, const char *from_id, const char *to_id,
                  const char *source_module, psg_write_done *done, void *arg) {
  struct error err = {0};
  enum psg_edge_type type;
  struct psg_node *from, *to;
  if (edge_check(psg, type_name, from_id, to_id, &type, &from, &to, &err)) {
    if (psg_graph_edge_find(&psg->graph, type, from, to))
      error_set(&err, ERR_PSG_EDGE_EXISTS, NULL);
    else if (psg_edge_types[type].acyclic && reaches(to, from, type))
      error_set(&err, ERR_PSG_CYCLE, NULL);
  }
  if (error_is_set(&err)) {
    fail(done, arg, &err);
    return;
  }
  psg_graph_edge_add(&psg->graph, type, from, to);
  written(psg, source_module, done, arg, 0);
}

void psg_edge_remove(struct psg *psg, const char *type_name, const char *from_id, const char *to_id,
                     const char *source_module, psg_write_done *done, void *arg) {
  struct error err = {0};
  enum psg_edge_type type;
  struct psg_node *from, *to;
  struct psg_edge *edge = NULL;
  if (edge_check(psg, type_name, from_id, to_id, &type, &from, &to, &err)) {
    edge = psg_graph_edge_find(&psg->graph, type, from, to);
    if (!edge)
      error_set(&err, ERR_PSG_EDGE_NOT_FOUND, NULL);
  }
  if (!edge) {
    fail(done, arg, &err);
    return;
  }
  psg_graph_edge_delete(&psg->graph, edge);
  written(psg, source_module, done, arg, 0);
}
