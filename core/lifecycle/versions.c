/* versions.c: the editions of a module and the history of their changes (LIF-10): a row of the store for each module,
 * so that a promoted program or configuration is still the module's after the gateway was stopped. What is in
 * configurations is not here (configs.c). */
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

/* Borrows everything. */
static void fill(const struct lifecycle_versions *versions, Core__Admin__V1__ModuleVersions *message) {
  core__admin__v1__module_versions__init(message);
  message->program = (char *)(uintptr_t)versions->current.program;
  message->version = (char *)(uintptr_t)versions->current.version;
  message->config = versions->current.config;
  message->previous = (char *)(uintptr_t)versions->previous.program;
  message->previous_version = (char *)(uintptr_t)versions->previous.version;
  message->previous_config = versions->previous.config;
  message->file_config = versions->file_config;
  message->has_previous = versions->has_previous;
  message->configured = (char *)(uintptr_t)versions->configured;
  message->phase = (char *)(uintptr_t)lifecycle_upgrade_phase_name(
      versions->decisions_writing > 0 ? LIFECYCLE_UPGRADE_PROBATION : versions->phase);
  message->n_changes = versions->change_count;
  message->changes = (Core__Admin__V1__ModuleVersionChange **)(uintptr_t)versions->changes;
  message->core_upgrade = versions->core_upgrade;
}

/* known: NULL for none. */
static uint8_t *pack(const struct lifecycle_versions *versions, const struct lifecycle_known *known, size_t *length) {
  Core__Admin__V1__ModuleVersions message;
  Core__Admin__V1__KnownVersion items[LIFECYCLE_KNOWN_MAX], *pointers[LIFECYCLE_KNOWN_MAX];
  fill(versions, &message);
  for (size_t i = 0; known && i < known->count; i++) {
    core__admin__v1__known_version__init(&items[i]);
    items[i].version = (char *)(uintptr_t)known->items[i].version;
    items[i].program = (char *)(uintptr_t)known->items[i].program;
    pointers[i] = &items[i];
  }
  message.known = pointers;
  message.n_known = known ? known->count : 0;
  *length = core__admin__v1__module_versions__get_packed_size(&message);
  uint8_t *bytes = base_alloc(*length + 1);
  core__admin__v1__module_versions__pack(&message, bytes);
  return bytes;
}

Core__Admin__V1__ModuleVersions *lifecycle_versions_message(const struct lifecycle_versions *versions) {
  size_t length;
  struct lifecycle_known *known = BASE_NEW(struct lifecycle_known);
  lifecycle_versions_known(versions, known);
  uint8_t *bytes = pack(versions, known, &length);
  base_free(known);
  Core__Admin__V1__ModuleVersions *copy = core__admin__v1__module_versions__unpack(NULL, length, bytes);
  base_free(bytes);
  return copy;
}

void lifecycle_versions_commit(struct lifecycle_versions *versions, store_done *done, void *arg) {
  struct store *store = versions->lifecycle->options.store;
  char key[64];
  size_t length;
  struct store_batch *batch = store_batch_create();
  lifecycle_configs_prune(versions, batch);
  uint8_t *bytes = pack(versions, NULL, &length);
  snprintf(key, sizeof(key), KEY_PREFIX "%s", versions->name);
  store_batch_put(batch, NAMESPACE, key, bytes, length, STORE_REVISION_ANY);
  store_commit(store, &batch, done, arg);
  base_free(bytes);
}

void lifecycle_versions_write(struct lifecycle_versions *versions) {
  if (versions->lifecycle->options.store)
    lifecycle_versions_commit(versions, NULL, NULL);
}

void lifecycle_versions_remember(struct lifecycle_versions *versions, const struct lifecycle_edition *edition,
                                 bool forward) {
  const char *configured = versions->first->config.binary;
  const struct lifecycle_edition next = *edition; /* it may be the one before */
  versions->has_previous = forward;
  versions->previous = forward ? versions->current : (struct lifecycle_edition){0};
  versions->current = next;
  str_copy(versions->configured, sizeof(versions->configured), configured ? configured : "");
}

void lifecycle_versions_heard(struct lifecycle_module *module, const char *version) {
  str_copy(module->edition.version, sizeof(module->edition.version), version);
  if (module->role == LIFECYCLE_CURRENT)
    str_copy(module->versions->current.version, sizeof(module->versions->current.version), version);
}

/* NULL: not configured. */
static const char *configured_binary(const struct lifecycle_versions *versions) {
  return versions->first ? versions->first->config.binary : versions->lifecycle->options.core_binary;
}

/* The program as configured is one that can be named as long as the configuration names the same. */
static void known_add(const struct lifecycle_versions *versions, const char *program, const char *version,
                      struct lifecycle_known *known) {
  const char *binary = configured_binary(versions) ? configured_binary(versions) : "";
  if (program[0])
    lifecycle_known_add(known, version, program, program);
  else if (str_equal(versions->configured, binary))
    lifecycle_known_add(known, version, "", versions->configured_file[0] ? versions->configured_file : NULL);
}

void lifecycle_versions_known(const struct lifecycle_versions *versions, struct lifecycle_known *known) {
  const char *binary = configured_binary(versions), *directory = versions->lifecycle->options.versions_dir;
  const char *slash = binary ? strrchr(binary, '/') : NULL;
  known->count = 0;
  known_add(versions, versions->current.program, versions->current.version, known);
  known_add(versions, versions->previous.program, versions->previous.version, known);
  for (size_t i = 0; i < versions->change_count; i++) {
    known_add(versions, versions->changes[i]->to, versions->changes[i]->to_version, known);
    known_add(versions, versions->changes[i]->from, versions->changes[i]->from_version, known);
  }
  if (binary && directory)
    lifecycle_known_scan(known, directory, slash ? slash + 1 : binary);
  lifecycle_known_sort(known);
}

