/* config_check.c: what no single key can say: names are unique, listeners that modules name exist, addresses do not
 * clash, sockets' paths fit, TLS has both halves. Also of a file with other problems, as far as it could be read: what
 * is missing was reported where it is missing. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "sdk/base/str.h"
#include "sdk/config/config_internal.h"

#define SOCKET_PATH_BYTES_MAX 107
#define NO_INDEX SIZE_MAX /* a section, not an element of a list */

struct element {
  const char *list;
  size_t index;
  unsigned line, column;
};

static void report(const struct config *config, struct config_problems *problems, const struct element *element,
                   const char *member, const char *text, const char *detail) {
  char key[CONFIG_PROBLEM_KEY_BYTES];
  if (element->index == NO_INDEX)
    snprintf(key, sizeof(key), "%s.%s", element->list, member);
  else
    snprintf(key, sizeof(key), "%s[%zu].%s", element->list, element->index, member);
  struct config_where where = {*config->path ? config->path : "built-in", element->line, element->column, key};
  config_problem_add(problems, ERR_CONFIG_VALUE, &where, "%s%s%s%s", text, detail ? " \"" : "", detail ? detail : "",
                     detail ? "\"" : "");
}

static bool same_address(const struct config_listener *a, const struct config_listener *b) {
  return a->address && str_equal(a->address, b->address) &&
         (a->address[0] == '/' || (a->port == b->port && a->port != 0));
}

static void check_listener(const struct config *config, size_t index, struct config_problems *problems) {
  const struct config_listener *listener = &config->listeners[index];
  struct element element = {"listeners", index, listener->line, listener->column};
  if (!listener->name)
    return;
  for (size_t i = 0; i < index; i++) {
    if (str_equal(config->listeners[i].name, listener->name))
      report(config, problems, &element, "name", "this name is taken:", listener->name);
    if (same_address(&config->listeners[i], listener))
      report(config, problems, &element, "port", "the same address and port as listener", config->listeners[i].name);
  }
}

static void check_paths(const struct config *config, struct config_problems *problems, const struct element *element,
                        const char *member, const struct config_list *paths) {
  for (size_t i = 0; i < paths->count; i++)
    if (paths->items[i][0] != '/' || strstr(paths->items[i], "/../") || str_equal(paths->items[i], "/"))
      report(config, problems, element, member, "must be an absolute path below /, without ..:", paths->items[i]);
}

static void check_sandbox(const struct config *config, const struct config_module *module,
                          struct config_problems *problems, const struct element *element) {
  uint64_t port;
  check_paths(config, problems, element, "sandbox.read", &module->sandbox_read);
  check_paths(config, problems, element, "sandbox.write", &module->sandbox_write);
  for (size_t i = 0; i < module->sandbox_calls.count; i++)
    if (config_call_number(module->sandbox_calls.items[i]) < 0)
      report(config, problems, element, "sandbox.calls", "no such system call here:", module->sandbox_calls.items[i]);
  for (size_t i = 0; i < module->sandbox_connect.count; i++) {
    const char *text = module->sandbox_connect.items[i];
    bool word = str_equal(text, "any") || str_equal(text, "none");
    if (word && module->sandbox_connect.count > 1)
      report(config, problems, element, "sandbox.connect", "stands alone:", text);
    else if (!word && (!str_parse_u64(text, &port) || port < 1 || port > 65535))
      report(config, problems, element, "sandbox.connect", "not a TCP port, any or none:", text);
  }
}

struct config_module config_core_confinement(const struct config *config) {
  static char id[] = "core";
  return (struct config_module){
      .id = id,
      .user = config->core_user,
      .group = config->core_group,
      .rlimit_open_files = config->core_rlimit_open_files,
      .rlimit_processes = config->core_rlimit_processes,
      .rlimit_address_space_bytes = config->core_rlimit_address_space_bytes,
      .rlimit_file_size_bytes = config->core_rlimit_file_size_bytes,
      .rlimit_core_bytes = config->core_rlimit_core_bytes,
      .sandbox_no_new_privileges = config->core_sandbox_no_new_privileges,
      .sandbox_drop_capabilities = config->core_sandbox_drop_capabilities,
      .sandbox_profile = CONFIG_SANDBOX_AUTO,
      .sandbox_seccomp = config->core_sandbox_seccomp,
      .sandbox_calls = config->core_sandbox_calls,
      .sandbox_landlock = config->core_sandbox_landlock,
      .sandbox_read = config->core_sandbox_read,
      .sandbox_write = config->core_sandbox_write,
      .sandbox_connect = config->core_sandbox_connect,
  };
}

static const struct {
  const char *name, *severity;
  bool usual;
} conditions[] = {
#define ALERT(name, text, severity, usual) {(text), (severity), (usual)},
#include "sdk/config/alert_conditions.def"
#undef ALERT
};

