/* modules.c: modules in the graph (LIF-1, GLUE-3): an ExtensionNode per module id, a StageNode for each lifecycle state
 * that an instance passes through, a PipelineStageEvent when a stage ends and when one begins. An instance (module and
 * generation) is a pipeline of its own. */
#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "core/psg/psg_internal.h"
#include "sdk/base/str.h"

#define TRANSITION_TEXTS(X) X(module_id) X(protocol_family) X(module_version) X(from_state) X(to_state) X(cause)

enum effect { EFFECT_KEEP, EFFECT_ACTIVE, EFFECT_INACTIVE };

struct stage_info {
  const char *state;
  unsigned order;
  const char *status, *before;
  enum effect effect;
};

static const struct stage_info stages[] = {
#define PSG_STAGE(state_, order_, status_, before_, effect_) {state_, order_, status_, before_, EFFECT_##effect_},
#include "core/psg/stages.def"
#undef PSG_STAGE
};

/* An instance that is somewhere in its pipeline. */
struct instance {
  struct instance *prev, *next;
  uint64_t generation;
  char pipeline_id[ID_UUID_BYTES];
  struct psg_node *stage; /* current and running; NULL: none */
};

struct psg_module {
  UT_hash_handle hh;
  char *id;
  struct psg_node *extension;
  char status[16];
  uint64_t active_generation; /* whose readiness makes the extension active */
  struct instance *instances; /* oldest first */
  size_t instance_count;
  struct psg_node *stages; /* oldest first */
  size_t stage_count;
};

static const struct stage_info *stage_find(const char *state) {
  static const struct stage_info unknown = {"", 99, "running", "completed", EFFECT_KEEP};
  for (size_t i = 0; i < sizeof(stages) / sizeof(stages[0]); i++)
    if (str_equal(stages[i].state, state))
      return &stages[i];
  return &unknown;
}

static struct psg_module *module_add(struct psg *psg, const char *id, struct psg_node *extension) {
  struct psg_module *module = BASE_NEW(struct psg_module);
  module->id = base_strdup(id);
  module->extension = extension;
  HASH_ADD_KEYPTR(hh, psg->modules, module->id, strlen(module->id), module);
  return module;
}

static struct psg_module *module_find(const struct psg *psg, const char *id) {
  struct psg_module *module;
  HASH_FIND(hh, psg->modules, id, strlen(id), module);
  return module;
}

/* The x.y.z that a version begins with; the extension's schema takes nothing else. */
static void version_copy(const char *version, char *target, size_t target_bytes) {
  size_t length = 0;
  const char *at = version ? version : "";
  for (int part = 0; part < 3; part++) {
    size_t digits = strspn(at, "0123456789");
    if (digits == 0 || digits > 9 || (digits > 1 && *at == '0') || (part < 2 && at[digits] != '.')) {
      str_copy(target, target_bytes, "0.0.0");
      return;
    }
    length += digits + (part < 2);
    at += digits + (part < 2);
  }
  BASE_CHECK(length < target_bytes);
  memcpy(target, version, length);
  target[length] = 0;
}

static void extension_write(struct psg *psg, struct psg_module *module, const char *extension_id,
                            const struct psg_module_transition *transition, const char *status) {
  struct buf *object = &psg->scratch;
  char version[40];
  version_copy(transition->module_version, version, sizeof(version));
  buf_clear(object);
  buf_printf(object,
             "{\"meta\":{\"protocol_version\":\"1.0.0\",\"schema_version\":\"1.0.0\"},\"extension_id\":\"%s\","
             "\"context_id\":\"%s\"",
             extension_id, psg->context_id);
  psg_field(object, "name", module->id);
  psg_field(object, "version", version);
  buf_printf(object, ",\"extension_type\":\"integration\",\"config\":{\"generation\":%" PRIu64, transition->generation);
  psg_field(object, "protocol_family", transition->protocol_family);
  psg_field(object, "module_version", transition->module_version);
  buf_append_char(object, '}');
  psg_field(object, "status", status);
  buf_append_char(object, '}');
  if (module->extension) {
    psg_graph_node_set(&psg->graph, module->extension, object->data, object->length);
  } else {
    module->extension =
        psg_graph_node_add(&psg->graph, PSG_TYPE_ExtensionNode, extension_id, object->data, object->length, 16, true);
    psg_graph_parent_link(&psg->graph, module->extension, psg_graph_find(&psg->graph, psg->context_id));
  }
  str_copy(module->status, sizeof(module->status), status);
}

