/* configure.c: where a module's configuration comes from: gatehouse.yaml, or an operator's `module configure`, and what
 * follows when either says something new (SPI-15, LIF-9). A new configuration goes the road of a new program
 * (upgrade.c): a candidate takes it, or refuses it with its own words, and serves beside the old one first. No process
 * is ever given a second configuration in its life.
 *
 * What was decided last counts: a configuration that was promoted by hand stays the module's, and one that
 * gatehouse.yaml says and that did not hold stays away, until gatehouse.yaml says something else. */
#include <stdio.h>
#include <string.h>

#include "core/catalog/catalog.h"
#include "core/lifecycle/lifecycle_internal.h"
#include "core/secrets/secrets.h"
#include "sdk/base/json.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

#define DEPTH_MAX 64
#define WHO_FILE "the configuration"

/* ---- what gatehouse.yaml says ---- */

void lifecycle_configure_fill(struct lifecycle_versions *versions) {
  struct lifecycle_module *const processes[] = {versions->first, versions->second};
  uint64_t file = lifecycle_config_of_file(versions);
  if (!versions->file_config) {
    versions->file_config = file;
    if (!versions->current.program[0])
      str_copy(versions->configured, sizeof(versions->configured),
               versions->first->config.binary ? versions->first->config.binary : "");
  }
  if (!lifecycle_config_find(versions, versions->current.config)) {
    if (versions->current.config)
      log_event(LOG_ERROR, "lifecycle", "a module's configuration is lost; what gatehouse.yaml says counts",
                LOG_TEXT("module", versions->first->name), LOG_INT("config", versions->current.config));
    versions->current.config = file;
  }
  for (size_t i = 0; i < sizeof(processes) / sizeof(processes[0]); i++)
    if (processes[i] && !lifecycle_config_find(versions, processes[i]->edition.config))
      processes[i]->edition.config = versions->current.config;
}

void lifecycle_configure_adopt(struct lifecycle_versions *versions) {
  struct lifecycle_module *const processes[] = {versions->first, versions->second};
  const char *binary = versions->first->config.binary ? versions->first->config.binary : "";
  const uint64_t known[] = {versions->file_config, versions->current.config};
  lifecycle_configure_fill(versions);
  uint64_t file = lifecycle_config_of_file(versions);
  struct lifecycle_edition next = versions->current;
  bool program = next.program[0] && !str_equal(versions->configured, binary);
  bool config = file != versions->file_config && file != next.config;
  if (program)
    next.program[0] = next.version[0] = '\0';
  if (config)
    next.config = file;
  bool changed = program || config || known[0] != file || known[1] != versions->current.config;
  versions->file_config = file;
  if (program || config) {
    str_copy(versions->who, sizeof(versions->who), WHO_FILE);
    lifecycle_versions_note(
        versions, &versions->current, &next, "promoted",
        program ? "the configuration names another program now" : "gatehouse.yaml says something else now", 0);
    lifecycle_versions_remember(versions, &next, !program);
  }
  for (size_t i = 0; i < sizeof(processes) / sizeof(processes[0]); i++)
    if (processes[i])
      processes[i]->edition.config = versions->current.config;
  if (changed && versions->first->configured)
    lifecycle_versions_write(versions);
}

/* It does not serve: there is nothing to be careful with. What runs of it ends and comes back with the new one. */
static void put_in(struct lifecycle_versions *versions, const struct lifecycle_edition *next) {
  struct lifecycle_module *current = lifecycle_module_current(versions);
  uint64_t generation;
  str_copy(versions->who, sizeof(versions->who), WHO_FILE);
  lifecycle_versions_note(versions, &versions->current, next, "promoted",
                          "gatehouse.yaml says something else now, and the module did not serve", 0);
  lifecycle_versions_remember(versions, next, true);
  current->edition.config = next->config;
  lifecycle_versions_write(versions);
  if (current->pid || lifecycle_module_is_alive(current))
    lifecycle_order(current->lifecycle, LIFECYCLE_ORDER_RESTART, current->name, 0, &generation, NULL);
}

