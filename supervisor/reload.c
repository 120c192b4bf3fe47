/* reload.c: SIGHUP: gatehouse.yaml is read again, strictly and with the same overrides, and gone over to:
 *
 *   log.level            at once here, at their next start in the core and in modules that are not started anew
 *   modules[].restart    at once
 *   modules[].config     told to the core, when nothing else of the module changed: it takes the module over to it
 *   a module added       started
 *   a module removed     stopped with its grace
 *   a module changed     stopped with its grace and started as it is configured now; the others go on
 *
 * When modules came, went or changed, the core is restarted after those that had to end have ended, so that they could
 * finish what they did: it reads the file once. The modules that go on attach to the new one by themselves, as after
 * any end of a core, and it orders the start of those that are to run.
 *
 * One that is asked for while the core is being started, or while another one is under way, follows when the core is
 * ready.
 *
 * Everything else needs a restart and is refused: then, as with a file that has errors, a program or a user that is not
 * there, nothing changes at all, and the log and STATUS= say why.
 *
 * Configurations that were in force stay in memory, a few kilobytes each: names that they hold are in use by children
 * that are still there. Allocates; runs in a turn of the loop of its own. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sdk/base/alloc.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"
#include "supervisor/supervisor_internal.h"

static const char removed_text[] = "removed from the configuration";
static const char disabled_text[] = "not enabled in the configuration";

/* ---- what is possible -----------------------------------------------------------------------------------------------
 */

/* "listeners": what a restart is needed for; NULL: nothing. */
static const char *listeners_difference(const struct config *now, const struct config *next) {
  bool same = now->listeners_count == next->listeners_count;
  for (size_t i = 0; same && i < now->listeners_count; i++)
    same = config_listener_difference(&now->listeners[i], &next->listeners[i]) == NULL;
  return same ? NULL : "listeners";
}

/* The module could be started: what the supervisor would otherwise find out too late to refuse. */
static bool module_is_possible(const struct config_module *module, struct error *err) {
  struct spawn_image image = {0};
  char *path = image_program_find(module->binary);
  bool ok = access(path, X_OK) == 0 ||
            error_set(err, ERR_CONFIG_VALUE, "module \"%s\": the program is not there or not executable: %.150s",
                      module->id, path);
  ok = ok && image_user_find(module->user, module->group, &image, err);
  image_free(&image);
  base_free(path);
  return ok;
}

/* One of this id that is on its way out, or NULL. */
static struct child *removed_find(struct supervisor *supervisor, const char *id) {
  for (size_t i = 1; i < supervisor->child_count; i++)
    if (supervisor->children[i].removed && str_equal(supervisor->children[i].id, id))
      return &supervisor->children[i];
  return NULL;
}

/* A place for a new child: one whose child was removed and is gone, else behind the last; NULL: there is none. */
static struct child *place_find(struct supervisor *supervisor) {
  for (size_t i = 1; i < supervisor->child_count; i++)
    if (supervisor->children[i].removed && supervisor->children[i].state == CHILD_DOWN)
      return &supervisor->children[i];
  return supervisor->child_count < SUPERVISOR_CHILDREN_MAX ? &supervisor->children[supervisor->child_count] : NULL;
}

/* The second process of an upgrade, running or not; its first is named. */
static const struct child *second_find(const struct supervisor *supervisor, const struct child *first) {
  for (size_t i = 1; i < supervisor->child_count; i++)
    if (supervisor->children[i].own_config && str_equal(supervisor->children[i].module_id, first->id))
      return &supervisor->children[i];
  return NULL;
}

/* Nothing but the module's own configuration, and its restart policy, differs: key is the first that does, and "config"
 * is the last one in the table. */
static bool is_for_the_core(const char *key) {
  return key && str_equal(key, "config");
}

