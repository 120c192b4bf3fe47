/* versions.c: the programs of a module and the history of their changes (LIF-10): a row of the store for each module
 * that was ever upgraded, so that a promoted program is still the module's after the gateway was stopped. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/lifecycle/lifecycle_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/clock.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

#define NAMESPACE "lifecycle"
#define KEY_PREFIX "versions/"

/* protobuf-c frees members with free(): make them with malloc. */
static char *text(const char *value) {
  char *copy = strdup(value ? value : "");
  if (!copy)
    abort();
  return copy;
}

const char *lifecycle_upgrade_phase_name(enum lifecycle_upgrade_phase phase) {
  static const char *const names[] = {[LIFECYCLE_UPGRADE_NONE] = "",
                                      [LIFECYCLE_UPGRADE_STARTING] = "starting",
                                      [LIFECYCLE_UPGRADE_PROBATION] = "probation",
                                      [LIFECYCLE_UPGRADE_ROLLING_BACK] = "rolling back",
                                      [LIFECYCLE_UPGRADE_RETIRING] = "retiring"};
  return names[phase];
}

/* Borrows everything but the array of changes. */
static void fill(const struct lifecycle_versions *versions, Core__Admin__V1__ModuleVersions *message) {
  core__admin__v1__module_versions__init(message);
  message->program = (char *)(uintptr_t)versions->program;
  message->previous = (char *)(uintptr_t)versions->previous;
  message->has_previous = versions->has_previous;
  message->configured = (char *)(uintptr_t)versions->configured;
  message->phase = (char *)(uintptr_t)lifecycle_upgrade_phase_name(versions->phase);
  message->n_changes = versions->change_count;
  message->changes = (Core__Admin__V1__ModuleVersionChange **)(uintptr_t)versions->changes;
}

static uint8_t *pack(const struct lifecycle_versions *versions, size_t *length) {
  Core__Admin__V1__ModuleVersions message;
  fill(versions, &message);
  *length = core__admin__v1__module_versions__get_packed_size(&message);
  uint8_t *bytes = base_alloc(*length + 1);
  core__admin__v1__module_versions__pack(&message, bytes);
  return bytes;
}

Core__Admin__V1__ModuleVersions *lifecycle_versions_message(const struct lifecycle_versions *versions) {
  size_t length;
  uint8_t *bytes = pack(versions, &length);
  Core__Admin__V1__ModuleVersions *copy = core__admin__v1__module_versions__unpack(NULL, length, bytes);
  base_free(bytes);
  return copy;
}

void lifecycle_versions_write(const struct lifecycle_versions *versions) {
  struct store *store = versions->first->lifecycle->options.store;
  char key[64];
  size_t length;
  if (!store)
    return;
  struct store_batch *batch = store_batch_create();
  uint8_t *bytes = pack(versions, &length);
  snprintf(key, sizeof(key), KEY_PREFIX "%s", versions->first->name);
  store_batch_put(batch, NAMESPACE, key, bytes, length, STORE_REVISION_ANY);
  store_commit(store, &batch, NULL, NULL);
  base_free(bytes);
}

void lifecycle_versions_note(struct lifecycle_versions *versions, const char *from, const char *to, const char *verdict,
                             const char *cause, uint64_t generation) {
  Core__Admin__V1__ModuleVersionChange *change = malloc(sizeof(*change));
  if (!change)
    abort();
  core__admin__v1__module_version_change__init(change);
  change->at_ms = clock_wall_ms();
  change->from = text(from);
  change->to = text(to);
  change->verdict = text(verdict);
  change->cause = text(cause);
  change->who = text(versions->who);
  change->generation = generation;
  if (versions->change_count == LIFECYCLE_CHANGES_MAX)
    core__admin__v1__module_version_change__free_unpacked(versions->changes[--versions->change_count], NULL);
  memmove(versions->changes + 1, versions->changes, versions->change_count * sizeof(versions->changes[0]));
  versions->changes[0] = change;
  versions->change_count++;
  log_event(str_equal(verdict, "promoted") ? LOG_INFO : LOG_WARN, "lifecycle", "an upgrade was decided",
            LOG_TEXT("module", versions->first->name), LOG_TEXT("verdict", verdict), LOG_TEXT("from", from),
            LOG_TEXT("to", to), LOG_TEXT("cause", cause), LOG_INT("generation", generation));
  lifecycle_versions_write(versions);
}

static bool row_restore(void *arg, const struct store_row *row) {
  struct lifecycle *lifecycle = arg;
  struct lifecycle_module *module = lifecycle_module_ensure(lifecycle, row->key + strlen(KEY_PREFIX));
  Core__Admin__V1__ModuleVersions *message = core__admin__v1__module_versions__unpack(NULL, row->length, row->value);
  if (module && message) {
    struct lifecycle_versions *versions = module->versions;
    str_copy(versions->program, sizeof(versions->program), message->program);
    str_copy(versions->previous, sizeof(versions->previous), message->previous);
    str_copy(versions->configured, sizeof(versions->configured), message->configured);
    versions->has_previous = message->has_previous;
    while (versions->change_count < message->n_changes && versions->change_count < LIFECYCLE_CHANGES_MAX) {
      versions->changes[versions->change_count] = message->changes[versions->change_count];
      message->changes[versions->change_count++] = NULL; /* it is ours now */
    }
  } else {
    log_event(LOG_ERROR, "lifecycle", "what was remembered of a module's programs cannot be read",
              LOG_TEXT("key", row->key));
  }
  if (message)
    core__admin__v1__module_versions__free_unpacked(message, NULL);
  return true;
}

bool lifecycle_versions_restore(struct lifecycle *lifecycle, struct error *err) {
  return !lifecycle->options.store ||
         store_scan(lifecycle->options.store, NAMESPACE, KEY_PREFIX, row_restore, lifecycle, err);
}

void lifecycle_versions_free(struct lifecycle_versions **holder) {
  struct lifecycle_versions *versions = BASE_TAKE(*holder);
  lifecycle_upgrade_stop(versions);
  for (size_t i = 0; i < versions->change_count; i++)
    core__admin__v1__module_version_change__free_unpacked(versions->changes[i], NULL);
  base_free(versions);
}