static struct psg_module *module_make(struct psg *psg, const struct psg_module_transition *transition) {
  struct psg_module *module = module_find(psg, transition->module_id);
  if (module)
    return module;
  char extension_id[ID_UUID_BYTES];
  id_pool_uuid_v4(&psg->ids, extension_id);
  module = module_add(psg, transition->module_id, NULL);
  extension_write(psg, module, extension_id, transition, "registered");
  return module;
}

static void extension_follow(struct psg *psg, struct psg_module *module, const struct psg_module_transition *transition,
                             enum effect effect) {
  if (effect == EFFECT_ACTIVE) {
    bool new_generation = module->active_generation != transition->generation;
    module->active_generation = transition->generation;
    if (new_generation || !str_equal(module->status, "active"))
      extension_write(psg, module, module->extension->id, transition, "active");
  } else if (effect == EFFECT_INACTIVE && str_equal(module->status, "active") &&
             module->active_generation == transition->generation) {
    extension_write(psg, module, module->extension->id, transition, "inactive");
  }
}

static void instance_drop(struct psg_module *module, struct instance *instance) {
  DL_DELETE(module->instances, instance);
  module->instance_count--;
  base_free(instance);
}

static struct instance *instance_find(struct psg_module *module, uint64_t generation) {
  struct instance *instance;
  DL_SEARCH_SCALAR(module->instances, instance, generation, generation);
  return instance;
}

static struct instance *instance_make(struct psg *psg, struct psg_module *module, uint64_t generation) {
  struct instance *instance = BASE_NEW(struct instance);
  instance->generation = generation;
  id_pool_uuid_v4(&psg->ids, instance->pipeline_id);
  DL_APPEND(module->instances, instance);
  module->instance_count++;
  return instance;
}

static void stage_event(struct psg *psg, const struct psg_node *stage, const char *pipeline_id, const char *state,
                        const char *status, const char *from, const char *reason) {
  psg_stage_emit(psg, &(struct psg_stage_event){.type = "module_stage_changed",
                                                .pipeline_id = pipeline_id,
                                                .stage_id = stage->id,
                                                .stage_name = state,
                                                .status = status,
                                                .order = stage_find(state)->order,
                                                .resource_type = "extension",
                                                .resource_id = stage->in->from->id,
                                                .from = from,
                                                .to = status,
                                                .reason = reason});
}

static void stage_end(struct psg *psg, struct psg_node *stage, const char *status, const char *reason) {
  struct buf *more = &psg->scratch;
  char at[PSG_TIME_LENGTH + 1];
  char *state = psg_object_text(stage->object, stage->length, "stage");
  char *pipeline_id = psg_object_text(stage->object, stage->length, "pipeline_id");
  psg_time_next(psg, at);
  buf_clear(more);
  psg_field(more, "finished_at", at);
  psg_field(more, "end_reason", reason);
  stage->live = false;
  psg_status_set(psg, stage, status, more->data, more->length);
  stage_event(psg, stage, pipeline_id, state, status, "running", reason);
  base_free(state);
  base_free(pipeline_id);
}

static void stages_trim(struct psg *psg, struct psg_module *module) {
  struct psg_node *stage, *next;
  DL_FOREACH_SAFE2(module->stages, stage, next, list_next) {
    if (module->stage_count <= PSG_STAGES_MAX)
      break;
    if (stage->live)
      continue;
    DL_DELETE2(module->stages, stage, list_prev, list_next);
    module->stage_count--;
    psg_graph_node_delete(&psg->graph, stage);
  }
}

static void stage_begin(struct psg *psg, struct psg_module *module, struct instance *instance, const char *state,
                        const char *reason) {
  const struct stage_info *info = stage_find(state);
  struct buf *object = &psg->scratch;
  char at[PSG_TIME_LENGTH + 1], stage_id[ID_UUID_BYTES];
  id_pool_uuid_v4(&psg->ids, stage_id);
  psg_time_next(psg, at);
  buf_clear(object);
  buf_printf(object,
             "{\"stage_id\":\"%s\",\"extension_id\":\"%s\",\"pipeline_id\":\"%s\",\"generation\":%" PRIu64
             ",\"stage_order\":%u,\"started_at\":\"%s\"",
             stage_id, module->extension->id, instance->pipeline_id, instance->generation, info->order, at);
  psg_field(object, "module", module->id);
  psg_field(object, "stage", state);
  psg_field(object, "reason", reason);
  psg_field(object, "status", info->status);
  buf_append_char(object, '}');
  struct psg_node *stage =
      psg_graph_node_add(&psg->graph, PSG_TYPE_StageNode, stage_id, object->data, object->length, 96, true);
  psg_graph_parent_link(&psg->graph, stage, module->extension);
  DL_APPEND2(module->stages, stage, list_prev, list_next);
  module->stage_count++;
  stage_event(psg, stage, instance->pipeline_id, state, info->status, "pending", reason);
  stage->live = str_equal(info->status, "running");
  instance->stage = stage->live ? stage : NULL;
  stages_trim(psg, module);
}

