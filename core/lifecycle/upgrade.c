/* upgrade.c: the road of a new edition of a module: another program, another configuration, or both (LIF-9, LIF-10).
 *
 *   starting      the supervisor stages the module's other process with the program and starts it; it goes through all
 *                 phases, with its configuration, up to ready while the current one serves. Refused, dead or late:
 *                 rolled back.
 *   probation     both accept on the same listeners, and calls of the core are divided between them. Every TICK_MS the
 *                 two are compared (verdict.h). Dead, degraded or worse: rolled back.
 *   retiring      it held: it is promoted and written down; the old one hands over (drains while it serves what comes
 * on open connections) and ends. rolling back  the candidate hands over in the same way, or is killed when it never
 * served; the current one has gone on as if nothing had been.
 *
 * An edition that was current before has proven itself: it takes over as soon as it is ready. When the current one is
 * given up (LIF-8) the other takes its place at once. Whatever dies in the middle: the supervisor's word of which
 * process is current counts, and a candidate whose core is gone is taken back. Under a new core too nobody who may have
 * clients is killed: whoever is on its way out hands over as soon as it can be talked to. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/lifecycle/lifecycle_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/clock.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

#define RUNTIME "/core.module.v1.ModuleRuntime/"
#define TICK_MS 100
#define STATS_TIMEOUT_MS 2000
#define STAGE_GRACE_MS 5000 /* beyond the start timeout, for the supervisor to begin */
#define END_TOLD_MS 5000    /* from the end of a candidate, for the supervisor to tell of it */
#define WHO_CORE "the core"
#define OLD 0
#define NEW 1

static void tick_later(struct lifecycle_versions *versions);

/* ---- helpers ---- */

static struct lifecycle *room(const struct lifecycle_versions *versions) {
  return versions->first->lifecycle;
}

static int64_t after_ms(uint64_t ms) {
  return clock_monotonic_us() + (int64_t)ms * 1000;
}

static const char *program_text(const char *program) {
  return program[0] ? program : "the configured program";
}

static void phase_end(struct lifecycle_versions *versions) {
  core_rpc_timer_cancel(&versions->timer);
  versions->phase = LIFECYCLE_UPGRADE_NONE;
  versions->candidate = NULL;
  versions->proven = versions->emergency = false;
  versions->stage_sequence = 0;
  if (versions->file_waits)
    tick_later(versions);
}

void lifecycle_upgrade_stop(struct lifecycle_versions *versions) {
  versions->file_waits = false;
  phase_end(versions);
}

/* ---- rolling back ---- */

/* The candidate goes. Its end, which is told later, ends the upgrade. */
static void roll_back(struct lifecycle_versions *versions, const char *cause) {
  struct lifecycle_module *candidate = versions->candidate;
  struct lifecycle_instance *instance = candidate->instance;
  /* From its deny path on it may have accepted connections. */
  bool served = lifecycle_module_is_alive(candidate) && instance->generation == candidate->process_generation &&
                (instance->state == LIFECYCLE_WARMING || instance->state == LIFECYCLE_READY ||
                 instance->state == LIFECYCLE_DEGRADED);
  versions->phase = LIFECYCLE_UPGRADE_ROLLING_BACK;
  lifecycle_versions_decide(versions, &versions->current, &candidate->edition, "rolled back", cause,
                            candidate->process_generation);
  lifecycle_alert(room(versions), LIFECYCLE_ALERT_ROLLED_BACK, candidate->name, candidate->process_generation, cause);
  if (instance && instance->generation == candidate->process_generation)
    lifecycle_instance_event(instance, LIFECYCLE_ON_ROLLBACK_ORDERED, cause);
  if (!candidate->pid) {
    if (instance)
      lifecycle_instance_event(instance, LIFECYCLE_ON_ROLLED_BACK, cause);
    candidate->role = LIFECYCLE_RETIRED;
    phase_end(versions);
    return;
  }
  if (served) {
    lifecycle_orders_leave(candidate, true);
    return;
  }
  candidate->ordered_generation = candidate->process_generation;
  lifecycle_control_kill(room(versions)->control, candidate->id, candidate->process_generation, false);
}

