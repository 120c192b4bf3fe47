/* orders.c: what the core orders through the control channel, checked against the living generations and carried out. A
 * handler answers Accepted or Refused; news of the effect follow (link.c). */
#include <string.h>

#include "sdk/base/log.h"
#include "sdk/base/str.h"
#include "supervisor/supervisor_internal.h"

struct order {
  uint64_t sequence;
  unsigned condition;
  int64_t at_ms;
  char module_id[64]; /* of a process, as everywhere but in Stage */
  char process_id[64], program[256];
  uint64_t generation, config;
  uint32_t grace_ms;
  uint32_t probation_ms;
  bool held, trace, final, holds;
  char reason[CORE_WHY_BYTES], code[CHILD_CODE_BYTES];
};

static void refuse(struct supervisor *supervisor, const struct order *order, supervisor_control_v1_Reason reason) {
  supervisor_control_v1_Refused *refused = &LINK_BEGIN(supervisor, refused, order->sequence)->body.refused;
  refused->reason = reason;
  str_copy(refused->module_id, sizeof(refused->module_id), order->module_id);
  log_event(LOG_WARN, "supervisor", "an order was refused", LOG_TEXT("module", order->module_id),
            LOG_INT("reason", reason));
  link_say(supervisor);
}
#define REFUSE(reason_) refuse(supervisor, order, supervisor_control_v1_Reason_REASON_##reason_)

static void accept_order(struct supervisor *supervisor, const struct order *order) {
  LINK_BEGIN(supervisor, accepted, order->sequence);
  link_say(supervisor);
}

/* The module that an order names; refused and NULL when there is none or orders are no longer taken. */
static struct child *named(struct supervisor *supervisor, const struct order *order) {
  struct child *child = supervisor_child_find(supervisor, order->module_id);
  if (!child || child->is_core)
    REFUSE(UNKNOWN_MODULE);
  else if (supervisor->phase != SUPERVISOR_RUNNING)
    REFUSE(SHUTTING_DOWN);
  else
    return child;
  return NULL;
}

/* The same, when its living generation is the one that is meant. */
static struct child *living(struct supervisor *supervisor, const struct order *order) {
  struct child *child = named(supervisor, order);
  if (!child)
    return NULL;
  if (child->generation != order->generation)
    REFUSE(STALE_GENERATION);
  else if (!child_is_running(child) && child->state != CHILD_BACKOFF)
    REFUSE(NOT_RUNNING);
  else
    return child;
  return NULL;
}

static void on_core_ready(struct supervisor *supervisor, const struct order *order) {
  (void)order;
  child_happens(&supervisor->children[0], CHILD_EVENT_READY);
  core_program_happens(supervisor, CORE_EVENT_READY, "");
  supervisor_child_notified(&supervisor->children[0]);
}

static void on_heartbeat(struct supervisor *supervisor, const struct order *order) {
  (void)order;
  child_happens(&supervisor->children[0], CHILD_EVENT_ALIVE);
}

static void on_start(struct supervisor *supervisor, const struct order *order) {
  struct child *child = named(supervisor, order);
  if (!child)
    return;
  if (child->held || child->role == CHILD_RETIRED)
    REFUSE(HELD);
  else if (child->state == CHILD_STARTING || child->state == CHILD_UP)
    REFUSE(ALREADY_RUNNING);
  else {
    accept_order(supervisor, order);
    child->restart_wanted = true; /* of one that is stopping; the others start now */
    backoff_reset(&child->backoff);
    child_happens(child, CHILD_EVENT_START);
  }
}

static void on_stop(struct supervisor *supervisor, const struct order *order) {
  struct child *child = living(supervisor, order);
  if (!child)
    return;
  accept_order(supervisor, order);
  child_stop(child, order->grace_ms, false);
}

static void on_restart(struct supervisor *supervisor, const struct order *order) {
  struct child *child = living(supervisor, order);
  if (!child)
    return;
  if (child->held) {
    REFUSE(HELD);
    return;
  }
  accept_order(supervisor, order);
  backoff_reset(&child->backoff);
  if (child->state == CHILD_BACKOFF)
    child_happens(child, CHILD_EVENT_START);
  else
    child_stop(child, order->grace_ms, true);
}

static void on_kill(struct supervisor *supervisor, const struct order *order) {
  struct child *child = living(supervisor, order);
  if (!child)
    return;
  accept_order(supervisor, order);
  child_happens(child, order->trace ? CHILD_EVENT_TRACE : CHILD_EVENT_KILL);
}