static bool is_possible(struct supervisor *supervisor, const struct config *next, struct error *err) {
  const char *key = config_root_difference(supervisor->config, next, "log.level");
  size_t added = 0, places = SUPERVISOR_CHILDREN_MAX - supervisor->child_count;
  if (!key)
    key = listeners_difference(supervisor->config, next);
  if (key)
    return error_set(err, ERR_CONFIG_VALUE, "a change of %s needs a restart", key);
  for (size_t i = 1; i < supervisor->child_count; i++) {
    places += supervisor->children[i].removed && supervisor->children[i].state == CHILD_DOWN;
    const struct child *child = &supervisor->children[i];
    if (!child->removed && !child->own_config && !config_module_find(next, child->id) && second_find(supervisor, child))
      return error_set(err, ERR_CONFIG_VALUE, "module \"%s\" was upgraded beside itself: to remove it needs a restart",
                       child->id);
    if (supervisor->children[i].config_next)
      return error_set(err, ERR_CONFIG_VALUE, "module \"%s\" is still being changed", supervisor->children[i].id);
  }
  for (size_t i = 0; i < next->modules_count; i++) {
    const struct config_module *module = &next->modules[i];
    const struct child *child = supervisor_child_find(supervisor, module->id), *leaving;
    const char *differs = child ? config_module_difference(child->config, module, "restart") : NULL;
    if (child && (!differs || is_for_the_core(differs)))
      continue;
    leaving = child ? NULL : removed_find(supervisor, module->id);
    if (leaving && leaving->state != CHILD_DOWN)
      return error_set(err, ERR_CONFIG_VALUE, "module \"%s\" is still being stopped", module->id);
    if (child && second_find(supervisor, child))
      return error_set(err, ERR_CONFIG_VALUE, "module \"%s\" was upgraded beside itself: to change it needs a restart",
                       module->id);
    added += child == NULL;
    if (!module_is_possible(module, err) || !privileges_suffice(supervisor, module, err))
      return false;
  }
  return added <= places || error_set(err, ERR_CONFIG_VALUE, "modules that were removed are still being stopped");
}

/* ---- going over -----------------------------------------------------------------------------------------------------
 */

static void say_module(const char *what, const char *id, const char *key) {
  log_event(LOG_INFO, "supervisor", what, LOG_TEXT("module", id), LOG_TEXT("key", key ? key : ""));
}

/* Its image anew; descriptors of its own stay. */
static bool rebuild(struct child *child, const struct config_module *module, struct error *err) {
  image_module_reset(child);
  child->program[0] = '\0'; /* what it was upgraded to is over: the file has the last word */
  child->config = module;
  if (!image_identity_prepare(child->supervisor, child, err) || !rundir_child_prepare(child->supervisor, child, err))
    return false;
  image_module_begin(child->supervisor, child);
  image_module_prepare(child->supervisor, child);
  return true;
}

static void module_add(struct supervisor *supervisor, const struct config_module *module) {
  struct error err = {0};
  struct child *child = removed_find(supervisor, module->id);
  if (!child)
    child = place_find(supervisor); /* is_possible counted them */
  if (child == &supervisor->children[supervisor->child_count])
    supervisor->child_count++;
  child_free(child);
  image_free(&child->image);
  process_free(child);
  *child = (struct child){.supervisor = supervisor, .config = module, .id = module->id};
  bool ok = child_init(child, supervisor->base, &err) && rebuild(child, module, &err);
  if (!ok) {
    log_error_value(LOG_ERROR, "supervisor", "a module cannot be added", &err);
    child->removed = true; /* the next reload tries again */
    return;
  }
  child_hold(child, !module->enabled, disabled_text, "");
  say_module("a module was added", module->id, NULL);
}

static void module_remove(struct child *child) {
  say_module("a module was removed", child->id, NULL);
  child->removed = true;
  child_hold(child, true, removed_text, "");
  rundir_socket_remove(child); /* the next core is not to find it */
  child_stop(child, 0, false);
}

static void module_change(struct child *child, const struct config_module *module, const char *key) {
  say_module("a module is changed", child->id, key);
  child->config_next = module;
  child_stop(child, 0, false);
}