/* ---- promotion ---- */

static void take_over(struct lifecycle_versions *versions, struct lifecycle_module *candidate) {
  struct lifecycle_module *old = lifecycle_module_other(candidate);
  const char *const labels[] = {candidate->name, NULL};
  lifecycle_control_promote(room(versions)->control, candidate->id, NULL);
  candidate->role = LIFECYCLE_CURRENT;
  if (old)
    old->role = LIFECYCLE_RETIRED;
  observe_gauge_set(room(versions)->options.observe, OBSERVE_MODULE_STATE, labels,
                    candidate->instance && candidate->instance->state == LIFECYCLE_READY);
}

/* Not before its configuration is on disk: whoever comes after us must be able to go on with it. */
static void promote(struct lifecycle_versions *versions, const char *cause) {
  struct lifecycle_module *candidate = versions->candidate, *old = lifecycle_module_other(candidate);
  const struct lifecycle_edition before = versions->current;
  const struct lifecycle_config *config = lifecycle_config_find(versions, candidate->edition.config);
  if (config && config->stored == LIFECYCLE_CONFIG_WRITING)
    return; /* the next tick asks again */
  if (config && config->stored == LIFECYCLE_CONFIG_LOST) {
    roll_back(versions, "the store did not take its configuration");
    return;
  }
  lifecycle_versions_remember(versions, &candidate->edition, !versions->proven);
  take_over(versions, candidate);
  versions->phase = LIFECYCLE_UPGRADE_RETIRING;
  lifecycle_versions_decide(versions, &before, &candidate->edition, "promoted", cause, candidate->process_generation);
  if (old->hold == LIFECYCLE_HOLD_QUARANTINED)
    lifecycle_quarantine_end(old);
  lifecycle_redial_cancel(old);
  if (old->pid)
    lifecycle_orders_leave(old, true);
  else
    phase_end(versions);
}

/* ---- probation ---- */

