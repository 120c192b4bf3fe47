/* control_link.c: the core's end of the supervisor's control channel. The I/O thread reads packets and posts each to
 * the core thread; orders are sent from the core thread. End of file: the supervisor is gone, the core drains and
 * leaves (LIF-13). Messages of another core generation are dropped. */
#include <event2/event.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/lifecycle/lifecycle_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/clock.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

#define STATUS_NOT_EXECUTED 126 /* of a shell whose command it may not execute, as in most sandboxes */
#define SLOW_MS 1000            /* a loop that is later than this is worth a line */

struct lifecycle_control {
  struct lifecycle *lifecycle;
  int fd;
  struct event *event; /* I/O thread */
  uint64_t sequence;
  struct core_rpc_timer *heartbeat_timer;
  int64_t heartbeat_due_us;
  atomic_bool stopped;
};

struct control_delivery {
  struct lifecycle_control *control;
  bool closed;
  struct control_message message;
};

/* ---- sending (core thread) ---- */

static bool order_send(struct lifecycle_control *control, struct control_message *message, struct error *err) {
  message->pb.core_generation = control->lifecycle->core_generation;
  message->pb.sequence = ++control->sequence;
  enum control_result result = control_send(control->fd, message, err);
  if (result == CONTROL_DONE)
    return true;
  if (result != CONTROL_BAD)
    error_set(err, ERR_UNAVAILABLE, "the supervisor does not take orders now");
  log_event(LOG_ERROR, "lifecycle", "an order to the supervisor was not sent",
            LOG_TEXT("order", control_body_name(message->pb.which_body)));
  return false;
}

bool lifecycle_control_start(struct lifecycle_control *control, const char *module_id, struct error *err) {
  struct control_message message = {.pb = {.which_body = supervisor_control_v1_ControlMessage_start_tag}};
  str_copy(message.pb.body.start.module_id, sizeof(message.pb.body.start.module_id), module_id);
  return order_send(control, &message, err);
}

bool lifecycle_control_stage(struct lifecycle_control *control, const char *module_id, const char *process_id,
                             const char *program, uint64_t *sequence, struct error *err) {
  struct control_message message = {.pb = {.which_body = supervisor_control_v1_ControlMessage_stage_tag}};
  supervisor_control_v1_Stage *stage = &message.pb.body.stage;
  str_copy(stage->module_id, sizeof(stage->module_id), module_id);
  str_copy(stage->process_id, sizeof(stage->process_id), process_id);
  str_copy(stage->program, sizeof(stage->program), program);
  bool sent = order_send(control, &message, err);
  *sequence = control->sequence;
  return sent;
}

bool lifecycle_control_describe(struct lifecycle_control *control, const char *program, uint64_t *sequence,
                                struct error *err) {
  struct control_message message = {.pb = {.which_body = supervisor_control_v1_ControlMessage_describe_program_tag}};
  supervisor_control_v1_DescribeProgram *describe = &message.pb.body.describe_program;
  str_copy(describe->program, sizeof(describe->program), program);
  bool sent = order_send(control, &message, err);
  *sequence = control->sequence;
  return sent;
}

bool lifecycle_control_replace(struct lifecycle_control *control, const char *program, uint32_t probation_ms,
                               bool final, uint64_t *sequence, struct error *err) {
  struct control_message message = {.pb = {.which_body = supervisor_control_v1_ControlMessage_replace_core_tag}};
  supervisor_control_v1_ReplaceCore *replace = &message.pb.body.replace_core;
  str_copy(replace->program, sizeof(replace->program), program);
  replace->probation_ms = probation_ms;
  replace->final = final;
  bool sent = order_send(control, &message, err);
  *sequence = control->sequence;
  return sent;
}

void lifecycle_control_verdict(struct lifecycle_control *control, bool holds, const char *reason) {
  struct control_message message = {.pb = {.which_body = supervisor_control_v1_ControlMessage_core_verdict_tag}};
  message.pb.body.core_verdict.holds = holds;
  str_copy(message.pb.body.core_verdict.reason, sizeof(message.pb.body.core_verdict.reason), reason);
  order_send(control, &message, NULL);
}

bool lifecycle_control_promote(struct lifecycle_control *control, const char *process_id, struct error *err) {
  struct control_message message = {.pb = {.which_body = supervisor_control_v1_ControlMessage_promote_tag}};
  str_copy(message.pb.body.promote.process_id, sizeof(message.pb.body.promote.process_id), process_id);
  return order_send(control, &message, err);
}

