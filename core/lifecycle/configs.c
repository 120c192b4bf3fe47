/* configs.c: the configurations that a module has, had before, or is to have, by revision. A row of the store for each,
 * sealed (SPI-14), since there may be credentials in it; the history names revisions only. A revision is one text for
 * ever, so that a process which was given it can be told it again by the next core. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/lifecycle/lifecycle_internal.h"
#include "core/secrets/secrets.h"
#include "sdk/base/alloc.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

#define NAMESPACE "lifecycle"
#define KEY_PREFIX "configs/"
#define NAME_BYTES 96
#define NO_CONFIG "{}"

/* The key of its row, and under which owner and name it is sealed. */
static void row_name(const struct lifecycle_versions *versions, uint64_t revision, char key[static NAME_BYTES],
                     char name[static NAME_BYTES]) {
  snprintf(key, NAME_BYTES, KEY_PREFIX "%s/%llu", versions->first->name, (unsigned long long)revision);
  snprintf(name, NAME_BYTES, "config/%llu", (unsigned long long)revision);
}

const struct lifecycle_config *lifecycle_config_find(const struct lifecycle_versions *versions, uint64_t revision) {
  const struct lifecycle_config *config;
  STAILQ_FOREACH(config, &versions->configs, entry)
  if (config->revision == revision)
    return config;
  return NULL;
}

static struct lifecycle_config *config_add(struct lifecycle_versions *versions, uint64_t revision, const void *json,
                                           size_t length) {
  struct lifecycle_config *config = BASE_NEW(struct lifecycle_config);
  config->revision = revision;
  config->json = base_strndup(json, length);
  config->length = length;
  STAILQ_INSERT_TAIL(&versions->configs, config, entry);
  if (revision > versions->config_last)
    versions->config_last = revision;
  return config;
}

static void config_free(struct lifecycle_config *config) {
  secret_wipe(config->json, config->length);
  base_free(config->json);
  base_free(config);
}

/* ---- writing ---- */

/* The configuration that a commit is about; it may be gone by then. */
struct writing {
  struct lifecycle *lifecycle;
  char module_id[LIFECYCLE_MODULE_ID_BYTES];
  uint64_t revision;
};

static void written(void *arg, const struct store_commit_result *result, const struct error *err) {
  struct writing *writing = arg;
  (void)result;
  struct lifecycle_module *module =
      writing->lifecycle->stopping ? NULL : lifecycle_module_find(writing->lifecycle, writing->module_id);
  struct lifecycle_config *config;
  if (err)
    log_error_value(LOG_ERROR, "lifecycle", "a module's configuration was not stored", err);
  if (module)
    STAILQ_FOREACH(config, &module->versions->configs, entry)
  if (config->revision == writing->revision)
    config->stored = err ? LIFECYCLE_CONFIG_LOST : LIFECYCLE_CONFIG_WRITTEN;
  base_free(writing);
}

static void row_write(struct lifecycle_versions *versions, struct lifecycle_config *config) {
  struct lifecycle *lifecycle = versions->first->lifecycle;
  char key[NAME_BYTES], name[NAME_BYTES];
  struct buf sealed = {0};
  struct error err = {0};
  if (!lifecycle->options.store || !lifecycle->options.secrets) {
    config->stored = LIFECYCLE_CONFIG_WRITTEN; /* nothing is remembered here */
    return;
  }
  row_name(versions, config->revision, key, name);
  if (!secrets_seal(lifecycle->options.secrets, versions->first->name, name, config->json, config->length, &sealed,
                    &err)) {
    log_error_value(LOG_ERROR, "lifecycle", "a module's configuration cannot be sealed", &err);
    config->stored = LIFECYCLE_CONFIG_LOST;
    return;
  }
  struct writing *writing = BASE_NEW(struct writing);
  *writing = (struct writing){.lifecycle = lifecycle, .revision = config->revision};
  str_copy(writing->module_id, sizeof(writing->module_id), versions->first->name);
  struct store_batch *batch = store_batch_create();
  store_batch_put(batch, NAMESPACE, key, sealed.data, sealed.length, STORE_REVISION_ANY);
  store_commit(lifecycle->options.store, &batch, written, writing);
  buf_free(&sealed);
}

