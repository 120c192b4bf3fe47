/* check.c: what can be known before anything starts, said once as warnings: missing programs and users, modules
 * without a user of their own. */
#include <unistd.h>

#include "sdk/base/alloc.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"
#include "supervisor/supervisor_internal.h"

static bool check_program(const char *id, const char *name) {
  char *path = image_program_find(name);
  bool ok = access(path, X_OK) == 0;
  if (!ok)
    log_event(LOG_WARN, "supervisor", "the program is not there or not executable", LOG_TEXT("module", id),
              LOG_TEXT("program", path));
  base_free(path);
  return ok;
}

static bool check_user(const char *id, const char *user, const char *group) {
  struct spawn_image image = {0};
  struct error err = {0};
  bool ok = image_user_find(user, group, &image, &err);
  if (!ok)
    log_error_value(LOG_WARN, "supervisor", id, &err);
  image_free(&image);
  return ok;
}

/* A protection that is not in force, and why. */
static void warn(const char *id, const char *protection, const char *why) {
  log_event(LOG_WARN, "supervisor", "a protection is off", LOG_TEXT("module", id), LOG_TEXT("protection", protection),
            LOG_TEXT("why", why));
}

/* The other measures are found out when they are made: sandbox_report. */
static void check_user_own(const struct config_module *module) {
  bool named = !str_is_empty(module->user);
  if (!named)
    warn(module->id, "own user", "no user is configured: it runs as the supervisor's own");
  else if (geteuid() != 0)
    warn(module->id, "own user", "only root can change the user");
}

bool supervisor_check(const struct config *config) {
  bool ok = check_program("core", config->core_binary) & check_user("core", config->core_user, config->core_group);
  for (size_t i = 0; i < config->modules_count; i++) {
    const struct config_module *module = &config->modules[i];
    if (!module->enabled)
      continue;
    ok &= check_program(module->id, module->binary);
    ok &= check_user(module->id, module->user, module->group);
    check_user_own(module);
  }
  if (!str_is_empty(config->alerts_program)) {
    const struct config_module alerts = config_alerts_confinement(config);
    ok &= check_program(alerts.id, config->alerts_program) & check_user(alerts.id, alerts.user, alerts.group);
    check_user_own(&alerts);
  }
  return ok;
}