bool lifecycle_control_end(struct lifecycle_control *control, const char *module_id, uint64_t generation,
                           struct error *err) {
  struct control_message message = {.pb = {.which_body = supervisor_control_v1_ControlMessage_stop_tag}};
  str_copy(message.pb.body.stop.module_id, sizeof(message.pb.body.stop.module_id), module_id);
  message.pb.body.stop.generation = generation;
  return order_send(control, &message, err);
}

void lifecycle_control_hold(struct lifecycle_control *control, const char *module_id, bool held, const char *reason,
                            enum error_code code) {
  struct control_message message = {.pb = {.which_body = supervisor_control_v1_ControlMessage_hold_tag}};
  supervisor_control_v1_Hold *hold = &message.pb.body.hold;
  str_copy(hold->module_id, sizeof(hold->module_id), module_id);
  hold->held = held;
  str_copy(hold->reason, sizeof(hold->reason), reason);
  if (held && code != ERR_NONE)
    str_copy(hold->code, sizeof(hold->code), error_code_text(code));
  order_send(control, &message, NULL);
}

bool lifecycle_control_alert(struct lifecycle_control *control, const supervisor_control_v1_RaiseAlert *alert) {
  struct control_message message = {
      .pb = {.which_body = supervisor_control_v1_ControlMessage_raise_alert_tag, .body.raise_alert = *alert}};
  return order_send(control, &message, NULL);
}

void lifecycle_control_module_ready(struct lifecycle_control *control, const char *module_id, uint64_t generation,
                                    uint64_t config) {
  struct control_message message = {.pb = {.which_body = supervisor_control_v1_ControlMessage_module_ready_tag}};
  str_copy(message.pb.body.module_ready.module_id, sizeof(message.pb.body.module_ready.module_id), module_id);
  message.pb.body.module_ready.generation = generation;
  message.pb.body.module_ready.config = config;
  order_send(control, &message, NULL);
}

bool lifecycle_control_restart(struct lifecycle_control *control, const char *module_id, uint64_t generation,
                               struct error *err) {
  struct control_message message = {.pb = {.which_body = supervisor_control_v1_ControlMessage_restart_tag}};
  str_copy(message.pb.body.restart.module_id, sizeof(message.pb.body.restart.module_id), module_id);
  message.pb.body.restart.generation = generation;
  return order_send(control, &message, err);
}

void lifecycle_control_kill(struct lifecycle_control *control, const char *module_id, uint64_t generation, bool trace) {
  struct control_message message = {.pb = {.which_body = supervisor_control_v1_ControlMessage_kill_tag}};
  str_copy(message.pb.body.kill.module_id, sizeof(message.pb.body.kill.module_id), module_id);
  message.pb.body.kill.generation = generation;
  message.pb.body.kill.trace = trace;
  order_send(control, &message, NULL);
}

/* A sign of life for the supervisor's watchdog, twice in its period; how late the timer was is how late the loop was.
 */
static void heartbeat(void *argument) {
  struct lifecycle_control *control = argument;
  int64_t now_us = clock_monotonic_us();
  uint32_t period_ms = control->lifecycle->options.watchdog_ms / 2;
  struct control_message message = {.pb = {.which_body = supervisor_control_v1_ControlMessage_heartbeat_tag}};
  int64_t late_ms = (now_us - control->heartbeat_due_us) / 1000;
  message.pb.body.heartbeat.worst_delay_ms = late_ms > 0 ? (uint32_t)late_ms : 0;
  if (late_ms > SLOW_MS)
    log_event(LOG_WARN, "lifecycle", "the core's loop was held up", LOG_INT("milliseconds", late_ms));
  order_send(control, &message, NULL);
  control->heartbeat_due_us = now_us + (int64_t)period_ms * 1000;
  control->heartbeat_timer = core_rpc_timer_start(control->lifecycle->options.loop, period_ms, heartbeat, control);
}

void lifecycle_control_ready(struct lifecycle_control *control, uint32_t startup_ms) {
  struct control_message message = {.pb = {.which_body = supervisor_control_v1_ControlMessage_core_ready_tag}};
  message.pb.body.core_ready.startup_ms = startup_ms;
  order_send(control, &message, NULL);
  control->heartbeat_due_us = clock_monotonic_us();
  if (control->lifecycle->options.watchdog_ms > 1)
    heartbeat(control);
}