/* It is down: from now on it is what is configured. A quarantine stays one. */
static void module_renew(struct child *child) {
  struct error err = {0};
  const struct config_module *next = child->config_next, *before = child->config;
  child->config_next = NULL;
  backoff_reset(&child->backoff);
  if (!rebuild(child, next, &err)) {
    log_error_value(LOG_ERROR, "supervisor", "a module cannot be changed", &err);
    child->removed = true; /* the next reload tries again */
  } else if (!next->enabled) {
    child_hold(child, true, disabled_text, "");
  } else if (!before->enabled) {
    child_hold(child, false, "", "");
  }
}

/* Goes on when nobody who has to end is there any more. */
static void go_further(struct supervisor *supervisor) {
  for (size_t i = 1; i < supervisor->child_count; i++) {
    const struct child *child = &supervisor->children[i];
    if ((child->removed || child->config_next) && child->state != CHILD_DOWN)
      return;
  }
  for (size_t i = 1; i < supervisor->child_count; i++)
    if (supervisor->children[i].config_next)
      module_renew(&supervisor->children[i]);
  supervisor->reload = RELOAD_WAITS_FOR_CORE;
  if (supervisor->children[0].state == CHILD_BACKOFF)
    return; /* it is about to be started anyway */
  child_stop(&supervisor->children[0], 0, true);
}

void reload_child_settled(struct child *child) {
  if (child->supervisor->reload == RELOAD_WAITS_FOR_MODULES && child->supervisor->phase == SUPERVISOR_RUNNING)
    go_further(child->supervisor);
}

/* Whether modules came, went or changed. *reconfigured: whether there is something for the core to take over. */
static bool go_over(struct supervisor *supervisor, const struct config *next, bool *reconfigured) {
  bool any = false;
  size_t before = supervisor->child_count;
  for (size_t i = 1; i < before; i++) {
    struct child *child = &supervisor->children[i];
    const struct config_module *module = child->removed ? NULL : config_module_find(next, child->id);
    const char *key = module ? config_module_difference(child->config, module, "restart") : NULL;
    if (child->removed || child->own_config) /* a second process goes with its module, which did not change */
      continue;
    any |= !module || (key && !is_for_the_core(key));
    *reconfigured |= is_for_the_core(key);
    if (!module) {
      module_remove(child);
    } else if (key && !is_for_the_core(key)) {
      module_change(child, module, key);
    } else {
      child->config = module;
      child->restart = module->restart;
    }
  }
  for (size_t i = 0; i < next->modules_count; i++)
    if (!supervisor_child_find(supervisor, next->modules[i].id)) {
      any = true;
      module_add(supervisor, &next->modules[i]);
    }
  return any;
}

static void log_level_change(struct supervisor *supervisor, unsigned level) {
  log_level_set((enum log_level)level);
  for (size_t i = 0; i < supervisor->child_count; i++)
    image_log_level_set(&supervisor->children[i].image, level);
}

static bool apply(struct supervisor *supervisor, struct config *next, struct error *err) {
  const struct config *before = supervisor->config;
  if (!is_possible(supervisor, next, err))
    return false;
  supervisor->config = next;
  if (!rundir_config_write(supervisor, err)) {
    supervisor->config = before;
    return false;
  }
  supervisor->loaded =
      base_realloc_array(supervisor->loaded, supervisor->loaded_count + 1, sizeof(*supervisor->loaded));
  supervisor->loaded[supervisor->loaded_count++] = next;
  for (size_t i = 0; i < next->listeners_count; i++)
    supervisor->listeners[i].config = &next->listeners[i];
  log_level_change(supervisor, next->log_level);
  bool reconfigured = false;
  if (go_over(supervisor, next, &reconfigured)) {
    supervisor->reload = RELOAD_WAITS_FOR_MODULES;
    supervisor->link.cursor =
        UINT32_MAX; /* nothing is owed any more to this core; the next is told from the beginning */
    go_further(supervisor);
  } else if (reconfigured) {
    link_say_reconfigured(supervisor); /* a new core would find out by itself */
  }
  return true;
}