uint64_t lifecycle_config_keep(struct lifecycle_versions *versions, const char *json, size_t length) {
  struct lifecycle_config *config;
  STAILQ_FOREACH(config, &versions->configs, entry)
  if (config->length == length && memcmp(config->json, json, length) == 0 && config->stored != LIFECYCLE_CONFIG_LOST)
    return config->revision;
  config = config_add(versions, versions->config_last + 1, json, length);
  row_write(versions, config);
  return config->revision;
}

static bool is_needed(const struct lifecycle_versions *versions, uint64_t revision) {
  return revision == versions->current.config || revision == versions->file_config ||
         (versions->has_previous && revision == versions->previous.config) ||
         revision == versions->first->edition.config ||
         (versions->second && revision == versions->second->edition.config);
}

void lifecycle_configs_prune(struct lifecycle_versions *versions, struct store_batch *batch) {
  struct lifecycle_config *config, *next;
  char key[NAME_BYTES], name[NAME_BYTES];
  for (config = STAILQ_FIRST(&versions->configs); config; config = next) {
    next = STAILQ_NEXT(config, entry);
    if (is_needed(versions, config->revision) || config->stored == LIFECYCLE_CONFIG_WRITING)
      continue;
    row_name(versions, config->revision, key, name);
    store_batch_delete(batch, NAMESPACE, key, STORE_REVISION_ANY);
    STAILQ_REMOVE(&versions->configs, config, lifecycle_config, entry);
    config_free(config);
  }
}

/* ---- what a process is given ---- */

uint64_t lifecycle_config_of_file(struct lifecycle_versions *versions) {
  const struct lifecycle_module *module = versions->first;
  return module->configured ? lifecycle_config_keep(versions, module->config.config_json, module->config.config_length)
                            : 0;
}

const char *lifecycle_config_text(const struct lifecycle_module *module, size_t *length) {
  const struct lifecycle_config *config = lifecycle_config_find(module->versions, module->edition.config);
  *length = config ? config->length : strlen(NO_CONFIG);
  return config ? config->json : NO_CONFIG;
}

/* ---- at the start and at the end ---- */

static bool row_restore(void *arg, const struct store_row *row) {
  struct lifecycle *lifecycle = arg;
  char module_id[LIFECYCLE_MODULE_ID_BYTES], key[NAME_BYTES], name[NAME_BYTES];
  uint64_t revision = 0;
  struct error err = {0};
  const char *begin = row->key + strlen(KEY_PREFIX), *slash = strchr(begin, '/');
  snprintf(module_id, sizeof(module_id), "%.*s", slash ? (int)(slash - begin) : 0, begin);
  struct lifecycle_module *module = lifecycle_module_find(lifecycle, module_id);
  if (!module || !slash || !str_parse_u64(slash + 1, &revision))
    return true; /* of a module that is not configured any more */
  row_name(module->versions, revision, key, name);
  struct secret *json = secrets_open(lifecycle->options.secrets, module->name, name, row->value, row->length, &err);
  if (json)
    config_add(module->versions, revision, secret_reveal(json), secret_length(json))->stored = LIFECYCLE_CONFIG_WRITTEN;
  else
    log_error_value(LOG_ERROR, "lifecycle", "a module's configuration in the store cannot be opened", &err);
  secret_free(&json);
  return true;
}

bool lifecycle_configs_restore(struct lifecycle *lifecycle, struct error *err) {
  return !lifecycle->options.store || !lifecycle->options.secrets ||
         store_scan(lifecycle->options.store, NAMESPACE, KEY_PREFIX, row_restore, lifecycle, err);
}

void lifecycle_configs_free(struct lifecycle_versions *versions) {
  while (!STAILQ_EMPTY(&versions->configs)) {
    struct lifecycle_config *config = STAILQ_FIRST(&versions->configs);
    STAILQ_REMOVE_HEAD(&versions->configs, entry);
    config_free(config);
  }
}