/* ---- news (core thread) ---- */

static const char *cause_name(supervisor_control_v1_ExitCause cause) {
  static const char *const names[] = {"unknown",         "left",          "left",     "signal",         "stopped",
                                      "killed by order", "start timeout", "watchdog", "not executable", "memory limit"};
  return (size_t)cause < sizeof(names) / sizeof(names[0]) ? names[cause] : "unknown";
}

void lifecycle_exit_text(char *target, size_t target_bytes, supervisor_control_v1_ExitCause cause, int32_t status,
                         int32_t signal_number) {
  if (signal_number)
    snprintf(target, target_bytes, "%s %d (%s)", cause_name(cause), signal_number,
             sigabbrev_np(signal_number) ? sigabbrev_np(signal_number) : "?");
  else if (cause == supervisor_control_v1_ExitCause_EXIT_CAUSE_CLEAN ||
           cause == supervisor_control_v1_ExitCause_EXIT_CAUSE_STATUS)
    snprintf(target, target_bytes, "%s with status %d%s", cause_name(cause), status,
             status == STATUS_NOT_EXECUTED ? ": it could not start a program (sandbox.profile?)" : "");
  else
    str_copy(target, target_bytes, cause_name(cause));
}

static void protections_take(struct lifecycle_protections *target, const supervisor_control_v1_Protection *from,
                             size_t count) {
  target->count = 0;
  for (size_t i = 0; i < count && i < LIFECYCLE_PROTECTIONS_MAX; i++) {
    struct lifecycle_protection *protection = &target->items[target->count++];
    str_copy(protection->name, sizeof(protection->name), from[i].name);
    str_copy(protection->why, sizeof(protection->why), from[i].why);
    protection->state = from[i].state;
  }
}

static void on_hello(struct lifecycle *lifecycle, const supervisor_control_v1_Hello *hello) {
  lifecycle->supervisor_pid = hello->supervisor_pid;
  lifecycle->core_starts = hello->core_starts;
  str_copy(lifecycle->supervisor_version, sizeof(lifecycle->supervisor_version), hello->supervisor_version);
  protections_take(&lifecycle->core_protections, hello->protections, hello->protections_count);
  protections_take(&lifecycle->supervisor_protections, hello->supervisor_protections,
                   hello->supervisor_protections_count);
  str_copy(lifecycle->core.boot_id, sizeof(lifecycle->core.boot_id), hello->boot_id);
  if (hello->has_core_program) /* an older supervisor says nothing of it */
    lifecycle_core_told(lifecycle, &hello->core_program, true);
}

static void on_configured(struct lifecycle *lifecycle, const supervisor_control_v1_ConfiguredModule *news) {
  struct lifecycle_module *module = news->process_of[0]
                                        ? lifecycle_module_second(lifecycle, news->process_of, news->module_id)
                                        : lifecycle_module_ensure(lifecycle, news->module_id);
  if (!module)
    return;
  module->supervised = true;
  lifecycle_module_owner_set(module, news->uid, news->gid);
  str_copy(module->family, sizeof(module->family), news->family);
  str_copy(module->version, sizeof(module->version), news->version);
  if (!module->edition.program[0])
    str_copy(module->versions->configured_file, sizeof(module->versions->configured_file), news->binary);
  protections_take(&module->protections, news->protections, news->protections_count);
  module->listener_count = 0;
  for (pb_size_t i = 0; i < news->listeners_count && module->listener_count < 8; i++) {
    struct lifecycle_listener *listener = &module->listeners[module->listener_count++];
    str_copy(listener->name, sizeof(listener->name), news->listeners[i].name);
    str_copy(listener->address, sizeof(listener->address), news->listeners[i].address);
    listener->port = news->listeners[i].port;
  }
}

static void starts_take(struct lifecycle_module *module, uint32_t starts) {
  module->starts = starts;
  module->restarts = starts > 1 ? starts - 1 : module->restarts;
}

static void process_began(struct lifecycle_module *module, uint64_t generation, int32_t pid, uint64_t uptime_ms) {
  module->process_generation = generation;
  module->pid = pid;
  module->spawned_us = clock_monotonic_us() - (int64_t)uptime_ms * 1000;
  if (generation > module->generation_last)
    module->generation_last = generation;
  module->restart_waits = module->stays_down = false;
  core_rpc_timer_cancel(&module->process_timer);
  if (module->hold == LIFECYCLE_HOLD_NONE)
    lifecycle_module_process_watch(module);
}

