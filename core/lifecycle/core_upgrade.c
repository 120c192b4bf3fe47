/* core_upgrade.c: the core's own program is replaced (LIF-9, LIF-10, LIF-12). Two cores cannot serve one store, so the
 * new one comes in the place of this one, and the supervisor, which outlives both, does it (supervisor/core_program.c).
 *
 * In the core that leaves:
 *   describing   the supervisor runs the program with --describe; what it says of itself is judged here, first of all
 * by the schema of the store (core_description.h). Unfit: refused, and nothing else has happened. writing      what the
 * next core has to know is stored: what is tried, by whom, which modules were ready. ordered      the supervisor is
 * told; it agrees, and tells this core to end. In the core that comes: probation    it says that it cannot stay when a
 * module that was ready before is not ready again in core.upgrade.modules_ms, and answers the supervisor's question at
 * the end.
 *
 * What became of it is what the supervisor says, in its greeting or later; whichever core hears it writes it into the
 * history, the state graph and the log, in one row together with the end of what was under way: nothing is told twice.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/lifecycle/core_description.h"
#include "core/lifecycle/lifecycle_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/clock.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

#define NAME "core"
#define TICK_MS 100

/* protobuf-c frees members with free(): make them with malloc. */
static char *text(const char *value) {
  char *copy = strdup(value ? value : "");
  if (!copy)
    abort();
  return copy;
}

/* ---- what is under way ---- */

static Core__Admin__V1__CoreUpgrade *upgrade_new(struct lifecycle *lifecycle, const char *from, const char *to,
                                                 const char *who, bool back) {
  Core__Admin__V1__CoreUpgrade *upgrade = malloc(sizeof(*upgrade));
  size_t count = 0;
  struct lifecycle_module *module;
  STAILQ_FOREACH(module, &lifecycle->modules, entry) count++;
  if (!upgrade)
    abort();
  core__admin__v1__core_upgrade__init(upgrade);
  upgrade->from = text(from);
  upgrade->from_version = text(GATEHOUSE_VERSION);
  upgrade->to_version = text("");
  upgrade->to = text(to);
  upgrade->who = text(who);
  upgrade->boot_id = text(lifecycle->core.boot_id);
  upgrade->back = back;
  upgrade->ready_modules = calloc(count + 1, sizeof(*upgrade->ready_modules));
  if (!upgrade->ready_modules)
    abort();
  STAILQ_FOREACH(module, &lifecycle->modules, entry)
  if (module->role == LIFECYCLE_CURRENT && module->instance && module->instance->state == LIFECYCLE_READY)
    upgrade->ready_modules[upgrade->n_ready_modules++] = text(module->name);
  return upgrade;
}

static void upgrade_end(struct lifecycle *lifecycle) {
  struct lifecycle_core *core = &lifecycle->core;
  Core__Admin__V1__CoreUpgrade *upgrade = BASE_TAKE(core->versions->core_upgrade);
  if (upgrade)
    core__admin__v1__core_upgrade__free_unpacked(upgrade, NULL);
  core_rpc_timer_cancel(&core->timer);
  core->versions->phase = LIFECYCLE_UPGRADE_NONE;
  core->step = LIFECYCLE_CORE_IDLE;
  core->sequence = 0;
}

static void done_call(struct lifecycle *lifecycle, const struct error *err) {
  lifecycle_core_done *done = BASE_TAKE(lifecycle->core.done);
  if (done)
    done(lifecycle->core.done_arg, err);
}

void lifecycle_core_done_forget(struct lifecycle *lifecycle, const void *arg) {
  if (lifecycle->core.done_arg == arg)
    lifecycle->core.done = NULL;
}

/* ---- how it ended ---- */

static struct lifecycle_edition edition(const char *program, const char *version) {
  struct lifecycle_edition found = {0};
  str_copy(found.version, sizeof(found.version), version);
  str_copy(found.program, sizeof(found.program), program);
  return found;
}

static void graph_record(struct lifecycle *lifecycle, uint64_t generation, enum lifecycle_state from,
                         enum lifecycle_state to, const char *cause) {
  psg_module_transition_record(lifecycle->options.psg,
                               &(struct psg_module_transition){.module_id = NAME,
                                                               .protocol_family = NAME,
                                                               .module_version = GATEHOUSE_VERSION,
                                                               .generation = generation,
                                                               .from_state = lifecycle_state_name(from),
                                                               .to_state = lifecycle_state_name(to),
                                                               .cause = cause});
}

