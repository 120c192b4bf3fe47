/* process.c: the two processes of a module (LIF-9). The first is there from the start; the second is made when the
 * module is upgraded for the first time: it has the module's configuration under an id of its own ("<module>@2"), hence
 * a directory, sockets and a sandbox of its own, and inherits the same listeners. Staging gives a process that is down
 * another program; it may allocate, which the restarts that follow do not. */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sdk/base/alloc.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"
#include "supervisor/supervisor_internal.h"

#define SECOND "@2"

bool process_program_is_good(const char *program) {
  struct stat status;
  return program[0] == '/' && stat(program, &status) == 0 && S_ISREG(status.st_mode) && (status.st_mode & 0111) != 0 &&
         access(program, X_OK) == 0;
}

static bool prepare(struct supervisor *supervisor, struct child *child, struct error *err) {
  if (!image_identity_prepare(supervisor, child, err) || !rundir_child_prepare(supervisor, child, err))
    return false;
  image_module_begin(supervisor, child);
  image_module_prepare(supervisor, child);
  return true;
}

/* In the place behind the last child, which stays free when this fails. */
static struct child *second_make(struct supervisor *supervisor, const struct child *first, const char *id,
                                 const char *program) {
  struct error err = {0};
  if (supervisor->child_count == SUPERVISOR_CHILDREN_MAX)
    return NULL; /* only for a moment, after many reloads */
  struct child *child = &supervisor->children[supervisor->child_count];
  *child = (struct child){.supervisor = supervisor, .module_id = first->module_id};
  child->own_config = BASE_NEW(struct config_module);
  *child->own_config = *first->config;
  child->own_config->id = base_strdup(id);
  child->config = child->own_config;
  str_copy(child->program, sizeof(child->program), program);
  if (prepare(supervisor, child, &err) && child_init(child, supervisor->base, &err)) {
    link_child_added(supervisor);
    supervisor->child_count++;
    return child;
  }
  log_error_value(LOG_ERROR, "supervisor", "a second process cannot be prepared", &err);
  child_free(child);
  image_free(&child->image);
  process_free(child);
  *child = (struct child){0};
  return NULL;
}

static bool restage(struct supervisor *supervisor, struct child *child, const char *program) {
  struct error err = {0};
  image_module_reset(child);
  str_copy(child->program, sizeof(child->program), program);
  if (prepare(supervisor, child, &err))
    return true;
  log_error_value(LOG_ERROR, "supervisor", "a process cannot be prepared", &err);
  return false;
}

supervisor_control_v1_Reason process_stage(struct supervisor *supervisor, const char *module_id, const char *process_id,
                                           const char *program) {
  char second_id[sizeof(((struct child *)0)->program)];
  struct child *first = supervisor_child_find(supervisor, module_id);
  struct child *child = supervisor_child_find(supervisor, process_id);
  str_copy(second_id, sizeof(second_id), module_id);
  strncat(second_id, SECOND, sizeof(second_id) - strlen(second_id) - 1);
  if (!first || first->is_core || first->own_config)
    return supervisor_control_v1_Reason_REASON_UNKNOWN_MODULE;
  if (!str_equal(process_id, module_id) && !str_equal(process_id, second_id))
    return supervisor_control_v1_Reason_REASON_INVALID;
  if (child && child->state != CHILD_DOWN)
    return supervisor_control_v1_Reason_REASON_ALREADY_RUNNING;
  if (program[0] && !process_program_is_good(program))
    return supervisor_control_v1_Reason_REASON_PROGRAM;
  if (child && !restage(supervisor, child, program))
    return supervisor_control_v1_Reason_REASON_INVALID;
  if (!child && !(child = second_make(supervisor, first, process_id, program)))
    return supervisor_control_v1_Reason_REASON_INVALID;
  child->role = CHILD_CANDIDATE;
  child_hold(child, false, "", "");
  backoff_reset(&child->backoff);
  log_event(LOG_INFO, "supervisor", "staged", LOG_TEXT("module", child->id), LOG_TEXT("program", child->image.path));
  refusals_update(supervisor);
  return supervisor_control_v1_Reason_REASON_UNSPECIFIED;
}

void process_promote(struct supervisor *supervisor, struct child *child) {
  for (size_t i = 1; i < supervisor->child_count; i++) {
    struct child *other = &supervisor->children[i];
    if (other == child || !str_equal(other->module_id, child->module_id))
      continue;
    other->role = CHILD_RETIRED;
    if (other->state == CHILD_BACKOFF)
      child_happens(other, CHILD_EVENT_STOP);
  }
  child->role = CHILD_CURRENT;
  log_event(LOG_INFO, "supervisor", "promoted", LOG_TEXT("module", child->id), LOG_TEXT("program", child->image.path));
  refusals_update(supervisor);
}

void process_free(struct child *child) {
  base_free(child->runtime_socket);
  if (child->own_config)
    base_free(child->own_config->id);
  base_free(child->own_config);
}