/* A module that is held was started a moment before the supervisor heard of it. */
static void unwanted_end(struct lifecycle_module *module) {
  module->ordered_generation = module->process_generation;
  if (module->hold == LIFECYCLE_HOLD_QUARANTINED)
    lifecycle_control_kill(module->lifecycle->control, module->id, module->process_generation, false);
  else
    lifecycle_control_end(module->lifecycle->control, module->id, module->process_generation, NULL);
}

static void on_spawned(struct lifecycle *lifecycle, const supervisor_control_v1_Spawned *news) {
  struct lifecycle_module *module = lifecycle_module_find(lifecycle, news->module_id);
  if (!module)
    return;
  starts_take(module, news->starts);
  process_began(module, news->generation, news->pid, 0);
  if (module->hold != LIFECYCLE_HOLD_NONE || module->role == LIFECYCLE_RETIRED)
    unwanted_end(module);
  else if (lifecycle->discovery)         /* before the first list nobody's generation is known */
    lifecycle_discovery_scan(lifecycle); /* its socket may have been seen, and taken for the one before's */
}

static void last_words_keep(struct lifecycle_module *module, const char (*words)[256], size_t count) {
  for (size_t i = 0; i < module->last_word_count; i++)
    base_free(module->last_words[i]);
  module->last_word_count = 0;
  for (size_t i = 0; i < count && i < LIFECYCLE_LAST_WORDS_MAX; i++)
    module->last_words[module->last_word_count++] = base_strdup(words[i]);
}

static void next_step_tell(struct lifecycle_module *module, supervisor_control_v1_NextStep step, uint32_t delay_ms) {
  char cause[LIFECYCLE_REASON_BYTES];
  module->restart_waits = step == supervisor_control_v1_NextStep_NEXT_STEP_RESTART_LATER;
  module->restart_due_us = clock_monotonic_us() + (int64_t)delay_ms * 1000;
  module->stays_down = step == supervisor_control_v1_NextStep_NEXT_STEP_DOWN;
  if (module->restart_waits && module->instance) {
    snprintf(cause, sizeof(cause), "restart in %u ms; %.200s", delay_ms, module->fault);
    lifecycle_instance_event(module->instance, LIFECYCLE_ON_RESTART_WAITS, cause);
  }
}

static enum lifecycle_death_cause death_cause(const struct lifecycle_module *module,
                                              const supervisor_control_v1_Exited *news) {
  static const enum lifecycle_death_cause causes[] = {
      [supervisor_control_v1_ExitCause_EXIT_CAUSE_SIGNAL] = LIFECYCLE_DEATH_SIGNAL,
      [supervisor_control_v1_ExitCause_EXIT_CAUSE_START_TIMEOUT] = LIFECYCLE_DEATH_START,
      [supervisor_control_v1_ExitCause_EXIT_CAUSE_WATCHDOG] = LIFECYCLE_DEATH_PROBE,
      [supervisor_control_v1_ExitCause_EXIT_CAUSE_SPAWN] = LIFECYCLE_DEATH_PROGRAM,
      [supervisor_control_v1_ExitCause_EXIT_CAUSE_MEMORY] = LIFECYCLE_DEATH_MEMORY};
  if (module->doomed_generation == news->generation)
    return module->doom;
  if (news->cause == supervisor_control_v1_ExitCause_EXIT_CAUSE_KILLED)
    return LIFECYCLE_DEATH_SIGNAL;
  return (size_t)news->cause < sizeof(causes) / sizeof(causes[0]) ? causes[news->cause] : LIFECYCLE_DEATH_EXIT;
}

/* Stopped as ordered: by an operator, or with the gateway. */
static bool end_was_ordered(const struct lifecycle_module *module, const supervisor_control_v1_Exited *news) {
  return module->ordered_generation == news->generation ||
         news->cause == supervisor_control_v1_ExitCause_EXIT_CAUSE_STOPPED;
}