const char *config_alert_name(enum config_alert condition) {
  return conditions[condition].name;
}

const char *config_alert_severity(enum config_alert condition) {
  return conditions[condition].severity;
}

bool config_alert_is_wanted(const struct config *config, enum config_alert condition) {
  const struct config_list *names = &config->alerts_conditions;
  for (size_t i = 0; i < names->count; i++)
    if (str_equal(names->items[i], conditions[condition].name))
      return true;
  return names->count == 0 && conditions[condition].usual;
}

struct config_module config_alerts_confinement(const struct config *config) {
  static char id[] = "alerts@hook", any[] = "any", *items[] = {any};
  return (struct config_module){
      .id = id,
      .user = config->alerts_user,
      .group = config->alerts_group,
      .rlimit_open_files = 1024,
      .rlimit_processes = 256,
      .rlimit_address_space_bytes = (int64_t)4 << 30,
      .rlimit_file_size_bytes = (int64_t)64 << 20,
      .cgroup_processes = 256,
      .sandbox_no_new_privileges = true,
      .sandbox_drop_capabilities = true,
      .sandbox_profile = CONFIG_SANDBOX_SCRIPT,
      .sandbox_seccomp = true,
      .sandbox_landlock = true,
      .sandbox_mount_view = config->alerts_sandbox_mount_view,
      .sandbox_read = config->alerts_sandbox_read,
      .sandbox_write = config->alerts_sandbox_write,
      .sandbox_connect = config->alerts_sandbox_connect.count > 0 ? config->alerts_sandbox_connect
                                                                  : (struct config_list){.items = items, .count = 1},
  };
}

static void check_alerts(const struct config *config, struct config_problems *problems) {
  const struct config_module confinement = config_alerts_confinement(config);
  const struct element element = {"alerts", NO_INDEX, 0, 0};
  check_sandbox(config, &confinement, problems, &element);
  for (size_t i = 0; i < config->alerts_conditions.count; i++) {
    const char *name = config->alerts_conditions.items[i];
    size_t known = 0;
    while (known < CONFIG_ALERT_COUNT && !str_equal(conditions[known].name, name))
      known++;
    if (known == CONFIG_ALERT_COUNT)
      report(config, problems, &element, "conditions", "no such condition:", name);
  }
}

static void check_core(const struct config *config, struct config_problems *problems) {
  const struct config_module confinement = config_core_confinement(config);
  const struct element element = {"core", NO_INDEX, 0, 0};
  check_sandbox(config, &confinement, problems, &element);
}

static void check_module(const struct config *config, size_t index, struct config_problems *problems) {
  const struct config_module *module = &config->modules[index];
  struct element element = {"modules", index, module->line, module->column};
  if (!module->id)
    return;
  if (str_equal(module->id, "core") || str_equal(module->id, "supervisor"))
    report(config, problems, &element, "id", "this id is reserved:", module->id);
  for (size_t i = 0; i < index; i++)
    if (str_equal(config->modules[i].id, module->id))
      report(config, problems, &element, "id", "this id is taken:", module->id);
  for (size_t i = 0; i < module->listeners.count; i++) {
    if (!config_listener_find(config, module->listeners.items[i]))
      report(config, problems, &element, "listeners", "no such listener:", module->listeners.items[i]);
    for (size_t j = 0; j < i; j++)
      if (str_equal(module->listeners.items[j], module->listeners.items[i]))
        report(config, problems, &element, "listeners", "named twice:", module->listeners.items[i]);
  }
  for (size_t i = 0; i < module->env.count; i++)
    if (str_starts_with(module->env.items[i].key, "GATEHOUSE_") ||
        str_starts_with(module->env.items[i].key, "LISTEN_") || str_equal(module->env.items[i].key, "NOTIFY_SOCKET"))
      report(config, problems, &element, "env", "this variable belongs to the supervisor:", module->env.items[i].key);
  check_sandbox(config, module, problems, &element);
  /* With the last byte of the name that it has until it listens. */
  size_t path_bytes = strlen(config->run_dir) + strlen("/modules//runtime.sock~") + strlen(module->id);
  if (path_bytes > SOCKET_PATH_BYTES_MAX)
    report(config, problems, &element, "id", "run_dir and id together make socket paths too long for", module->id);
}

void config_cross_check(const struct config *config, struct config_problems *problems) {
  struct config_where where = {.source = *config->path ? config->path : "built-in", .key = "spi.backoff_max_ms"};
  for (size_t i = 0; i < config->listeners_count; i++)
    check_listener(config, i, problems);
  check_core(config, problems);
  check_alerts(config, problems);
  for (size_t i = 0; i < config->modules_count; i++)
    check_module(config, i, problems);
  if (config->spi_backoff_max_ms < config->spi_backoff_min_ms)
    config_problem_add(problems, ERR_CONFIG_VALUE, &where, "must not be below spi.backoff_min_ms");
}