static void promoted(struct lifecycle *lifecycle, const char *cause, uint64_t generation) {
  struct lifecycle_versions *versions = lifecycle->core.versions;
  Core__Admin__V1__CoreUpgrade *upgrade = versions->core_upgrade;
  const struct lifecycle_edition from = edition(upgrade->from, upgrade->from_version),
                                 to = edition(upgrade->to, upgrade->to_version);
  versions->has_previous = !upgrade->back && !upgrade->final;
  versions->previous = versions->has_previous ? from : (struct lifecycle_edition){0};
  versions->current = to;
  str_copy(versions->configured, sizeof(versions->configured),
           lifecycle->options.core_binary ? lifecycle->options.core_binary : "");
  str_copy(versions->who, sizeof(versions->who), upgrade->who);
  upgrade_end(lifecycle);
  lifecycle_versions_note(versions, &from, &to, "promoted", cause, generation);
  graph_record(lifecycle, generation, LIFECYCLE_WARMING, LIFECYCLE_READY, cause);
}

static void rolled_back(struct lifecycle *lifecycle, const char *verdict, const char *cause, uint64_t generation) {
  struct lifecycle_versions *versions = lifecycle->core.versions;
  Core__Admin__V1__CoreUpgrade *upgrade = versions->core_upgrade;
  const struct lifecycle_edition from = edition(upgrade->from, upgrade->from_version),
                                 to = edition(upgrade->to, upgrade->to_version);
  str_copy(versions->who, sizeof(versions->who), upgrade->who);
  upgrade_end(lifecycle);
  lifecycle_versions_note(versions, &from, &to, verdict, cause, generation);
  if (generation == 0)
    return; /* none was started */
  lifecycle_alert(lifecycle, LIFECYCLE_ALERT_ROLLED_BACK, NAME, generation, cause);
  graph_record(lifecycle, generation, LIFECYCLE_WARMING, LIFECYCLE_ROLLING_BACK, cause);
  graph_record(lifecycle, generation, LIFECYCLE_ROLLING_BACK, LIFECYCLE_STOPPED, cause);
}

static void refused(struct lifecycle *lifecycle, const struct error *err) {
  rolled_back(lifecycle, "refused", err->message, 0);
  done_call(lifecycle, err);
}

/* ---- the core that leaves ---- */

static bool may_begin(struct lifecycle *lifecycle, const char *program, struct error *err) {
  struct lifecycle_module *module;
  if (!lifecycle->control)
    return error_set(err, ERR_UNSUPPORTED, "without a supervisor nobody can start another core in place of this one");
  if (lifecycle->core.step != LIFECYCLE_CORE_IDLE || lifecycle->stopping)
    return error_set(err, ERR_MODULE_PHASE, "an upgrade of the core is under way");
  STAILQ_FOREACH(module, &lifecycle->modules, entry)
  if (module->versions->phase != LIFECYCLE_UPGRADE_NONE)
    return error_set(err, ERR_MODULE_PHASE, "an upgrade of module %s is under way, which would be lost", module->name);
  if (program[0] && (program[0] != '/' || strlen(program) >= LIFECYCLE_PROGRAM_BYTES))
    return error_set(err, ERR_ARGUMENT_INVALID, "the program is an absolute path of at most %d bytes",
                     LIFECYCLE_PROGRAM_BYTES - 1);
  return true;
}

/* version: that it must say of itself; "": any. */
static void begin(struct lifecycle *lifecycle, const char *program, const char *version, bool back, const char *who,
                  lifecycle_core_done *done, void *arg) {
  struct lifecycle_core *core = &lifecycle->core;
  struct error err = {0};
  if (!may_begin(lifecycle, program, &err) ||
      !lifecycle_control_describe(lifecycle->control, program, &core->sequence, &err)) {
    done(arg, &err);
    return;
  }
  core->done = done;
  core->done_arg = arg;
  core->step = LIFECYCLE_CORE_DESCRIBING;
  core->versions->phase = LIFECYCLE_UPGRADE_STARTING;
  str_copy(core->versions->wanted_version, sizeof(core->versions->wanted_version), version);
  core->versions->core_upgrade = upgrade_new(lifecycle, core->program, program, who, back);
  log_event(LOG_INFO, "lifecycle", "an upgrade began", LOG_TEXT("module", NAME), LOG_TEXT("program", program),
            LOG_TEXT("who", who));
}