static void on_hold(struct supervisor *supervisor, const struct order *order) {
  struct child *child = named(supervisor, order);
  if (!child)
    return;
  accept_order(supervisor, order);
  child_hold(child, order->held, order->reason, order->code);
  refusals_update(supervisor);
}

static void on_module_ready(struct supervisor *supervisor, const struct order *order) {
  struct child *child = supervisor_child_find(supervisor, order->module_id);
  if (!child || child->is_core || child->generation != order->generation || !child_is_running(child))
    return;
  child->config_given = order->config;
  child_proven(child);
}

static void on_stage(struct supervisor *supervisor, const struct order *order) {
  const struct child *child = named(supervisor, order);
  if (!child)
    return;
  supervisor_control_v1_Reason reason = process_stage(supervisor, order->module_id, order->process_id, order->program);
  if (reason != supervisor_control_v1_Reason_REASON_UNSPECIFIED) {
    refuse(supervisor, order, reason);
    return;
  }
  accept_order(supervisor, order);
  link_say_configured(supervisor, supervisor_child_find(supervisor, order->process_id));
}

static void on_promote(struct supervisor *supervisor, const struct order *order) {
  struct child *child = named(supervisor, order);
  if (!child)
    return;
  process_promote(supervisor, child);
  accept_order(supervisor, order);
}

static void on_describe(struct supervisor *supervisor, const struct order *order) {
  supervisor_control_v1_Reason reason = supervisor->phase == SUPERVISOR_RUNNING
                                            ? core_describe_begin(supervisor, order->program, order->sequence)
                                            : supervisor_control_v1_Reason_REASON_SHUTTING_DOWN;
  if (reason != supervisor_control_v1_Reason_REASON_UNSPECIFIED)
    refuse(supervisor, order, reason);
  else
    accept_order(supervisor, order);
}

/* Accepted before the core is told to leave, so that it hears of it. */
static void on_replace(struct supervisor *supervisor, const struct order *order) {
  supervisor_control_v1_Reason reason =
      core_program_replace(supervisor, order->program, order->probation_ms, order->final);
  if (reason != supervisor_control_v1_Reason_REASON_UNSPECIFIED) {
    refuse(supervisor, order, reason);
    return;
  }
  accept_order(supervisor, order);
  child_stop(&supervisor->children[0], 0, true);
}

static void on_verdict(struct supervisor *supervisor, const struct order *order) {
  core_program_happens(supervisor, order->holds ? CORE_EVENT_HOLDS : CORE_EVENT_FAILS, order->reason);
}

/* An unknown condition is one of a newer core: nobody can have asked for it. */
static void on_alert(struct supervisor *supervisor, const struct order *order) {
  if (order->condition > 0 && order->condition <= CONFIG_ALERT_COUNT)
    alerts_raise(supervisor, (enum config_alert)(order->condition - 1), order->module_id, order->generation,
                 order->at_ms, order->reason);
}
_Static_assert((int)supervisor_control_v1_AlertCondition_ALERT_CONDITION_RECOVERED == (int)CONFIG_ALERT_RECOVERED + 1,
               "conditions are in the same order");

static void on_list(struct supervisor *supervisor, const struct order *order) {
  link_owe_list(supervisor, order->sequence);
  link_settle(supervisor);
}

static void on_shutdown(struct supervisor *supervisor, const struct order *order) {
  accept_order(supervisor, order);
  supervisor_stop(supervisor, EXIT_STATUS_OK, str_is_empty(order->reason) ? "the core asked" : order->reason);
}