void lifecycle_configure_changed(struct lifecycle_versions *versions) {
  struct lifecycle *lifecycle = versions->first->lifecycle;
  struct error err = {0};
  if (versions->phase != LIFECYCLE_UPGRADE_NONE) {
    versions->file_waits = true;
    return;
  }
  lifecycle_configure_fill(versions);
  uint64_t file = lifecycle_config_of_file(versions);
  if (file == versions->file_config)
    return;
  struct lifecycle_edition next = versions->current;
  next.config = file;
  versions->file_config = file;
  if (file == versions->current.config) {
    lifecycle_versions_write(versions);
    return;
  }
  struct lifecycle_module *current = lifecycle_upgrade_changeable(lifecycle, versions->first->name, &err);
  if (!current || !lifecycle_upgrade_begin(current, &next, "", 0, WHO_FILE, &err))
    put_in(versions, &next);
  else
    lifecycle_versions_write(versions);
}

void lifecycle_reconfigure(struct lifecycle *lifecycle, const struct lifecycle_module_config *modules, size_t count) {
  struct lifecycle_module *module;
  STAILQ_FOREACH(module, &lifecycle->modules, entry)
  for (size_t i = 0; i < count; i++)
    if (str_equal(modules[i].module_id, module->name)) {
      module->config.config_json = modules[i].config_json;
      module->config.config_length = modules[i].config_length;
    }
  STAILQ_FOREACH(module, &lifecycle->modules, entry)
  if (module->versions->first == module && module->configured)
    lifecycle_configure_changed(module->versions);
}

/* ---- what a module takes ---- */

bool lifecycle_config_check(const Core__Module__V1__ModuleDescriptor *descriptor, const char *json, size_t length,
                            struct error *err) {
  const ProtobufCBinaryData *schema = &descriptor->config_schema_json;
  struct json_cursor cursor;
  struct error why = {0};
  if (length > SECRETS_VALUE_MAX_BYTES)
    return error_set(err, ERR_MODULE_CONFIG, "the configuration is larger than %d bytes", SECRETS_VALUE_MAX_BYTES);
  if (!json_check(json, length, DEPTH_MAX, NULL) || !json_walk(json, length, '{', &cursor))
    return error_set(err, ERR_MODULE_CONFIG, "the configuration is not one JSON object");
  return schema->len == 0 || catalog_json_check((const char *)schema->data, schema->len, json, length, &why) ||
         error_is(&why, ERR_CATALOG_INVALID) || /* a schema that says nothing */
         error_set(err, ERR_MODULE_CONFIG, "the module's schema refuses it: %.200s", why.message);
}

/* ---- what operators say ---- */

bool lifecycle_configure(struct lifecycle *lifecycle, const char *module_id, const char *json, size_t length,
                         uint32_t probation_ms, const char *who, uint64_t *generation, uint64_t *revision,
                         struct error *err) {
  struct lifecycle_module *current = lifecycle_upgrade_changeable(lifecycle, module_id, err);
  *generation = *revision = 0;
  if (!current)
    return false;
  struct lifecycle_versions *versions = current->versions;
  if (!current->configured)
    return error_set(err, ERR_UNSUPPORTED, "gatehouse.yaml does not name this module");
  /* Against the schema of the module that runs; the candidate's own is looked at when it describes itself. */
  if (length > 0 && !lifecycle_config_check(current->instance->descriptor, json, length, err))
    return false;
  struct lifecycle_edition next = versions->current;
  next.config = length > 0 ? lifecycle_config_keep(versions, json, length) : lifecycle_config_of_file(versions);
  if (next.config == versions->current.config)
    return error_set(err, ERR_MODULE_CONFIG, "that is its configuration (%llu)", (unsigned long long)next.config);
  *generation = current->process_generation;
  *revision = next.config;
  return lifecycle_upgrade_begin(current, &next, "", probation_ms, who, err);
}