bool lifecycle_versions_find(const struct lifecycle_versions *versions, const char *version,
                             char program[static LIFECYCLE_PROGRAM_BYTES], struct error *err) {
  struct lifecycle_known *known = BASE_NEW(struct lifecycle_known);
  lifecycle_versions_known(versions, known);
  const struct lifecycle_known_program *found = lifecycle_known_find(known, version, err);
  if (found)
    str_copy(program, LIFECYCLE_PROGRAM_BYTES, found->program);
  base_free(known);
  return found != NULL;
}

static void history_add(struct lifecycle_versions *versions, const struct lifecycle_edition *from,
                        const struct lifecycle_edition *to, const char *verdict, const char *cause,
                        uint64_t generation) {
  Core__Admin__V1__ModuleVersionChange *change = malloc(sizeof(*change));
  if (!change)
    abort();
  core__admin__v1__module_version_change__init(change);
  change->at_ms = clock_wall_ms();
  change->from = text(from->program);
  change->from_version = text(from->version);
  change->from_config = from->config;
  change->to = text(to->program);
  change->to_version = text(to->version);
  change->to_config = to->config;
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
            LOG_TEXT("module", versions->name), LOG_TEXT("verdict", verdict), LOG_TEXT("from", from->program),
            LOG_TEXT("to", to->program), LOG_INT("from_config", from->config), LOG_INT("to_config", to->config),
            LOG_TEXT("cause", cause), LOG_INT("generation", generation));
}

void lifecycle_versions_note(struct lifecycle_versions *versions, const struct lifecycle_edition *from,
                             const struct lifecycle_edition *to, const char *verdict, const char *cause,
                             uint64_t generation) {
  history_add(versions, from, to, verdict, cause, generation);
  lifecycle_versions_write(versions);
}

/* The module that a commit decides about; it may be gone by then. */
struct decision {
  struct lifecycle *lifecycle;
  char module_id[LIFECYCLE_MODULE_ID_BYTES];
};

static void decision_written(void *arg, const struct store_commit_result *result, const struct error *err) {
  struct decision *decision = arg;
  struct lifecycle *lifecycle = decision->lifecycle;
  struct lifecycle_module *module = lifecycle->stopping ? NULL : lifecycle_module_find(lifecycle, decision->module_id);
  (void)result;
  if (err)
    log_error_value(LOG_ERROR, "lifecycle", "what was decided of an upgrade was not stored", err);
  if (module && module->versions->decisions_writing > 0)
    module->versions->decisions_writing--;
  base_free(decision);
}

void lifecycle_versions_decide(struct lifecycle_versions *versions, const struct lifecycle_edition *from,
                               const struct lifecycle_edition *to, const char *verdict, const char *cause,
                               uint64_t generation) {
  history_add(versions, from, to, verdict, cause, generation);
  if (!versions->lifecycle->options.store)
    return;
  struct decision *decision = BASE_NEW(struct decision);
  decision->lifecycle = versions->lifecycle;
  str_copy(decision->module_id, sizeof(decision->module_id), versions->name);
  versions->decisions_writing++;
  lifecycle_versions_commit(versions, decision_written, decision);
}

static struct lifecycle_edition edition_of(const char *program, const char *version, uint64_t config) {
  struct lifecycle_edition edition = {.config = config};
  str_copy(edition.program, sizeof(edition.program), program);
  str_copy(edition.version, sizeof(edition.version), version);
  return edition;
}

/* A revision is one text for ever, also when its row is gone. */
static void revision_taken(struct lifecycle_versions *versions, uint64_t revision) {
  if (revision > versions->config_last)
    versions->config_last = revision;
}

static bool row_restore(void *arg, const struct store_row *row) {
  struct lifecycle *lifecycle = arg;
  const char *name = row->key + strlen(KEY_PREFIX);
  bool of_core = str_equal(name, lifecycle->core.versions->name);
  struct lifecycle_module *module = of_core ? NULL : lifecycle_module_ensure(lifecycle, name);
  struct lifecycle_versions *versions = of_core ? lifecycle->core.versions : module ? module->versions : NULL;
  Core__Admin__V1__ModuleVersions *message = core__admin__v1__module_versions__unpack(NULL, row->length, row->value);
  if (versions && message) {
    versions->current = edition_of(message->program, message->version, message->config);
    versions->previous = edition_of(message->previous, message->previous_version, message->previous_config);
    versions->file_config = message->file_config;
    if (module)
      module->edition.config = message->config;
    str_copy(versions->configured, sizeof(versions->configured), message->configured);
    versions->has_previous = message->has_previous;
    versions->core_upgrade = of_core ? BASE_TAKE(message->core_upgrade) : NULL;
    while (versions->change_count < message->n_changes && versions->change_count < LIFECYCLE_CHANGES_MAX) {
      versions->changes[versions->change_count] = message->changes[versions->change_count];
      revision_taken(versions, message->changes[versions->change_count]->from_config);
      revision_taken(versions, message->changes[versions->change_count]->to_config);
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
  lifecycle_configs_free(versions);
  core_rpc_timer_cancel(&versions->quarantine.timer);
  for (size_t i = 0; i < versions->change_count; i++)
    core__admin__v1__module_version_change__free_unpacked(versions->changes[i], NULL);
  if (versions->core_upgrade)
    core__admin__v1__core_upgrade__free_unpacked(versions->core_upgrade, NULL);
  base_free(versions);
}