static uint64_t resident_bytes(int32_t pid) {
  char path[64];
  unsigned long long pages = 0;
  snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
  FILE *file = pid > 0 ? fopen(path, "re") : NULL;
  if (!file)
    return 0;
  if (fscanf(file, "%*u %llu", &pages) != 1)
    pages = 0;
  fclose(file);
  return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void sampled(struct lifecycle_instance *instance, const struct core_rpc_result *result) {
  struct lifecycle_module *module = instance->module;
  struct lifecycle_versions *versions = module->versions;
  Core__Module__V1__ModuleStats *stats =
      result->grpc_status == 0 ? core__module__v1__module_stats__unpack(NULL, result->length, result->data) : NULL;
  if (!stats || versions->phase != LIFECYCLE_UPGRADE_PROBATION) {
    if (stats)
      core__module__v1__module_stats__free_unpacked(stats, NULL);
    return;
  }
  unsigned side = module == versions->candidate ? NEW : OLD;
  struct lifecycle_tally *told = &versions->now[side].told;
  *told = (struct lifecycle_tally){.requests = stats->requests_total, .errors = stats->errors_total};
  for (size_t i = 0; i < stats->n_latency_counts && i < LATENCY_BUCKETS; i++)
    told->latency[i] = stats->latency_counts[i];
  if (versions->sampled[side] != instance->generation) { /* its first word: what was before does not count */
    versions->sampled[side] = instance->generation;
    versions->begin[side].told = *told;
  }
  core__module__v1__module_stats__free_unpacked(stats, NULL);
}

static void sample_ask(struct lifecycle_module *module) {
  if (lifecycle_module_is_alive(module) && module->instance->state == LIFECYCLE_READY &&
      !module->instance->calls[LIFECYCLE_CALL_STATS])
    lifecycle_instance_call(module->instance, LIFECYCLE_CALL_STATS, RUNTIME "GetStats", "", 0, STATS_TIMEOUT_MS,
                            sampled);
}

/* What needs no answer of the module. */
static void look_at(const struct lifecycle_module *module, struct lifecycle_sample *sample) {
  sample->seen = module->seen;
  sample->stalled = lifecycle_witness_stalled(module);
  sample->memory_bytes = resident_bytes(module->pid);
}

/* The candidate is ready: both serve. */
static void probation_begin(struct lifecycle_versions *versions) {
  versions->phase = LIFECYCLE_UPGRADE_PROBATION;
  versions->deadline_us = after_ms(versions->probation_ms);
  versions->end_due_us = 0;
  memset(versions->begin, 0, sizeof(versions->begin));
  memset(versions->now, 0, sizeof(versions->now));
  memset(versions->sampled, 0, sizeof(versions->sampled));
  look_at(lifecycle_module_other(versions->candidate), &versions->begin[OLD]);
  look_at(versions->candidate, &versions->begin[NEW]);
  log_event(LOG_INFO, "lifecycle", "a new version is on probation", LOG_TEXT("module", versions->first->name),
            LOG_TEXT("program", versions->candidate->edition.program),
            LOG_INT("config", versions->candidate->edition.config), LOG_INT("milliseconds", versions->probation_ms));
  if (versions->proven)
    promote(versions, "it was current before, and is ready");
}

/* Its connection ends before the supervisor can tell that it died, and of what, which is what operators want to know.
 * One that has no memory any more is dead; one that lives without its connection is not waited for. */
static bool end_is_to_be_told(struct lifecycle_versions *versions) {
  const struct lifecycle_module *candidate = versions->candidate;
  if (lifecycle_module_is_alive(candidate) || !candidate->pid || resident_bytes(candidate->pid) > 0)
    return false;
  if (!versions->end_due_us)
    versions->end_due_us = after_ms(END_TOLD_MS);
  return clock_monotonic_us() < versions->end_due_us;
}

static void probation_watch(struct lifecycle_versions *versions) {
  struct lifecycle_module *candidate = versions->candidate, *old = lifecycle_module_other(candidate);
  char cause[LIFECYCLE_REASON_BYTES], why[LIFECYCLE_REASON_BYTES - 32];
  struct lifecycle_sample sides[2];
  if (end_is_to_be_told(versions))
    return;
  if (!lifecycle_module_is_alive(candidate) || candidate->instance->state != LIFECYCLE_READY) {
    snprintf(cause, sizeof(cause), "not ready any more: %.200s", candidate->instance->reason);
    roll_back(versions, cause);
    return;
  }
  look_at(old, &versions->now[OLD]);
  look_at(candidate, &versions->now[NEW]);
  for (unsigned side = 0; side < 2; side++)
    sides[side] = lifecycle_sample_since(&versions->begin[side], &versions->now[side]);
  if (!lifecycle_verdict(&old->config.criteria, &sides[OLD], &sides[NEW], why, sizeof(why))) {
    roll_back(versions, why);
    return;
  }
  if (clock_monotonic_us() >= versions->deadline_us) {
    snprintf(cause, sizeof(cause),
             "held for %u ms beside the old one: %llu requests, %llu failed; the core saw %llu calls, %llu failed",
             versions->probation_ms, (unsigned long long)sides[NEW].told.requests,
             (unsigned long long)sides[NEW].told.errors, (unsigned long long)sides[NEW].seen.requests,
             (unsigned long long)sides[NEW].seen.errors);
    promote(versions, cause);
    return;
  }
  sample_ask(old);
  sample_ask(candidate);
}

static void start_watch(struct lifecycle_versions *versions) {
  struct lifecycle_module *candidate = versions->candidate;
  if (candidate->pid && lifecycle_module_is_alive(candidate) && candidate->instance->state == LIFECYCLE_READY &&
      candidate->instance->generation == candidate->process_generation)
    probation_begin(versions);
  else if (clock_monotonic_us() >= versions->deadline_us)
    roll_back(versions, "not ready in time");
}

static void tick(void *argument) {
  struct lifecycle_versions *versions = argument;
  versions->timer = NULL;
  if (versions->phase == LIFECYCLE_UPGRADE_NONE && versions->file_waits) {
    versions->file_waits = false;
    lifecycle_configure_changed(versions);
  } else if (versions->phase == LIFECYCLE_UPGRADE_STARTING && !versions->emergency) {
    start_watch(versions);
  } else if (versions->phase == LIFECYCLE_UPGRADE_PROBATION) {
    probation_watch(versions);
  }
  if (versions->phase != LIFECYCLE_UPGRADE_NONE)
    tick_later(versions);
}

static void tick_later(struct lifecycle_versions *versions) {
  core_rpc_timer_cancel(&versions->timer);
  versions->timer = core_rpc_timer_start(room(versions)->options.loop, TICK_MS, tick, versions);
}

/* ---- beginning ---- */

static struct lifecycle_module *process_beside(struct lifecycle_module *current, struct error *err) {
  struct lifecycle_module *other = lifecycle_module_other(current);
  char id[2 * LIFECYCLE_MODULE_ID_BYTES];
  if (other)
    return other;
  snprintf(id, sizeof(id), "%s@2", current->name);
  other = lifecycle_module_second(current->lifecycle, current->name, id);
  if (!other)
    error_set(err, ERR_UNSUPPORTED, "a second process of the module cannot be had: its id is too long");
  return other;
}

static bool stage(struct lifecycle_versions *versions, struct lifecycle_module *candidate,
                  const struct lifecycle_edition *edition, const char *who, struct error *err) {
  if (!lifecycle_control_stage(room(versions)->control, candidate->name, candidate->id, edition->program,
                               &versions->stage_sequence, err))
    return false;
  lifecycle_deaths_forgive(&candidate->deaths);
  candidate->ready_generation = 0; /* that was another program */
  lifecycle_redial_cancel(candidate);
  candidate->plan = LIFECYCLE_PLAN_NONE;
  candidate->role = LIFECYCLE_CANDIDATE;
  candidate->fault[0] = '\0';
  candidate->edition = *edition;
  versions->wanted_version[0] = '\0';
  str_copy(versions->who, sizeof(versions->who), who);
  versions->candidate = candidate;
  versions->phase = LIFECYCLE_UPGRADE_STARTING;
  versions->deadline_us = after_ms(lifecycle_module_start_timeout_ms(candidate) + STAGE_GRACE_MS);
  tick_later(versions);
  log_event(LOG_INFO, "lifecycle", "an upgrade began", LOG_TEXT("module", candidate->name),
            LOG_TEXT("program", program_text(edition->program)), LOG_INT("config", edition->config),
            LOG_TEXT("who", who));
  return true;
}

struct lifecycle_module *lifecycle_upgrade_changeable(struct lifecycle *lifecycle, const char *module_id,
                                                      struct error *err) {
  struct lifecycle_module *current = lifecycle_module_named(lifecycle, module_id);
  if (!current) {
    error_set(err, ERR_MODULE_UNKNOWN, NULL);
  } else if (!lifecycle->control || !current->supervised) {
    error_set(err, ERR_UNSUPPORTED, "without a supervisor nobody can start another program beside this one");
  } else if (current->versions->phase != LIFECYCLE_UPGRADE_NONE) {
    error_set(err, ERR_MODULE_PHASE, "an upgrade is under way (%s)",
              lifecycle_upgrade_phase_name(current->versions->phase));
  } else if (!lifecycle_module_is_alive(current) || current->instance->state != LIFECYCLE_READY ||
             current->plan != LIFECYCLE_PLAN_NONE) {
    error_set(err, ERR_MODULE_PHASE, "the module is not ready");
  } else {
    return current;
  }
  return NULL;
}

bool lifecycle_upgrade_begin(struct lifecycle_module *current, const struct lifecycle_edition *edition,
                             const char *version, uint32_t probation_ms, const char *who, struct error *err) {
  struct lifecycle_versions *versions = current->versions;
  struct lifecycle_module *candidate = process_beside(current, err);
  if (!candidate || !stage(versions, candidate, edition, who, err))
    return false;
  versions->probation_ms = probation_ms ? probation_ms : current->config.probation_ms;
  str_copy(versions->wanted_version, sizeof(versions->wanted_version), version);
  return true;
}

static bool program_is_good(const char *program, struct error *err) {
  struct stat status;
  if (program[0] != '/' || strlen(program) >= LIFECYCLE_PROGRAM_BYTES)
    return error_set(err, ERR_ARGUMENT_INVALID, "the program is an absolute path of at most %d bytes",
                     LIFECYCLE_PROGRAM_BYTES - 1);
  if (stat(program, &status) != 0 && errno == ENOENT) /* the rest is for the supervisor to say */
    return error_set(err, ERR_ARGUMENT_INVALID, "there is no such program");
  return true;
}

bool lifecycle_upgrade(struct lifecycle *lifecycle, const char *module_id, const char *program, const char *version,
                       uint32_t probation_ms, const char *who, uint64_t *generation, struct error *err) {
  struct lifecycle_module *current = lifecycle_upgrade_changeable(lifecycle, module_id, err);
  *generation = 0;
  if (!current)
    return false;
  struct lifecycle_edition edition = {.config = current->versions->current.config};
  if (program[0] ? !program_is_good(program, err)
                 : !lifecycle_versions_find(current->versions, version, edition.program, err))
    return false;
  if (program[0])
    str_copy(edition.program, sizeof(edition.program), program);
  *generation = current->process_generation;
  return lifecycle_upgrade_begin(current, &edition, program[0] ? "" : version, probation_ms, who, err);
}

bool lifecycle_rollback(struct lifecycle *lifecycle, const char *module_id, const char *who, uint64_t *generation,
                        struct error *err) {
  struct lifecycle_module *current = lifecycle_module_named(lifecycle, module_id);
  struct lifecycle_versions *versions = current ? current->versions : NULL;
  char cause[LIFECYCLE_REASON_BYTES];
  *generation = 0;
  if (versions && !versions->emergency &&
      (versions->phase == LIFECYCLE_UPGRADE_STARTING || versions->phase == LIFECYCLE_UPGRADE_PROBATION)) {
    *generation = current->process_generation;
    snprintf(cause, sizeof(cause), "ordered by %.64s", who);
    roll_back(versions, cause);
    return true;
  }
  current = lifecycle_upgrade_changeable(lifecycle, module_id, err);
  if (!current)
    return false;
  if (!versions->has_previous)
    return error_set(err, ERR_MODULE_PHASE, "there is no version before this one");
  if (!lifecycle_upgrade_begin(current, &versions->previous, "", 0, who, err))
    return false;
  versions->proven = true;
  return true;
}

/* ---- news of the supervisor ---- */

static struct lifecycle_versions *staged_with(struct lifecycle *lifecycle, uint64_t sequence) {
  struct lifecycle_module *module;
  STAILQ_FOREACH(module, &lifecycle->modules, entry)
  if (sequence > 0 && module->versions->first == module && module->versions->stage_sequence == sequence)
    return module->versions;
  return NULL;
}

void lifecycle_upgrade_accepted(struct lifecycle *lifecycle, uint64_t sequence) {
  struct lifecycle_versions *versions = staged_with(lifecycle, sequence);
  if (!versions || versions->phase != LIFECYCLE_UPGRADE_STARTING)
    return;
  struct lifecycle_module *candidate = versions->candidate;
  versions->stage_sequence = 0;
  if (versions->emergency) {
    take_over(versions, candidate);
    phase_end(versions);
  }
  lifecycle_control_start(lifecycle->control, candidate->id, NULL);
}

void lifecycle_upgrade_refused(struct lifecycle *lifecycle, uint64_t sequence, unsigned reason) {
  struct lifecycle_versions *versions = staged_with(lifecycle, sequence);
  char cause[LIFECYCLE_REASON_BYTES];
  if (!versions)
    return;
  struct lifecycle_module *candidate = versions->candidate;
  snprintf(cause, sizeof(cause),
           reason == supervisor_control_v1_Reason_REASON_PROGRAM
               ? "the supervisor finds no program there that it can execute"
               : "the supervisor does not take it (reason %u)",
           reason);
  lifecycle_versions_note(versions, &versions->current, &candidate->edition, "refused", cause, 0);
  bool emergency = versions->emergency;
  struct lifecycle_module *current = lifecycle_module_current(versions);
  phase_end(versions);
  if (!emergency) {
    candidate->role = LIFECYCLE_RETIRED;
  } else if (candidate == current || candidate == versions->first) { /* at the start: as configured, then */
    const struct lifecycle_edition configured = {.config = versions->current.config};
    lifecycle_versions_remember(versions, &configured, false);
    candidate->role = LIFECYCLE_CURRENT;
    candidate->edition = configured;
    lifecycle_control_start(lifecycle->control, candidate->id, NULL);
  } else {
    candidate->role = LIFECYCLE_RETIRED;
    lifecycle_quarantine_begin(current, cause);
  }
}

void lifecycle_upgrade_ended(struct lifecycle_module *module, const char *text) {
  struct lifecycle_versions *versions = module->versions;
  char cause[LIFECYCLE_REASON_BYTES];
  module->plan = LIFECYCLE_PLAN_NONE;
  if (module->role == LIFECYCLE_RETIRED) {
    if (versions->phase == LIFECYCLE_UPGRADE_RETIRING)
      phase_end(versions);
    return;
  }
  if (module != versions->candidate)
    return;
  if (versions->phase == LIFECYCLE_UPGRADE_STARTING || versions->phase == LIFECYCLE_UPGRADE_PROBATION) {
    snprintf(cause, sizeof(cause), "it ended in %s: %.200s", lifecycle_upgrade_phase_name(versions->phase), text);
    roll_back(versions, cause); /* which finds no process, and is done */
  } else {
    module->role = LIFECYCLE_RETIRED;
    phase_end(versions);
  }
}

/* ---- the current one cannot hold (LIF-8) ---- */

bool lifecycle_upgrade_fall_back(struct lifecycle_module *module, const char *reason) {
  struct lifecycle_versions *versions = module->versions;
  const char *fallback = module->config.fallback ? module->config.fallback : "";
  const struct lifecycle_edition before = versions->current;
  struct lifecycle_edition to =
      versions->has_previous ? versions->previous : (struct lifecycle_edition){.config = before.config};
  char cause[LIFECYCLE_REASON_BYTES];
  bool falls_back = !versions->has_previous;
  if (versions->emergency && module->role == LIFECYCLE_CURRENT)
    return true; /* the other one is about to take its place */
  if (!module->lifecycle->control || !module->supervised || module->role != LIFECYCLE_CURRENT ||
      versions->phase != LIFECYCLE_UPGRADE_NONE ||
      (falls_back && (!fallback[0] || str_equal(fallback, before.program))))
    return false;
  if (falls_back)
    str_copy(to.program, sizeof(to.program), fallback);
  struct lifecycle_module *other = process_beside(module, NULL);
  if (!other || other->pid || !stage(versions, other, &to, WHO_CORE, NULL))
    return false;
  versions->emergency = true;
  snprintf(cause, sizeof(cause), "%s: %.220s", falls_back ? "cannot hold, fallback" : "cannot hold", reason);
  lifecycle_versions_remember(versions, &to, false);
  lifecycle_versions_note(versions, &before, &to, "rolled back", cause, module->process_generation);
  lifecycle_alert(module->lifecycle, falls_back ? LIFECYCLE_ALERT_FALLBACK : LIFECYCLE_ALERT_ROLLED_BACK, module->name,
                  module->process_generation, cause);
  if (module->instance) {
    if (module->instance->channel)
      lifecycle_instance_end(module->instance, LIFECYCLE_ON_REFUSED, reason);
    lifecycle_instance_event(module->instance, LIFECYCLE_ON_ROLLBACK_ORDERED, cause);
    lifecycle_instance_event(module->instance, LIFECYCLE_ON_ROLLED_BACK, program_text(to.program));
  }
  log_event(LOG_ERROR, "lifecycle", "a module cannot hold and goes back", LOG_TEXT("module", module->name),
            LOG_TEXT("to", program_text(to.program)), LOG_INT("config", to.config), LOG_TEXT("reason", reason));
  return true;
}

/* ---- after a start ---- */

/* Nothing of the module has run under this supervisor, which knows only what is configured. */
static void restore(struct lifecycle_versions *versions) {
  struct lifecycle_module *first = versions->first;
  lifecycle_configure_adopt(versions);
  if (versions->current.program[0] && lifecycle_module_current(versions) == first &&
      first->hold != LIFECYCLE_HOLD_DISABLED && stage(versions, first, &versions->current, WHO_CORE, NULL))
    versions->emergency = true;
}

static bool edition_is(const struct lifecycle_edition *edition, const char *program, uint64_t config) {
  return str_equal(edition->program, program) && edition->config == config;
}

/* Promoted, and not written down, or the other way round: what runs counts, and the history says so. */
static void take_at_its_word(struct lifecycle_versions *versions, const struct lifecycle_module *current) {
  const struct lifecycle_edition written = versions->current, *runs = &current->edition;
  const Core__Admin__V1__ModuleVersionChange *newest = versions->change_count > 0 ? versions->changes[0] : NULL;
  if (edition_is(runs, written.program, written.config))
    return;
  str_copy(versions->who, sizeof(versions->who), WHO_CORE);
  if (newest && edition_is(runs, newest->from, newest->from_config) &&
      edition_is(&written, newest->to, newest->to_config)) {
    lifecycle_versions_remember(versions, runs, false);
    lifecycle_versions_note(versions, runs, &written, "rolled back", "the core ended before it was carried out",
                            current->process_generation);
    return;
  }
  bool is_previous = versions->has_previous && edition_is(runs, versions->previous.program, versions->previous.config);
  lifecycle_versions_remember(versions, runs, !is_previous);
  lifecycle_versions_note(versions, &written, runs, "promoted", "the core ended before it was written down",
                          current->process_generation);
}

static void reconcile(struct lifecycle_versions *versions) {
  struct lifecycle_module *current = lifecycle_module_current(versions), *other = lifecycle_module_other(current);
  if (!current->supervised)
    return;
  if (current->starts == 0) {
    restore(versions);
    return;
  }
  lifecycle_configure_fill(versions);
  take_at_its_word(versions, current);
  if (other && versions->first->hold == LIFECYCLE_HOLD_QUARANTINED && current != versions->first) {
    lifecycle_quarantine_move(versions->first, current); /* the row of the store names the module, not the process */
  }
  if (!other || !other->pid) {
    lifecycle_configure_changed(versions);
    return;
  }
  versions->file_waits = true; /* look at it once this is over */
  versions->candidate = other->role == LIFECYCLE_CANDIDATE ? other : current;
  str_copy(versions->who, sizeof(versions->who), WHO_CORE);
  if (other->role == LIFECYCLE_CANDIDATE) {
    versions->phase = LIFECYCLE_UPGRADE_ROLLING_BACK;
    lifecycle_versions_decide(versions, &versions->current, &other->edition, "rolled back",
                              "the core ended during the upgrade", other->process_generation);
    lifecycle_alert(room(versions), LIFECYCLE_ALERT_ROLLED_BACK, other->name, other->process_generation,
                    "the core ended during the upgrade");
  } else {
    versions->phase = LIFECYCLE_UPGRADE_RETIRING;
  }
}

bool lifecycle_upgrade_sends_away(struct lifecycle_instance *instance) {
  struct lifecycle_module *module = instance->module;
  enum lifecycle_upgrade_phase phase = module->versions->phase;
  if (module->role == LIFECYCLE_CURRENT ||
      (phase != LIFECYCLE_UPGRADE_RETIRING && phase != LIFECYCLE_UPGRADE_ROLLING_BACK))
    return false;
  if (module->role == LIFECYCLE_CANDIDATE)
    lifecycle_instance_event(instance, LIFECYCLE_ON_ROLLBACK_ORDERED, "the core ended during the upgrade");
  lifecycle_orders_leave(module, true);
  return true;
}

void lifecycle_upgrade_reconcile(struct lifecycle *lifecycle) {
  struct lifecycle_module *module;
  STAILQ_FOREACH(module, &lifecycle->modules, entry)
  if (module->versions->first == module)
    reconcile(module->versions);
}