/* ---- while the graph is being loaded ---- */

struct psg_deferred {
  struct psg_deferred *prev, *next;
  struct psg_module_transition transition; /* texts of its own */
};

void psg_transition_defer(struct psg *psg, const struct psg_module_transition *transition) {
  struct psg_deferred *deferred = BASE_NEW(struct psg_deferred);
  deferred->transition = *transition;
#define TEXT(field_) deferred->transition.field_ = transition->field_ ? base_strdup(transition->field_) : NULL;
  TRANSITION_TEXTS(TEXT)
#undef TEXT
  DL_APPEND(psg->load.deferred, deferred);
}

void psg_transitions_deferred(struct psg *psg, bool record) {
  while (psg->load.deferred) {
    struct psg_deferred *deferred = psg->load.deferred;
    DL_DELETE(psg->load.deferred, deferred);
    if (record)
      psg_module_transition_record(psg, &deferred->transition);
#define TEXT(field_) base_free((void *)(uintptr_t)deferred->transition.field_);
    TRANSITION_TEXTS(TEXT)
#undef TEXT
    base_free(deferred);
  }
}

void psg_module_transition_record(struct psg *psg, const struct psg_module_transition *transition) {
  BASE_CHECK_MAGIC(psg, PSG_MAGIC);
  if (psg->load.running) {
    psg_transition_defer(psg, transition);
    return;
  }
  if (!psg_wait(psg, NULL))
    return;
  struct psg_module *module = module_make(psg, transition);
  const struct stage_info *info = stage_find(transition->to_state);
  struct instance *instance = instance_find(module, transition->generation);
  if (!instance) { /* first heard of: the state it comes from is its first stage */
    if (module->instance_count >= PSG_INSTANCES_MAX) {
      if (module->instances->stage)
        stage_end(psg, module->instances->stage, "skipped", "instance.forgotten");
      instance_drop(module, module->instances);
    }
    instance = instance_make(psg, module, transition->generation);
    if (!str_is_empty(transition->from_state))
      stage_begin(psg, module, instance, transition->from_state, transition->cause);
  }
  if (instance->stage)
    stage_end(psg, instance->stage, info->before, transition->cause);
  stage_begin(psg, module, instance, transition->to_state, transition->cause);
  extension_follow(psg, module, transition, info->effect);
  psg_source_set(psg, PSG_SOURCE_CORE);
  psg_touch(psg);
}

/* ---- after a start, at the end ---- */

void psg_modules_index(struct psg *psg) {
  struct psg_node *node;
  for (node = psg->graph.nodes; node; node = node->hh.next) {
    if (node->type != PSG_TYPE_ExtensionNode || !node->owned)
      continue;
    char *name = psg_object_text(node->object, node->length, "name");
    char *status = psg_object_text(node->object, node->length, "status");
    if (name && status)
      str_copy(module_add(psg, name, node)->status, sizeof(module_find(psg, name)->status), status);
    base_free(name);
    base_free(status);
  }
  for (node = psg->graph.nodes; node; node = node->hh.next) {
    if (node->type != PSG_TYPE_StageNode)
      continue;
    char *id = psg_object_text(node->object, node->length, "module");
    char *status = psg_object_text(node->object, node->length, "status");
    struct psg_module *module = id ? module_find(psg, id) : NULL;
    node->live = str_equal(status, "running");
    if (module) {
      DL_APPEND2(module->stages, node, list_prev, list_next);
      module->stage_count++;
    }
    base_free(id);
    base_free(status);
  }
}

void psg_modules_abandon(struct psg *psg, const char *status, const char *reason) {
  for (struct psg_module *module = psg->modules; module; module = module->hh.next) {
    for (struct psg_node *stage = module->stages; stage; stage = stage->list_next)
      if (stage->live)
        stage_end(psg, stage, status, reason);
    while (module->instances)
      instance_drop(module, module->instances);
    if (str_equal(module->status, "active")) {
      psg_status_set(psg, module->extension, "inactive", "", 0);
      str_copy(module->status, sizeof(module->status), "inactive");
    }
  }
}

void psg_modules_free(struct psg *psg) {
  struct psg_module *module, *next;
  HASH_ITER(hh, psg->modules, module, next) {
    HASH_DEL(psg->modules, module);
    while (module->instances)
      instance_drop(module, module->instances);
    base_free(module->id);
    base_free(module);
  }
}