/* ---- the reload as a whole ------------------------------------------------------------------------------------------
 */

static void refuse(struct supervisor *supervisor, const char *why) {
  char text[ERROR_MESSAGE_MAX + 64];
  log_event(LOG_ERROR, "supervisor", "the configuration is not taken over; the one before stays in force",
            LOG_TEXT("why", why));
  snprintf(text, sizeof(text), "the new configuration is refused: %s", why);
  upward_reload_ends(supervisor, text);
}

static void refuse_problems(struct supervisor *supervisor, const struct config_problems *problems) {
  struct buf line = {0};
  for (size_t i = problems->count; i-- > 0;) { /* the first one last: it stays in the buffer */
    buf_free(&line);
    config_problem_format(&problems->items[i], &line);
    log_event(LOG_ERROR, "supervisor", "a problem of the new configuration", LOG_TEXT("problem", line.data));
  }
  refuse(supervisor, line.data ? line.data : "it cannot be read");
  buf_free(&line);
}

void reload_run(struct supervisor *supervisor) {
  struct config_problems problems;
  struct error err = {0};
  if (supervisor->phase != SUPERVISOR_RUNNING)
    return;
  upward_reload_begins(supervisor);
  if (core_program_is_changing(supervisor)) {
    refuse(supervisor, "the core is being upgraded; ask again");
    return;
  }
  if (supervisor->reload != RELOAD_NONE || supervisor->children[0].state != CHILD_UP) {
    supervisor->reload_again = true;
    log_event(LOG_INFO, "supervisor", "the configuration is read again when the core is ready");
    return;
  }
  struct config *next = config_load(supervisor->source, &problems);
  if (next && next->contents_length == supervisor->config->contents_length &&
      (next->contents_length == 0 ||
       memcmp(next->contents, supervisor->config->contents, next->contents_length) == 0)) {
    config_free(&next);
    upward_reload_ends(supervisor, "the configuration is the same as before");
  } else if (!next) {
    refuse_problems(supervisor, &problems);
  } else if (!apply(supervisor, next, &err)) {
    refuse(supervisor, err.message);
    config_free(&next);
  } else if (supervisor->reload == RELOAD_NONE) {
    log_event(LOG_INFO, "supervisor", "the configuration was taken over");
    upward_reload_ends(supervisor, "the configuration was taken over");
  }
}

static void again(evutil_socket_t fd, short what, void *context) {
  (void)fd;
  (void)what;
  reload_run(context);
}

void reload_core_ready(struct supervisor *supervisor) {
  if (supervisor->reload == RELOAD_WAITS_FOR_CORE) {
    supervisor->reload = RELOAD_NONE;
    log_event(LOG_INFO, "supervisor", "the configuration was taken over");
    upward_reload_ends(supervisor, "the configuration was taken over");
  }
  if (supervisor->reload != RELOAD_NONE || !supervisor->reload_again)
    return;
  supervisor->reload_again = false;
  event_base_once(supervisor->base, -1, EV_TIMEOUT, again, supervisor, NULL);
}

uint32_t reload_module_count(const struct supervisor *supervisor) {
  uint32_t count = 0;
  for (size_t i = 1; i < supervisor->child_count; i++)
    count += !supervisor->children[i].removed;
  return count;
}

bool reload_is_gone(const struct supervisor *supervisor, size_t cursor) {
  return supervisor->children[cursor < supervisor->child_count ? cursor : cursor - supervisor->child_count].removed;
}

bool reload_is_last(const struct supervisor *supervisor, size_t index) {
  for (size_t i = index + 1; i < supervisor->child_count; i++)
    if (!supervisor->children[i].removed)
      return false;
  return true;
}

void reload_free(struct supervisor *supervisor) {
  for (size_t i = 0; i < supervisor->loaded_count; i++)
    config_free(&supervisor->loaded[i]);
  base_free(supervisor->loaded);
}