static void on_exited(struct lifecycle *lifecycle, const supervisor_control_v1_Exited *news) {
  struct lifecycle_module *module = lifecycle_module_find(lifecycle, news->module_id);
  char text[LIFECYCLE_REASON_BYTES];
  if (!module)
    return;
  if (news->generation < module->process_generation) {
    log_event(LOG_WARN, "lifecycle", "news of the end of a past generation was dropped", LOG_TEXT("module", module->id),
              LOG_INT("generation", news->generation));
    return;
  }
  lifecycle_exit_text(module->last_exit, sizeof(module->last_exit), news->cause, news->status, news->signal);
  module->last_exit_at_ms = clock_wall_ms();
  last_words_keep(module, (const char(*)[256])news->last_words, news->last_words_count);
  const char *const labels[] = {module->name, cause_name(news->cause), NULL};
  observe_count(lifecycle->options.observe, OBSERVE_MODULE_RESTARTS, labels, 1);
  if (module->process_generation == news->generation) {
    module->pid = 0;
    module->spawned_us = 0;
    core_rpc_timer_cancel(&module->process_timer);
  }
  if (!module->fault[0] || module->fault_generation != news->generation)
    lifecycle_module_fault(module, news->generation, ERR_MODULE_EXITED, "%s", module->last_exit);
  bool ordered = end_was_ordered(module, news);
  if (ordered)
    snprintf(text, sizeof(text), "ended as ordered: %s", module->last_exit);
  else
    lifecycle_account_death(module, news->generation, death_cause(module, news), module->fault, text);
  bool shown = module->instance && module->instance->generation == news->generation;
  bool wanted_back = module->plan == LIFECYCLE_PLAN_RESTART; /* it left before it was told to end */
  if (!shown && !ordered && !lifecycle_module_is_alive(module))
    lifecycle_instance_imagine(module, LIFECYCLE_DISCOVERED); /* so that its end is in the history */
  if (module->instance && module->instance->generation == news->generation)
    lifecycle_instance_end(module->instance, LIFECYCLE_ON_EXITED, text);
  if (module->ordered_generation == news->generation)
    module->plan = LIFECYCLE_PLAN_NONE;
  if (module->role != LIFECYCLE_CURRENT) {
    lifecycle_upgrade_ended(module, text);
    return;
  }
  if (!ordered)
    lifecycle_account_judge(module, text);
  if (module->hold != LIFECYCLE_HOLD_NONE || module->role != LIFECYCLE_CURRENT)
    return;
  next_step_tell(module, news->next_step, news->delay_ms);
  if (wanted_back && news->next_step == supervisor_control_v1_NextStep_NEXT_STEP_DOWN)
    lifecycle_control_start(lifecycle->control, module->id, NULL);
}

static void on_spawn_failed(struct lifecycle *lifecycle, const supervisor_control_v1_SpawnFailed *news) {
  struct lifecycle_module *module = lifecycle_module_find(lifecycle, news->module_id);
  char text[LIFECYCLE_REASON_BYTES];
  if (!module)
    return;
  snprintf(module->last_exit, sizeof(module->last_exit), "could not be started: %s in %s", news->error_name,
           news->step);
  lifecycle_module_fault(module, module->process_generation, ERR_MODULE_PROGRAM, "%s", module->last_exit);
  module->last_exit_at_ms = clock_wall_ms();
  log_event(LOG_ERROR, "lifecycle", "a module could not be started", LOG_TEXT("module", module->id),
            LOG_TEXT("error", news->error_name), LOG_TEXT("step", news->step));
  lifecycle_account_death(module, news->generation, LIFECYCLE_DEATH_PROGRAM, module->fault, text);
  if (!lifecycle_module_is_alive(module)) {
    lifecycle_instance_imagine(module, LIFECYCLE_DISCOVERED);
    lifecycle_instance_event(module->instance, LIFECYCLE_ON_EXITED, text);
  }
  if (module->role != LIFECYCLE_CURRENT) {
    lifecycle_upgrade_ended(module, text);
    return;
  }
  lifecycle_account_judge(module, text);
  if (module->hold == LIFECYCLE_HOLD_NONE && module->role == LIFECYCLE_CURRENT)
    next_step_tell(module, news->next_step, news->delay_ms);
}

static void reconfigured_tell(struct lifecycle *lifecycle) {
  if (lifecycle->options.on_reconfigured)
    lifecycle->options.on_reconfigured(lifecycle->options.arg);
}