void lifecycle_core_upgrade(struct lifecycle *lifecycle, const char *program, const char *version,
                            uint32_t probation_ms, bool no_rollback, const char *who, lifecycle_core_done *done,
                            void *arg) {
  struct lifecycle_core *core = &lifecycle->core;
  struct error err = {0};
  char found[LIFECYCLE_PROGRAM_BYTES];
  if (!program[0]) {
    if (!lifecycle_versions_find(core->versions, version, found, &err)) {
      done(arg, &err);
      return;
    }
    program = found;
  }
  if (core->step == LIFECYCLE_CORE_IDLE) {
    core->no_rollback = no_rollback;
    core->probation_ms = probation_ms ? probation_ms : lifecycle->options.core_probation_ms;
  }
  begin(lifecycle, program, version, false, who, done, arg);
}

void lifecycle_core_rollback(struct lifecycle *lifecycle, const char *who, lifecycle_core_done *done, void *arg) {
  struct lifecycle_core *core = &lifecycle->core;
  struct error err = {0};
  char cause[LIFECYCLE_REASON_BYTES];
  if (core->step == LIFECYCLE_CORE_PROBATION) {
    snprintf(cause, sizeof(cause), "ordered by %.64s", who);
    lifecycle_control_verdict(lifecycle->control, false, cause);
    done(arg, NULL);
  } else if (core->step == LIFECYCLE_CORE_IDLE && !core->versions->has_previous) {
    error_set(&err, ERR_MODULE_PHASE, "there is no version before this one");
    done(arg, &err);
  } else {
    if (core->step == LIFECYCLE_CORE_IDLE) {
      core->no_rollback = false;
      core->probation_ms = 0; /* it has been the core's */
    }
    begin(lifecycle, core->versions->previous.program, "", true, who, done, arg);
  }
}

static void order(struct lifecycle *lifecycle) {
  struct lifecycle_core *core = &lifecycle->core;
  const Core__Admin__V1__CoreUpgrade *upgrade = core->versions->core_upgrade;
  struct error err = {0};
  core->step = LIFECYCLE_CORE_ORDERED;
  if (!lifecycle_control_replace(lifecycle->control, upgrade->to, core->probation_ms, upgrade->final, &core->sequence,
                                 &err))
    refused(lifecycle, &err);
}

/* The next core will know. */
static void written(void *arg, const struct store_commit_result *result, const struct error *err) {
  struct lifecycle *lifecycle = arg;
  (void)result;
  if (lifecycle->core.step != LIFECYCLE_CORE_WRITING)
    return;
  if (err)
    refused(lifecycle, err);
  else
    order(lifecycle);
}

void lifecycle_core_described(struct lifecycle *lifecycle, uint64_t sequence,
                              const supervisor_control_v1_ProgramDescribed *news) {
  struct lifecycle_core *core = &lifecycle->core;
  struct lifecycle_core_description description;
  struct error err = {0};
  char how[96];
  bool final = false;
  if (core->step != LIFECYCLE_CORE_DESCRIBING || sequence != core->sequence)
    return;
  lifecycle_exit_text(how, sizeof(how), news->cause, news->status, news->signal);
  if (news->cause != supervisor_control_v1_ExitCause_EXIT_CAUSE_CLEAN) {
    error_set(&err, ERR_MODULE_PROGRAM, "asked what it is with --describe, it %s: %.120s",
              news->cause == supervisor_control_v1_ExitCause_EXIT_CAUSE_START_TIMEOUT ? "did not answer" : how,
              news->text);
    refused(lifecycle, &err);
    return;
  }
  if (!lifecycle_core_description_read(news->text, &description, &err) ||
      !lifecycle_core_schema_fits(lifecycle->options.store_schema, description.store_schema, core->no_rollback, &final,
                                  &err)) {
    refused(lifecycle, &err);
    return;
  }
  if (core->versions->wanted_version[0] && !str_equal(core->versions->wanted_version, description.version)) {
    error_set(&err, ERR_MODULE_PROGRAM, "it says that it is version %.64s, and not %.64s", description.version,
              core->versions->wanted_version);
    refused(lifecycle, &err);
    return;
  }
  free(core->versions->core_upgrade->to_version);
  core->versions->core_upgrade->to_version = text(description.version);
  log_event(LOG_INFO, "lifecycle", "the core will be replaced", LOG_TEXT("program", core->versions->core_upgrade->to),
            LOG_TEXT("version", description.version), LOG_INT("schema", description.store_schema));
  core->versions->core_upgrade->final = final;
  core->step = LIFECYCLE_CORE_WRITING;
  if (lifecycle->options.store)
    lifecycle_versions_commit(core->versions, written, lifecycle);
  else
    order(lifecycle);
}