/* Copies what an order says, since answers are built in the same message. */
static void copy_order(const supervisor_control_v1_ControlMessage *in, struct order *order) {
  *order = (struct order){.sequence = in->sequence};
  switch (in->which_body) {
  case supervisor_control_v1_ControlMessage_start_tag:
    str_copy(order->module_id, sizeof(order->module_id), in->body.start.module_id);
    break;
  case supervisor_control_v1_ControlMessage_stop_tag:
    str_copy(order->module_id, sizeof(order->module_id), in->body.stop.module_id);
    order->generation = in->body.stop.generation;
    order->grace_ms = in->body.stop.grace_ms;
    break;
  case supervisor_control_v1_ControlMessage_restart_tag:
    str_copy(order->module_id, sizeof(order->module_id), in->body.restart.module_id);
    order->generation = in->body.restart.generation;
    order->grace_ms = in->body.restart.grace_ms;
    break;
  case supervisor_control_v1_ControlMessage_kill_tag:
    str_copy(order->module_id, sizeof(order->module_id), in->body.kill.module_id);
    order->generation = in->body.kill.generation;
    order->trace = in->body.kill.trace;
    break;
  case supervisor_control_v1_ControlMessage_hold_tag:
    str_copy(order->module_id, sizeof(order->module_id), in->body.hold.module_id);
    order->held = in->body.hold.held;
    str_copy(order->reason, sizeof(order->reason), in->body.hold.reason);
    str_copy(order->code, sizeof(order->code), in->body.hold.code);
    break;
  case supervisor_control_v1_ControlMessage_module_ready_tag:
    str_copy(order->module_id, sizeof(order->module_id), in->body.module_ready.module_id);
    order->generation = in->body.module_ready.generation;
    order->config = in->body.module_ready.config;
    break;
  case supervisor_control_v1_ControlMessage_stage_tag:
    str_copy(order->module_id, sizeof(order->module_id), in->body.stage.module_id);
    str_copy(order->process_id, sizeof(order->process_id), in->body.stage.process_id);
    str_copy(order->program, sizeof(order->program), in->body.stage.program);
    break;
  case supervisor_control_v1_ControlMessage_promote_tag:
    str_copy(order->module_id, sizeof(order->module_id), in->body.promote.process_id);
    break;
  case supervisor_control_v1_ControlMessage_describe_program_tag:
    str_copy(order->program, sizeof(order->program), in->body.describe_program.program);
    break;
  case supervisor_control_v1_ControlMessage_replace_core_tag:
    str_copy(order->program, sizeof(order->program), in->body.replace_core.program);
    order->probation_ms = in->body.replace_core.probation_ms;
    order->final = in->body.replace_core.final;
    break;
  case supervisor_control_v1_ControlMessage_core_verdict_tag:
    order->holds = in->body.core_verdict.holds;
    str_copy(order->reason, sizeof(order->reason), in->body.core_verdict.reason);
    break;
  case supervisor_control_v1_ControlMessage_raise_alert_tag:
    order->condition = in->body.raise_alert.condition;
    str_copy(order->module_id, sizeof(order->module_id), in->body.raise_alert.module_id);
    order->generation = in->body.raise_alert.generation;
    order->at_ms = in->body.raise_alert.at_ms;
    str_copy(order->reason, sizeof(order->reason), in->body.raise_alert.reason);
    break;
  case supervisor_control_v1_ControlMessage_shutdown_tag:
    str_copy(order->reason, sizeof(order->reason), in->body.shutdown.reason);
    break;
  default:
    break;
  }
}

static const struct {
  pb_size_t which;
  void (*handle)(struct supervisor *supervisor, const struct order *order);
} handlers[] = {
    {supervisor_control_v1_ControlMessage_core_ready_tag, on_core_ready},
    {supervisor_control_v1_ControlMessage_heartbeat_tag, on_heartbeat},
    {supervisor_control_v1_ControlMessage_start_tag, on_start},
    {supervisor_control_v1_ControlMessage_stop_tag, on_stop},
    {supervisor_control_v1_ControlMessage_restart_tag, on_restart},
    {supervisor_control_v1_ControlMessage_kill_tag, on_kill},
    {supervisor_control_v1_ControlMessage_hold_tag, on_hold},
    {supervisor_control_v1_ControlMessage_module_ready_tag, on_module_ready},
    {supervisor_control_v1_ControlMessage_stage_tag, on_stage},
    {supervisor_control_v1_ControlMessage_promote_tag, on_promote},
    {supervisor_control_v1_ControlMessage_describe_program_tag, on_describe},
    {supervisor_control_v1_ControlMessage_replace_core_tag, on_replace},
    {supervisor_control_v1_ControlMessage_core_verdict_tag, on_verdict},
    {supervisor_control_v1_ControlMessage_raise_alert_tag, on_alert},
    {supervisor_control_v1_ControlMessage_list_processes_tag, on_list},
    {supervisor_control_v1_ControlMessage_shutdown_tag, on_shutdown},
};

void orders_handle(struct supervisor *supervisor) {
  struct order order;
  const supervisor_control_v1_ControlMessage *in = &supervisor->link.message.pb;
  if (in->core_generation != supervisor->link.core_generation) {
    log_event(LOG_WARN, "supervisor", "a message of another core generation was dropped",
              LOG_INT("generation", in->core_generation));
    return;
  }
  pb_size_t which = in->which_body;
  copy_order(in, &order);
  for (size_t i = 0; i < sizeof(handlers) / sizeof(handlers[0]); i++)
    if (handlers[i].which == which)
      handlers[i].handle(supervisor, &order);
}