/* What the supervisor says that it runs. A process that never became ready is given what counts now. */
static void process_edition_take(struct lifecycle_module *module, const supervisor_control_v1_ProcessEntry *news) {
  struct lifecycle_versions *versions = module->versions;
  if (str_equal(versions->configured_file, news->program)) /* it was told before: where the staged one lies */
    versions->configured_file[0] = '\0';
  if (!str_equal(module->edition.program, news->program))
    module->edition.version[0] = '\0';
  str_copy(module->edition.program, sizeof(module->edition.program), news->program);
  if (news->pid && news->config && lifecycle_config_find(versions, news->config))
    module->edition.config = news->config;
}

/* The first list also orders what is down to start: the supervisor starts no module before the core says so. */
static void on_process_entry(struct lifecycle_control *control, const supervisor_control_v1_ProcessEntry *news) {
  struct lifecycle *lifecycle = control->lifecycle;
  struct lifecycle_module *module = lifecycle_module_find(lifecycle, news->module_id);
  if (str_equal(news->module_id, "core")) {
    if (news->last_cause) {
      lifecycle_exit_text(lifecycle->core_last_exit, sizeof(lifecycle->core_last_exit), news->last_cause,
                          news->last_status, news->last_signal);
      lifecycle->core_last_exit_at_ms = news->last_exit_wall_us / 1000;
    }
  } else if (module) {
    starts_take(module, news->starts);
    if (news->role != supervisor_control_v1_ProcessRole_PROCESS_ROLE_UNSPECIFIED)
      module->role = (enum lifecycle_role)(news->role - 1);
    process_edition_take(module, news);
    lifecycle_hold_adopt(module, news->held, news->hold_reason);
    if (news->pid) {
      process_began(module, news->generation, news->pid, news->uptime_ms);
      lifecycle_account_adopt(module, news->generation, news->ready_ms);
      if (module->hold != LIFECYCLE_HOLD_NONE)
        unwanted_end(module);
    }
    if (news->last_cause) {
      lifecycle_exit_text(module->last_exit, sizeof(module->last_exit), news->last_cause, news->last_status,
                          news->last_signal);
      module->last_exit_at_ms = news->last_exit_wall_us / 1000;
      last_words_keep(module, (const char(*)[256])news->last_words, news->last_words_count);
    }
  }
  if (!news->last)
    return;
  if (!lifecycle->discovery)
    lifecycle_upgrade_reconcile(lifecycle); /* later lists tell of what this core itself ordered, */
  else
    reconfigured_tell(lifecycle); /* and come when news were lost */
  STAILQ_FOREACH(module, &lifecycle->modules, entry)
  if (module->supervised && !module->pid && module->hold == LIFECYCLE_HOLD_NONE && module->role == LIFECYCLE_CURRENT)
    lifecycle_control_start(control, module->id, NULL);
  if (!lifecycle->discovery) {
    struct error err = {0};
    lifecycle->discovery = lifecycle_discovery_start(lifecycle, &err);
    if (!lifecycle->discovery)
      log_error_value(LOG_ERROR, "lifecycle", "modules cannot be discovered", &err);
  }
}

static void on_refused(struct lifecycle *lifecycle, uint64_t sequence, const supervisor_control_v1_Refused *news) {
  lifecycle_upgrade_refused(lifecycle, sequence, news->reason);
  lifecycle_core_refused(lifecycle, sequence, news->reason);
  if (news->reason != supervisor_control_v1_Reason_REASON_ALREADY_RUNNING)
    log_event(LOG_WARN, "lifecycle", "the supervisor refused an order", LOG_TEXT("module", news->module_id),
              LOG_INT("reason", news->reason));
}