void lifecycle_core_accepted(struct lifecycle *lifecycle, uint64_t sequence) {
  if (lifecycle->core.step != LIFECYCLE_CORE_ORDERED || sequence != lifecycle->core.sequence)
    return;
  lifecycle->core.step = LIFECYCLE_CORE_LEAVING;
  done_call(lifecycle, NULL);
}

void lifecycle_core_refused(struct lifecycle *lifecycle, uint64_t sequence, unsigned reason) {
  const struct lifecycle_core *core = &lifecycle->core;
  struct error err = {0};
  if ((core->step != LIFECYCLE_CORE_DESCRIBING && core->step != LIFECYCLE_CORE_ORDERED) || sequence != core->sequence)
    return;
  if (reason == supervisor_control_v1_Reason_REASON_PROGRAM)
    error_set(&err, ERR_MODULE_PROGRAM, "the supervisor finds no program there that it can execute");
  else if (reason == supervisor_control_v1_Reason_REASON_UNWRITTEN)
    error_set(&err, ERR_UNAVAILABLE, "the supervisor cannot write down that it is the core's program");
  else
    error_set(&err, ERR_MODULE_PHASE, "the supervisor does not take it now (reason %u)", reason);
  refused(lifecycle, &err);
}

/* ---- the core that comes ---- */

/* A module that was ready before and is not yet; NULL: there is none. What was held down meanwhile is not waited for.
 */
static const char *module_missing(struct lifecycle *lifecycle) {
  const Core__Admin__V1__CoreUpgrade *upgrade = lifecycle->core.versions->core_upgrade;
  for (size_t i = 0; i < upgrade->n_ready_modules; i++) {
    const struct lifecycle_module *module = lifecycle_module_named(lifecycle, upgrade->ready_modules[i]);
    if (module && module->hold == LIFECYCLE_HOLD_NONE &&
        (!module->instance || module->instance->state != LIFECYCLE_READY))
      return module->name;
  }
  return NULL;
}

static void tick(void *argument) {
  struct lifecycle *lifecycle = argument;
  struct lifecycle_core *core = &lifecycle->core;
  char cause[LIFECYCLE_REASON_BYTES];
  core->timer = NULL;
  const char *missing = module_missing(lifecycle);
  if (!missing) {
    core->modules_back = true;
    if (core->asked)
      lifecycle_control_verdict(lifecycle->control, true, "");
    return;
  }
  if (clock_monotonic_us() >= core->modules_deadline_us) {
    snprintf(cause, sizeof(cause), "module %s was ready before and was not again in %u ms", missing,
             lifecycle->options.core_modules_ms);
    lifecycle_control_verdict(lifecycle->control, false, cause);
    return;
  }
  core->timer = core_rpc_timer_start(lifecycle->options.loop, TICK_MS, tick, lifecycle);
}

void lifecycle_core_ready(struct lifecycle *lifecycle) {
  struct lifecycle_core *core = &lifecycle->core;
  core->modules_deadline_us = clock_monotonic_us() + (int64_t)lifecycle->options.core_modules_ms * 1000;
  if (core->step == LIFECYCLE_CORE_PROBATION && !core->timer)
    tick(lifecycle);
}

static void probation_begin(struct lifecycle *lifecycle, const supervisor_control_v1_CoreProgram *news) {
  struct lifecycle_core *core = &lifecycle->core;
  if (!core->versions->core_upgrade) /* the store forgot */
    core->versions->core_upgrade = upgrade_new(lifecycle, news->from_program, news->to_program, "", false);
  core->step = LIFECYCLE_CORE_PROBATION;
  log_event(LOG_INFO, "lifecycle", "this core is a new program, on probation", LOG_TEXT("program", news->to_program),
            LOG_INT("milliseconds", news->probation_ms));
  if (core->modules_deadline_us) /* it was ready before it was greeted */
    tick(lifecycle);
}

/* A greeting that says nothing of what the store says was begun. */
static void unfinished(struct lifecycle *lifecycle) {
  struct lifecycle_core *core = &lifecycle->core;
  const Core__Admin__V1__CoreUpgrade *upgrade = core->versions->core_upgrade;
  if (str_equal(core->program, upgrade->to) && !str_equal(upgrade->from, upgrade->to))
    promoted(lifecycle, "it was kept", lifecycle->core_generation);
  else if (str_equal(upgrade->boot_id, core->boot_id))
    rolled_back(lifecycle, "rolled back", "the core ended before it could be replaced", 0);
  else
    rolled_back(lifecycle, "rolled back", "the gateway ended during the upgrade", 0);
}

