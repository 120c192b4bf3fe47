/* status.c: what operators see of processes (StatusService, ModuleAdminService). Reads /proc for memory; only on
 * request. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/lifecycle/lifecycle_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/clock.h"
#include "sdk/base/str.h"

/* protobuf-c frees members with free(): make them with malloc. */
static char *text(const char *value) {
  char *copy = strdup(value ? value : "");
  if (!copy)
    abort();
  return copy;
}

/* What is in memory of a process, what it shares with others counted whole. 0: not to be had. */
static uint64_t process_resident_bytes(int32_t pid) {
  char path[64];
  unsigned long long pages = 0;
  snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
  FILE *file = fopen(path, "re");
  if (!file)
    return 0;
  if (fscanf(file, "%*u %llu", &pages) != 1)
    pages = 0;
  fclose(file);
  return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Proportional set size in bytes. 0: not to be had; of other processes the core's own sandbox hides it. */
static uint64_t process_pss_bytes(int32_t pid) {
  char path[64], line[256];
  unsigned long long kilobytes = 0;
  snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
  FILE *file = fopen(path, "re");
  while (file && fgets(line, sizeof(line), file))
    if (str_starts_with(line, "Pss:")) {
      kilobytes = strtoull(line + 4, NULL, 10);
      break;
    }
  if (file)
    fclose(file);
  return kilobytes * 1024;
}

static void memory_fill(Core__Admin__V1__ProcessStatus *status, int32_t pid) {
  if (pid <= 0)
    return;
  status->memory_resident_bytes = process_resident_bytes(pid);
  status->memory_pss_bytes = process_pss_bytes(pid);
}

/* Milliseconds since a process began, by the kernel's word; 0: not to be had. */
static uint64_t process_uptime_ms(int32_t pid) {
  char path[64], line[1024];
  unsigned long long start_ticks = 0;
  double uptime_seconds = 0;
  long ticks_per_second = sysconf(_SC_CLK_TCK);
  snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
  FILE *file = fopen(path, "re");
  const char *after_name = file && fgets(line, sizeof(line), file) ? strrchr(line, ')') : NULL;
  if (after_name) /* field 22, counted from the one behind the name */
    sscanf(after_name + 1, " %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu",
           &start_ticks);
  if (file)
    fclose(file);
  file = fopen("/proc/uptime", "re");
  if (file) {
    if (fscanf(file, "%lf", &uptime_seconds) != 1)
      uptime_seconds = 0;
    fclose(file);
  }
  double started = (double)start_ticks / (double)ticks_per_second;
  return start_ticks && uptime_seconds > started ? (uint64_t)((uptime_seconds - started) * 1000) : 0;
}

static Core__Admin__V1__ProcessStatus *process_new(const char *id) {
  Core__Admin__V1__ProcessStatus *status = calloc(1, sizeof(*status));
  if (!status)
    abort();
  core__admin__v1__process_status__init(status);
  status->id = text(id);
  return status;
}

static const char *protection_state(unsigned state) {
  static const char *const texts[] = {"unknown", "off", "in force", "loosened", "turned off"};
  return texts[state < sizeof(texts) / sizeof(texts[0]) ? state : 0];
}

static void warning_add(Core__Admin__V1__ProcessStatus *status, const char *warning) {
  status->warnings = realloc(status->warnings, (status->n_warnings + 1) * sizeof(*status->warnings));
  if (!status->warnings)
    abort();
  status->warnings[status->n_warnings++] = text(warning);
}

/* One warning that names every measure which the configuration made weaker. */
static void warnings_fill(const struct lifecycle_protections *protections, Core__Admin__V1__ProcessStatus *status) {
  struct buf line = {0};
  for (size_t i = 0; i < protections->count; i++) {
    const struct lifecycle_protection *protection = &protections->items[i];
    if (protection->state < supervisor_control_v1_ProtectionState_PROTECTION_STATE_LOOSENED)
      continue;
    buf_printf(&line, "%s%s %s", line.length ? ", " : "the configuration weakens its sandbox: ", protection->name,
               protection_state(protection->state));
  }
  if (line.length)
    warning_add(status, line.data);
  buf_free(&line);
}

static void protections_fill(const struct lifecycle_protections *from,
                             Core__Admin__V1__DescribeModuleResponse *response) {
  response->protections = calloc(from->count + 1, sizeof(*response->protections));
  if (!response->protections)
    abort();
  for (size_t i = 0; i < from->count; i++) {
    Core__Admin__V1__ModuleProtection *to = calloc(1, sizeof(*to));
    if (!to)
      abort();
    core__admin__v1__module_protection__init(to);
    to->name = text(from->items[i].name);
    to->state = text(protection_state(from->items[i].state));
    to->why = text(from->items[i].why);
    response->protections[response->n_protections++] = to;
  }
}

/* With what ends it. */
static void quarantine_reason(const struct lifecycle_module *module, char *reason, size_t reason_bytes) {
  const struct lifecycle_quarantine *quarantine = &module->versions->quarantine;
  int64_t left_ms = quarantine->trial_at_ms - clock_wall_ms();
  if (quarantine->pause_ms > 0)
    snprintf(reason, reason_bytes, "%s; a trial start in %lld s", module->hold_reason,
             (long long)(left_ms > 0 ? left_ms + 999 : 0) / 1000);
  else
    snprintf(reason, reason_bytes, "%s; held until it is released", module->hold_reason);
}

static Core__Admin__V1__ProcessStatus *module_status(const struct lifecycle_module *module) {
  static const char *const roles[] = {
      [LIFECYCLE_CURRENT] = "", [LIFECYCLE_CANDIDATE] = "candidate", [LIFECYCLE_RETIRED] = "retired"};
  char id[2 * LIFECYCLE_MODULE_ID_BYTES];
  snprintf(id, sizeof(id), "%s@%llu", module->name, (unsigned long long)module->process_generation);
  Core__Admin__V1__ProcessStatus *status = process_new(module->role == LIFECYCLE_CURRENT ? module->name : id);
  status->role = text(roles[module->role]);
  status->program = text(module->edition.program);
  const struct lifecycle_instance *instance = module->instance;
  /* A new process that has not shown its socket yet must not look like the old one. */
  if (instance && module->pid && instance->generation != module->process_generation)
    instance = NULL;
  const char *held = module->hold == LIFECYCLE_HOLD_QUARANTINED ? lifecycle_state_name(LIFECYCLE_QUARANTINED)
                     : module->hold == LIFECYCLE_HOLD_STOPPED && !module->pid && !lifecycle_module_is_alive(module)
                         ? lifecycle_state_name(LIFECYCLE_STOPPED)
                         : NULL;
  const char *state = held                    ? held
                      : instance              ? lifecycle_state_name(instance->state)
                      : module->pid           ? "starting"
                      : module->restart_waits ? lifecycle_state_name(LIFECYCLE_BACKOFF)
                                              : "down";
  status->generation = module->pid ? module->process_generation : instance ? instance->generation : 0;
  status->version = text(instance && instance->descriptor ? instance->descriptor->module_version : module->version);
  status->state = text(state);
  char reason[2 * LIFECYCLE_REASON_BYTES + 16];
  if (module->hold == LIFECYCLE_HOLD_QUARANTINED)
    quarantine_reason(module, reason, sizeof(reason));
  else if (held || (module->hold != LIFECYCLE_HOLD_NONE && !instance))
    str_copy(reason, sizeof(reason), module->hold_reason);
  else if (instance && instance->state == LIFECYCLE_DRAINING)
    snprintf(reason, sizeof(reason), "%s; %u in flight", instance->reason, instance->in_flight);
  else if (instance && module->fault[0] && module->fault_generation != instance->generation)
    snprintf(reason, sizeof(reason), "%s; before: %s", instance->reason, module->fault);
  else
    str_copy(reason, sizeof(reason), instance ? instance->reason : module->fault);
  status->reason = text(reason);
  status->pid = (uint32_t)module->pid;
  int64_t since_us = module->spawned_us              ? module->spawned_us
                     : instance && instance->channel ? instance->discovered_us
                                                     : 0;
  status->uptime_ms = since_us ? (uint64_t)(clock_monotonic_us() - since_us) / 1000 : 0;
  status->restarts = module->restarts;
  memory_fill(status, module->pid);
  status->protocol_family =
      text(instance && instance->descriptor ? instance->descriptor->protocol_family : module->family);
  warnings_fill(&module->protections, status);
  status->last_exit = text(module->last_exit);
  status->last_exit_at_ms = module->last_exit_at_ms;
  status->degraded =
      instance && instance->state == LIFECYCLE_READY && instance->readiness && instance->readiness->degraded;
  status->in_flight = instance && instance->channel ? instance->in_flight : 0;
  return status;
}

static Core__Admin__V1__ProcessStatus *supervisor_status(const struct lifecycle *lifecycle) {
  Core__Admin__V1__ProcessStatus *status = process_new("supervisor");
  char warning[2 * LIFECYCLE_REASON_BYTES];
  status->version = text(lifecycle->supervisor_version);
  status->state = text("ready");
  status->pid = (uint32_t)lifecycle->supervisor_pid;
  status->uptime_ms = process_uptime_ms(lifecycle->supervisor_pid);
  memory_fill(status, lifecycle->supervisor_pid);
  warnings_fill(&lifecycle->supervisor_protections, status);
  if (lifecycle_alerts_warning(lifecycle, warning, sizeof(warning)))
    warning_add(status, warning);
  return status;
}

static Core__Admin__V1__ProcessStatus *core_status(const struct lifecycle *lifecycle) {
  Core__Admin__V1__ProcessStatus *status = process_new("core");
  status->generation = lifecycle->core_generation;
  status->version = text(GATEHOUSE_VERSION);
  status->state = text("ready");
  status->pid = (uint32_t)getpid();
  status->uptime_ms = (uint64_t)(clock_monotonic_us() - lifecycle->started_us) / 1000;
  status->program = text(lifecycle->core.program);
  if (lifecycle->core.step == LIFECYCLE_CORE_PROBATION)
    status->reason = text(lifecycle->core.versions->phase == LIFECYCLE_UPGRADE_PROBATION ? "a new program, on probation"
                                                                                         : "a new program, starting");
  status->restarts = lifecycle->core_starts > 0 ? lifecycle->core_starts - 1 : 0;
  memory_fill(status, getpid());
  warnings_fill(&lifecycle->core_protections, status);
  status->last_exit = text(lifecycle->core_last_exit);
  status->last_exit_at_ms = lifecycle->core_last_exit_at_ms;
  return status;
}

/* A second process that does not run, or has not begun to, is no process. */
static bool is_shown(const struct lifecycle_module *module) {
  return module->role == LIFECYCLE_CURRENT || module->pid;
}

static int by_id(const void *a, const void *b) {
  const struct lifecycle_module *const *left = a, *const *right = b;
  return strcmp((*left)->id, (*right)->id);
}

void lifecycle_status_fill(struct lifecycle *lifecycle, Core__Admin__V1__GetStatusResponse *response) {
  struct lifecycle_module *module, **sorted;
  size_t count = 0, listener_count = 0, ready = 0, current = 0;
  STAILQ_FOREACH(module, &lifecycle->modules, entry) {
    count++;
    listener_count += module->listener_count;
  }
  sorted = base_calloc(count + 1, sizeof(*sorted));
  count = 0;
  STAILQ_FOREACH(module, &lifecycle->modules, entry)
  if (is_shown(module))
    sorted[count++] = module;
  qsort(sorted, count, sizeof(*sorted), by_id);

  response->processes = calloc(count + 2, sizeof(*response->processes));
  response->listeners = calloc(listener_count + 1, sizeof(*response->listeners));
  if (!response->processes || !response->listeners)
    abort();
  if (lifecycle->control)
    response->processes[response->n_processes++] = supervisor_status(lifecycle);
  response->processes[response->n_processes++] = core_status(lifecycle);
  for (size_t i = 0; i < count; i++) {
    response->processes[response->n_processes++] = module_status(sorted[i]);
    if (sorted[i]->role != LIFECYCLE_CURRENT)
      continue;
    current++;
    ready += sorted[i]->instance && sorted[i]->instance->state == LIFECYCLE_READY;
    for (size_t l = 0; l < sorted[i]->listener_count; l++) {
      const struct lifecycle_listener *listener = &sorted[i]->listeners[l];
      Core__Admin__V1__ListenerStatus *status = calloc(1, sizeof(*status));
      char address[160];
      if (!status)
        abort();
      core__admin__v1__listener_status__init(status);
      snprintf(address, sizeof(address), strchr(listener->address, ':') ? "[%s]:%u" : "%s:%u", listener->address,
               listener->port);
      status->name = text(listener->name);
      status->address = text(listener->port ? address : listener->address);
      status->module_id = text(sorted[i]->id);
      response->listeners[response->n_listeners++] = status;
    }
  }
  response->health = text(ready == current ? "ok" : "degraded");
  base_free(sorted);
}

static void history_fill(const struct lifecycle_module *of, Core__Admin__V1__DescribeModuleResponse *response) {
  const struct lifecycle_module *module = of->versions->first; /* one history for all its processes */
  size_t count = module->history_count < LIFECYCLE_HISTORY_MAX ? module->history_count : LIFECYCLE_HISTORY_MAX;
  response->history = calloc(count + 1, sizeof(*response->history));
  if (!response->history)
    abort();
  for (size_t i = 0; i < count; i++) {
    const struct lifecycle_transition *from = &module->history[(module->history_count - 1 - i) % LIFECYCLE_HISTORY_MAX];
    Core__Admin__V1__ModuleTransition *to = calloc(1, sizeof(*to));
    if (!to)
      abort();
    core__admin__v1__module_transition__init(to);
    to->at_ms = from->at_ms;
    to->generation = from->generation;
    to->from_state = text(lifecycle_state_name(from->from));
    to->to_state = text(lifecycle_state_name(from->to));
    to->cause = text(from->cause);
    response->history[response->n_history++] = to;
  }
}

static Core__Admin__V1__ModuleDeath *death_new(const struct lifecycle_death *from) {
  Core__Admin__V1__ModuleDeath *to = calloc(1, sizeof(*to));
  if (!to)
    abort();
  core__admin__v1__module_death__init(to);
  to->at_ms = from->at_ms;
  to->generation = from->generation;
  to->cause = text(lifecycle_death_cause_name(from->cause));
  to->kind = text(lifecycle_death_kind_name(from->was_ready));
  to->detail = text(from->detail);
  to->ready_ms = from->ready_ms;
  to->last_words = calloc(from->word_count + 1, sizeof(*to->last_words));
  if (!to->last_words)
    abort();
  for (size_t i = 0; i < from->word_count; i++)
    to->last_words[to->n_last_words++] = text(from->words[i]);
  return to;
}

static void deaths_fill(const struct lifecycle_module *module, Core__Admin__V1__DescribeModuleResponse *response) {
  size_t count = module->recent_count < LIFECYCLE_DEATHS_SHOWN ? module->recent_count : LIFECYCLE_DEATHS_SHOWN;
  response->deaths = calloc(count + 1, sizeof(*response->deaths));
  response->death_counts = calloc(LIFECYCLE_DEATH_CAUSE_COUNT, sizeof(*response->death_counts));
  if (!response->deaths || !response->death_counts)
    abort();
  for (size_t i = 0; i < count; i++)
    response->deaths[response->n_deaths++] =
        death_new(&module->recent[(module->recent_count - 1 - i) % LIFECYCLE_DEATHS_SHOWN]);
  for (unsigned cause = 0; cause < LIFECYCLE_DEATH_CAUSE_COUNT; cause++) {
    if (module->deaths.by_cause[cause] == 0)
      continue;
    Core__Admin__V1__DeathCount *to = calloc(1, sizeof(*to));
    if (!to)
      abort();
    core__admin__v1__death_count__init(to);
    to->cause = text(lifecycle_death_cause_name((enum lifecycle_death_cause)cause));
    to->count = module->deaths.by_cause[cause];
    response->death_counts[response->n_death_counts++] = to;
  }
}

/* A deep copy of a message through its bytes. */
static ProtobufCMessage *message_copy(const ProtobufCMessage *message) {
  size_t length = protobuf_c_message_get_packed_size(message);
  uint8_t *bytes = base_alloc(length + 1);
  protobuf_c_message_pack(message, bytes);
  ProtobufCMessage *copy = protobuf_c_message_unpack(message->descriptor, NULL, length, bytes);
  base_free(bytes);
  return copy;
}

/* With room for a module's two processes and all last words. */
static Core__Admin__V1__DescribeModuleResponse *description_new(Core__Admin__V1__ProcessStatus *process) {
  Core__Admin__V1__DescribeModuleResponse *response = calloc(1, sizeof(*response));
  if (!response)
    abort();
  core__admin__v1__describe_module_response__init(response);
  response->instances = calloc(2, sizeof(*response->instances));
  response->last_words = calloc(LIFECYCLE_LAST_WORDS_MAX, sizeof(*response->last_words));
  if (!response->instances || !response->last_words)
    abort();
  response->instances[response->n_instances++] = process;
  return response;
}

/* Core and supervisor are no modules: of them there are the process and what confines it. */
static Core__Admin__V1__DescribeModuleResponse *process_describe(Core__Admin__V1__ProcessStatus *status,
                                                                 const struct lifecycle_protections *protections) {
  Core__Admin__V1__DescribeModuleResponse *response = description_new(status);
  protections_fill(protections, response);
  return response;
}

Core__Admin__V1__DescribeModuleResponse *lifecycle_describe(struct lifecycle *lifecycle, const char *module_id,
                                                            struct error *err) {
  if (str_equal(module_id, "core")) {
    Core__Admin__V1__DescribeModuleResponse *core =
        process_describe(core_status(lifecycle), &lifecycle->core_protections);
    core->versions = lifecycle_versions_message(lifecycle->core.versions);
    return core;
  }
  if (str_equal(module_id, "supervisor") && lifecycle->control)
    return process_describe(supervisor_status(lifecycle), &lifecycle->supervisor_protections);
  struct lifecycle_module *module = lifecycle_module_named(lifecycle, module_id), *other;
  if (!module) {
    error_set(err, ERR_MODULE_UNKNOWN, NULL);
    return NULL;
  }
  Core__Admin__V1__DescribeModuleResponse *response = description_new(module_status(module));
  if ((other = lifecycle_module_other(module)) && is_shown(other))
    response->instances[response->n_instances++] = module_status(other);
  response->versions = lifecycle_versions_message(module->versions);
  response->quarantine = lifecycle_quarantine_message(module);
  if (module->instance && module->instance->descriptor)
    response->descriptor = (Core__Module__V1__ModuleDescriptor *)message_copy(&module->instance->descriptor->base);
  if (module->instance && module->instance->readiness)
    response->readiness = (Core__Module__V1__Readiness *)message_copy(&module->instance->readiness->base);
  for (size_t i = 0; i < module->last_word_count; i++)
    response->last_words[response->n_last_words++] = text(module->last_words[i]);
  protections_fill(&module->protections, response);
  history_fill(module, response);
  deaths_fill(module, response);
  return response;
}