static void deliver(void *argument) {
  struct control_delivery *delivery = argument;
  struct lifecycle_control *control = delivery->control;
  struct lifecycle *lifecycle = control->lifecycle;
  const supervisor_control_v1_ControlMessage *pb = &delivery->message.pb;
  if (atomic_load(&control->stopped)) {
    base_free(delivery);
    return;
  }
  if (delivery->closed) {
    log_event(LOG_WARN, "lifecycle", "the supervisor is gone");
    if (lifecycle->options.on_shutdown)
      lifecycle->options.on_shutdown(lifecycle->options.arg);
  } else if (pb->core_generation != lifecycle->core_generation) {
    log_event(LOG_WARN, "lifecycle", "a message of another generation was dropped");
  } else {
    switch (pb->which_body) {
    case supervisor_control_v1_ControlMessage_hello_tag:
      on_hello(lifecycle, &pb->body.hello);
      break;
    case supervisor_control_v1_ControlMessage_configured_module_tag:
      on_configured(lifecycle, &pb->body.configured_module);
      break;
    case supervisor_control_v1_ControlMessage_spawned_tag:
      on_spawned(lifecycle, &pb->body.spawned);
      break;
    case supervisor_control_v1_ControlMessage_exited_tag:
      on_exited(lifecycle, &pb->body.exited);
      break;
    case supervisor_control_v1_ControlMessage_spawn_failed_tag:
      on_spawn_failed(lifecycle, &pb->body.spawn_failed);
      break;
    case supervisor_control_v1_ControlMessage_process_entry_tag:
      on_process_entry(control, &pb->body.process_entry);
      break;
    case supervisor_control_v1_ControlMessage_refused_tag:
      on_refused(lifecycle, pb->in_reply_to, &pb->body.refused);
      break;
    case supervisor_control_v1_ControlMessage_reconfigured_tag:
      reconfigured_tell(lifecycle);
      break;
    case supervisor_control_v1_ControlMessage_accepted_tag:
      lifecycle_upgrade_accepted(lifecycle, pb->in_reply_to);
      lifecycle_core_accepted(lifecycle, pb->in_reply_to);
      break;
    case supervisor_control_v1_ControlMessage_program_described_tag:
      lifecycle_core_described(lifecycle, pb->in_reply_to, &pb->body.program_described);
      break;
    case supervisor_control_v1_ControlMessage_core_program_tag:
      lifecycle_core_told(lifecycle, &pb->body.core_program, false);
      break;
    case supervisor_control_v1_ControlMessage_alert_report_tag:
      lifecycle_alerts_report(lifecycle, &pb->body.alert_report);
      break;
    default: /* notified: nothing follows from it here */
      break;
    }
  }
  base_free(delivery);
}

/* ---- reading (I/O thread) ---- */

static void on_readable(evutil_socket_t fd, short what, void *argument) {
  struct lifecycle_control *control = argument;
  (void)what;
  for (;;) {
    struct error err = {0};
    struct control_delivery *delivery = BASE_NEW(struct control_delivery);
    delivery->control = control;
    enum control_result result = control_receive((int)fd, CONTROL_FROM_SUPERVISOR, &delivery->message, &err);
    if (result == CONTROL_BAD)
      log_error_value(LOG_WARN, "lifecycle", "a bad packet on the control channel", &err);
    delivery->closed = result == CONTROL_CLOSED;
    if (delivery->closed)
      event_del(control->event);
    if ((result != CONTROL_DONE && result != CONTROL_CLOSED) ||
        !core_rpc_post(control->lifecycle->options.loop, deliver, delivery))
      base_free(delivery);
    if (result == CONTROL_AGAIN || result == CONTROL_CLOSED)
      return;
  }
}

static void read_begin(void *argument) {
  struct lifecycle_control *control = argument;
  control->event = event_new(core_rpc_io_base(control->lifecycle->options.loop), control->fd, EV_READ | EV_PERSIST,
                             on_readable, control);
  event_add(control->event, NULL);
}

static void read_end(void *argument) {
  struct lifecycle_control *control = argument;
  if (control->event)
    event_free(control->event);
  close(control->fd);
}

struct lifecycle_control *lifecycle_control_open(struct lifecycle *lifecycle, int fd, struct error *err) {
  const char *generation = getenv("GATEHOUSE_GENERATION");
  if (generation && !str_parse_u64(generation, &lifecycle->core_generation)) {
    error_set(err, ERR_ARGUMENT_INVALID, "GATEHOUSE_GENERATION is not a number");
    return NULL;
  }
  struct lifecycle_control *control = BASE_NEW(struct lifecycle_control);
  control->lifecycle = lifecycle;
  control->fd = fd;
  core_rpc_io_post(lifecycle->options.loop, read_begin, control);
  return control;
}

void lifecycle_control_stop(struct lifecycle_control *control) {
  if (!control)
    return;
  atomic_store(&control->stopped, true);
  core_rpc_timer_cancel(&control->heartbeat_timer);
  core_rpc_io_post(control->lifecycle->options.loop, read_end, control);
}

void lifecycle_control_free(struct lifecycle_control **holder) {
  base_free(BASE_TAKE(*holder));
}