/* Nothing was begun, and yet it is another program than the last time. */
static void changed_outside(struct lifecycle *lifecycle) {
  struct lifecycle_versions *versions = lifecycle->core.versions;
  const struct lifecycle_edition before = versions->current;
  versions->current = edition(lifecycle->core.program, GATEHOUSE_VERSION);
  str_copy(versions->who, sizeof(versions->who), "the supervisor");
  versions->has_previous = false;
  versions->previous = (struct lifecycle_edition){0};
  lifecycle_versions_note(versions, &before, &versions->current, "promoted",
                          "the gateway was started with it: the configuration names another program now, or the one "
                          "that was kept cannot be executed",
                          lifecycle->core_generation);
}

/* What this core is, so that it can be named by its version later. */
static void heard(struct lifecycle_core *core) {
  struct lifecycle_versions *versions = core->versions;
  const char *binary = versions->lifecycle->options.core_binary;
  if (!str_equal(core->program, versions->current.program))
    return;
  str_copy(versions->current.version, sizeof(versions->current.version), GATEHOUSE_VERSION);
  if (core->program[0])
    return;
  str_copy(versions->configured, sizeof(versions->configured), binary ? binary : "");
  ssize_t length = readlink("/proc/self/exe", versions->configured_file, sizeof(versions->configured_file) - 1);
  versions->configured_file[length > 0 ? length : 0] = '\0';
}

void lifecycle_core_told(struct lifecycle *lifecycle, const supervisor_control_v1_CoreProgram *news, bool greeting) {
  struct lifecycle_core *core = &lifecycle->core;
  if (!greeting && core->step != LIFECYCLE_CORE_PROBATION)
    return;
  str_copy(core->program, sizeof(core->program), news->program);
  bool under_way = core->versions->core_upgrade != NULL;
  switch (news->change) {
  case supervisor_control_v1_CoreChange_CORE_CHANGE_CONFIRMING:
    core->asked = true; /* fall through */
  case supervisor_control_v1_CoreChange_CORE_CHANGE_STARTING:
  case supervisor_control_v1_CoreChange_CORE_CHANGE_PROBATION:
    /* It is on probation when the supervisor has seen it ready: only from then on its end is one on probation. */
    core->versions->phase = news->change == supervisor_control_v1_CoreChange_CORE_CHANGE_STARTING
                                ? LIFECYCLE_UPGRADE_STARTING
                                : LIFECYCLE_UPGRADE_PROBATION;
    if (greeting)
      probation_begin(lifecycle, news);
    else if (core->asked && core->modules_back)
      lifecycle_control_verdict(lifecycle->control, true, "");
    return;
  case supervisor_control_v1_CoreChange_CORE_CHANGE_KEPT:
    if (under_way && str_equal(news->to_program, core->versions->core_upgrade->to)) {
      promoted(lifecycle, news->why, news->generation ? news->generation : lifecycle->core_generation);
      return;
    }
    break;
  case supervisor_control_v1_CoreChange_CORE_CHANGE_TAKEN_BACK:
    if (under_way && str_equal(news->to_program, core->versions->core_upgrade->to)) {
      rolled_back(lifecycle, "rolled back", news->why, news->generation);
      return;
    }
    break;
  default:
    break;
  }
  if (greeting && under_way)
    unfinished(lifecycle);
  else if (greeting && !str_equal(core->program, core->versions->current.program))
    changed_outside(lifecycle);
  if (greeting)
    heard(core);
}

/* ---- life ---- */

uint64_t lifecycle_core_generation(const struct lifecycle *lifecycle) {
  return lifecycle->core_generation;
}

void lifecycle_core_init(struct lifecycle *lifecycle) {
  lifecycle->core.versions = BASE_NEW(struct lifecycle_versions);
  lifecycle->core.versions->lifecycle = lifecycle;
  lifecycle->core.versions->name = NAME;
}

void lifecycle_core_free(struct lifecycle *lifecycle) {
  core_rpc_timer_cancel(&lifecycle->core.timer);
  if (lifecycle->core.versions)
    lifecycle_versions_free(&lifecycle->core.versions);
}
