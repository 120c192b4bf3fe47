/* link.c: the supervisor's end of the control channel. Orders come in and are checked against the living generations;
 * news go out. A core that does not read loses news but not the truth: when the channel takes messages again, the whole
 * process list is sent, and it says everything that the lost news said.
 *
 * What is owed to a core is a cursor: 0 Hello; 1..M configured modules; M+1..M+N process entries; beyond: nothing. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "sdk/base/clock.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"
#include "supervisor/supervisor_internal.h"

#define ORDERS_PER_TURN 32
#define BAD_MESSAGES_LOGGED 10

typedef supervisor_control_v1_ControlMessage message;

static message *begin(struct supervisor *supervisor, pb_size_t which, uint64_t reply_to) {
  message *out = &supervisor->link.message.pb;
  memset(out, 0, sizeof(*out));
  out->core_generation = supervisor->link.core_generation;
  out->in_reply_to = reply_to;
  out->which_body = which;
  return out;
}
#define BEGIN(supervisor, body, reply_to)                                                                              \
  begin((supervisor), supervisor_control_v1_ControlMessage_##body##_tag, (reply_to))

static enum control_result flush_message(struct supervisor *supervisor) {
  struct link *link = &supervisor->link;
  struct error err = {0};
  link->message.pb.sequence = link->sequence + 1;
  enum control_result result = control_send(link->fd, &link->message, &err);
  if (result == CONTROL_DONE)
    link->sequence++;
  else if (result == CONTROL_BAD)
    log_error_value(LOG_ERROR, "supervisor", "a control message could not be sent", &err);
  return result;
}

/* ---- what is owed ---------------------------------------------------------------------------------------------------
 */

static unsigned cursor_entries(const struct supervisor *supervisor) {
  return (unsigned)supervisor->child_count; /* Hello and child_count - 1 configured modules come before */
}

static unsigned cursor_end(const struct supervisor *supervisor) {
  return cursor_entries(supervisor) + (unsigned)supervisor->child_count;
}

static supervisor_control_v1_RestartPolicy restart_policy(unsigned restart) {
  return (supervisor_control_v1_RestartPolicy)(restart + 1); /* the enums are in the same order */
}
_Static_assert((int)supervisor_control_v1_RestartPolicy_RESTART_POLICY_NEVER == (int)CONFIG_RESTART_NEVER + 1,
               "policies are in the same order");

static void build_hello(struct supervisor *supervisor) {
  const struct config *config = supervisor->config;
  supervisor_control_v1_Hello *hello = &BEGIN(supervisor, hello, 0)->body.hello;
  str_copy(hello->boot_id, sizeof(hello->boot_id), supervisor->boot_id);
  str_copy(hello->supervisor_version, sizeof(hello->supervisor_version), GATEHOUSE_VERSION);
  str_copy(hello->config_path, sizeof(hello->config_path), config->path);
  str_copy(hello->run_dir, sizeof(hello->run_dir), config->run_dir);
  str_copy(hello->state_dir, sizeof(hello->state_dir), config->state_dir);
  hello->module_count = reload_module_count(supervisor);
  hello->supervisor_pid = getpid();
  hello->core_starts = supervisor->children[0].starts;
  hello->protections_count = image_protections_fill(hello->protections, &supervisor->children[0].image.sandbox);
  hello->supervisor_protections_count =
      image_protections_fill(hello->supervisor_protections, &supervisor->privileges.self);
}

static void build_configured(struct supervisor *supervisor, const struct child *child) {
  supervisor_control_v1_ConfiguredModule *out = &BEGIN(supervisor, configured_module, 0)->body.configured_module;
  const struct config_module *module = child->config;
  str_copy(out->module_id, sizeof(out->module_id), module->id);
  if (child->own_config)
    str_copy(out->process_of, sizeof(out->process_of), child->module_id);
  str_copy(out->family, sizeof(out->family), module->family);
  str_copy(out->version, sizeof(out->version), module->version);
  str_copy(out->binary, sizeof(out->binary), child->image.path);
  str_copy(out->directory, sizeof(out->directory), child->image.directory);
  out->uid = child->image.user;
  out->gid = child->image.group;
  out->restart = restart_policy(module->restart);
  out->start_timeout_ms = (uint32_t)module->start_timeout_ms;
  out->stop_grace_ms = (uint32_t)module->stop_grace_ms;
  out->protections_count = image_protections_fill(out->protections, &child->image.sandbox);
  for (size_t i = 0; i < module->listeners.count; i++)
    for (size_t j = 0; j < supervisor->config->listeners_count; j++) {
      const struct listener *listener = &supervisor->listeners[j];
      if (!str_equal(listener->config->name, module->listeners.items[i]))
        continue;
      supervisor_control_v1_Listener *entry = &out->listeners[out->listeners_count++];
      str_copy(entry->name, sizeof(entry->name), listener->config->name);
      str_copy(entry->address, sizeof(entry->address), listener->address);
      entry->port = listener->port;
    }
}

/* Returns how many there are. */
static pb_size_t words_copy(const struct words_kept *kept, char target[WORDS_LINES][WORDS_LINE_BYTES]) {
  pb_size_t count = 0;
  for (const char *line; count < WORDS_LINES && (line = words_line(kept, count)); count++)
    str_copy(target[count], WORDS_LINE_BYTES, line);
  return count;
}

static void build_entry(struct supervisor *supervisor, const struct child *child, bool last) {
  supervisor_control_v1_ProcessEntry *entry =
      &BEGIN(supervisor, process_entry, supervisor->link.reply_to)->body.process_entry;
  str_copy(entry->module_id, sizeof(entry->module_id), child->id);
  entry->generation = child->generation;
  entry->pid = child->pid;
  entry->state = child->state == CHILD_TRACING ? supervisor_control_v1_ProcessState_PROCESS_STATE_STOPPING
                                               : (supervisor_control_v1_ProcessState)(child->state + 1);
  if (child_is_running(child))
    entry->uptime_ms = (uint64_t)(clock_monotonic_us() - child->spawned_us) / 1000;
  entry->ready_ms = child->proven_us ? (uint64_t)(clock_monotonic_us() - child->proven_us) / 1000 + 1 : 0;
  entry->starts = child->starts;
  entry->deaths = child->deaths;
  entry->held = child->held;
  str_copy(entry->hold_reason, sizeof(entry->hold_reason), child->hold_reason);
  str_copy(entry->status, sizeof(entry->status), child->status);
  entry->last_cause = child->last_death.cause;
  entry->last_status = child->last_death.status;
  entry->last_signal = child->last_death.signal;
  entry->last_exit_wall_us = child->last_death.wall_us;
  entry->last_exit_generation = child->last_death.generation;
  entry->last_words_count = words_copy(&child->last_words, entry->last_words);
  if (!child->is_core)
    entry->role = (supervisor_control_v1_ProcessRole)(child->role + 1);
  str_copy(entry->program, sizeof(entry->program), child->program);
  entry->config = child->config_given;
  entry->last = last;
}
_Static_assert((int)supervisor_control_v1_ProcessState_PROCESS_STATE_BACKOFF == (int)CHILD_BACKOFF + 1,
               "states are in the same order");
_Static_assert((int)supervisor_control_v1_ProcessRole_PROCESS_ROLE_RETIRED == (int)CHILD_RETIRED + 1,
               "roles are in the same order");

static void build_owed(struct supervisor *supervisor) {
  unsigned cursor = supervisor->link.cursor, entries = cursor_entries(supervisor);
  if (cursor == 0)
    build_hello(supervisor);
  else if (cursor < entries)
    build_configured(supervisor, &supervisor->children[cursor]);
  else
    build_entry(supervisor, &supervisor->children[cursor - entries], reload_is_last(supervisor, cursor - entries));
}

/* Sends what is owed until it is all said or the channel is full. */
static void settle_debt(struct supervisor *supervisor) {
  struct link *link = &supervisor->link;
  while (link->fd >= 0 && link->cursor < cursor_end(supervisor)) {
    if (reload_is_gone(supervisor, link->cursor)) {
      link->cursor++;
      continue;
    }
    build_owed(supervisor);
    enum control_result result = flush_message(supervisor);
    if (result == CONTROL_AGAIN) {
      event_add(&link->write_event, NULL);
      return;
    }
    if (result == CONTROL_CLOSED)
      return; /* the core is dying: its exit follows */
    link->cursor++;
  }
}

static void owe_list(struct supervisor *supervisor, uint64_t reply_to) {
  struct link *link = &supervisor->link;
  if (link->cursor >= cursor_end(supervisor)) {
    link->cursor = cursor_entries(supervisor);
    link->reply_to = reply_to;
  }
}

void link_child_added(struct supervisor *supervisor) {
  struct link *link = &supervisor->link;
  unsigned entries = cursor_entries(supervisor);
  if (link->cursor >= cursor_end(supervisor))
    link->cursor = UINT32_MAX; /* nothing is owed */
  else if (link->cursor >= entries)
    link->cursor = entries; /* the list begins anew, after what says what the new one is */
}

/* Sends the message that was built; when the channel is full, the list is owed instead. */
static void say(struct supervisor *supervisor) {
  if (flush_message(supervisor) != CONTROL_AGAIN)
    return;
  owe_list(supervisor, 0);
  event_add(&supervisor->link.write_event, NULL);
}

/* ---- news -----------------------------------------------------------------------------------------------------------
 */

void link_say_configured(struct supervisor *supervisor, const struct child *child) {
  if (supervisor->link.fd < 0)
    return;
  build_configured(supervisor, child);
  say(supervisor);
}

void link_say_spawned(struct supervisor *supervisor, const struct child *child) {
  if (supervisor->link.fd < 0 || child->is_core)
    return;
  supervisor_control_v1_Spawned *spawned = &BEGIN(supervisor, spawned, 0)->body.spawned;
  str_copy(spawned->module_id, sizeof(spawned->module_id), child->id);
  spawned->generation = child->generation;
  spawned->pid = child->pid;
  spawned->starts = child->starts;
  say(supervisor);
}

void link_say_notified(struct supervisor *supervisor, const struct child *child) {
  if (supervisor->link.fd < 0 || child->is_core)
    return;
  supervisor_control_v1_Notified *notified = &BEGIN(supervisor, notified, 0)->body.notified;
  str_copy(notified->module_id, sizeof(notified->module_id), child->id);
  notified->generation = child->generation;
  notified->ready = child->ready;
  str_copy(notified->status, sizeof(notified->status), child->status);
  say(supervisor);
}

void link_say_reconfigured(struct supervisor *supervisor) {
  if (supervisor->link.fd < 0)
    return;
  BEGIN(supervisor, reconfigured, 0);
  say(supervisor);
}

static void say_spawn_failed(struct supervisor *supervisor, const struct child *child,
                             const struct child_death *death) {
  supervisor_control_v1_SpawnFailed *failed = &BEGIN(supervisor, spawn_failed, 0)->body.spawn_failed;
  str_copy(failed->module_id, sizeof(failed->module_id), child->id);
  failed->generation = death->generation;
  str_copy(failed->error_name, sizeof(failed->error_name), death->error_name ? death->error_name : "unknown");
  str_copy(failed->step, sizeof(failed->step), death->step);
  failed->next_step = death->next_step;
  failed->delay_ms = death->delay_ms;
  say(supervisor);
}

void link_say_death(struct supervisor *supervisor, const struct child *child, const struct child_death *death) {
  if (supervisor->link.fd < 0 || child->is_core)
    return;
  if (death->cause == supervisor_control_v1_ExitCause_EXIT_CAUSE_SPAWN) {
    say_spawn_failed(supervisor, child, death);
    return;
  }
  supervisor_control_v1_Exited *exited = &BEGIN(supervisor, exited, 0)->body.exited;
  str_copy(exited->module_id, sizeof(exited->module_id), child->id);
  exited->generation = death->generation;
  exited->pid = death->pid;
  exited->cause = death->cause;
  exited->status = death->status;
  exited->signal = death->signal;
  exited->uptime_ms = death->uptime_ms;
  exited->was_ready = death->was_ready;
  exited->next_step = death->next_step;
  exited->delay_ms = death->delay_ms;
  exited->last_words_count = words_copy(&child->words.kept, exited->last_words);
  say(supervisor);
}

/* ---- orders ---------------------------------------------------------------------------------------------------------
 */

struct order {
  uint64_t sequence;
  char module_id[64]; /* of a process, as everywhere but in Stage */
  char process_id[64], program[256];
  uint64_t generation, config;
  uint32_t grace_ms;
  bool held, trace;
  char reason[CHILD_TEXT_BYTES], code[CHILD_CODE_BYTES];
};

static void refuse(struct supervisor *supervisor, const struct order *order, supervisor_control_v1_Reason reason) {
  supervisor_control_v1_Refused *refused = &BEGIN(supervisor, refused, order->sequence)->body.refused;
  refused->reason = reason;
  str_copy(refused->module_id, sizeof(refused->module_id), order->module_id);
  log_event(LOG_WARN, "supervisor", "an order was refused", LOG_TEXT("module", order->module_id),
            LOG_INT("reason", reason));
  say(supervisor);
}
#define REFUSE(reason_) refuse(supervisor, order, supervisor_control_v1_Reason_REASON_##reason_)

static void accept_order(struct supervisor *supervisor, const struct order *order) {
  BEGIN(supervisor, accepted, order->sequence);
  say(supervisor);
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

static void on_list(struct supervisor *supervisor, const struct order *order) {
  owe_list(supervisor, order->sequence);
  settle_debt(supervisor);
}

static void on_shutdown(struct supervisor *supervisor, const struct order *order) {
  accept_order(supervisor, order);
  supervisor_stop(supervisor, EXIT_STATUS_OK, str_is_empty(order->reason) ? "the core asked" : order->reason);
}

/* Copies what an order says, since answers are built in the same message. */
static void copy_order(const message *in, struct order *order) {
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
    {supervisor_control_v1_ControlMessage_list_processes_tag, on_list},
    {supervisor_control_v1_ControlMessage_shutdown_tag, on_shutdown},
};

static void handle(struct supervisor *supervisor) {
  struct order order;
  const message *in = &supervisor->link.message.pb;
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

static void on_readable(evutil_socket_t fd, short what, void *context) {
  struct supervisor *supervisor = context;
  struct link *link = &supervisor->link;
  (void)what;
  for (unsigned i = 0; i < ORDERS_PER_TURN && link->fd == fd; i++) {
    struct error err = {0};
    enum control_result result = control_receive(fd, CONTROL_FROM_CORE, &link->message, &err);
    if (result == CONTROL_AGAIN)
      return;
    if (result == CONTROL_CLOSED) { /* its exit follows, and when not it is of no use without its channel */
      event_del(&link->read_event);
      child_expect_end(&supervisor->children[0]);
      return;
    }
    if (result == CONTROL_DONE)
      handle(supervisor);
    else if (link->bad_messages++ < BAD_MESSAGES_LOGGED)
      log_error_value(LOG_WARN, "supervisor", "a control message was refused", &err);
  }
}

static void on_writable(evutil_socket_t fd, short what, void *context) {
  (void)fd;
  (void)what;
  settle_debt(context);
}

/* ---- the channel's life ---------------------------------------------------------------------------------------------
 */

void link_init(struct supervisor *supervisor) {
  supervisor->link.fd = supervisor->link.core_end = -1;
  supervisor->link.cursor = UINT32_MAX;
}

bool link_open(struct supervisor *supervisor) {
  struct link *link = &supervisor->link;
  struct error err;
  int ends[2];
  if (!control_channel_open(ends, &err)) {
    log_error_value(LOG_ERROR, "supervisor", "the core cannot be given a control channel", &err);
    return false;
  }
  link->fd = spawn_descriptor_raise(ends[0]);
  link->core_end = spawn_descriptor_raise(ends[1]);
  if (link->fd < 0 || link->core_end < 0) {
    link_close(supervisor);
    return false;
  }
  supervisor->children[0].image.inherit[0] = link->core_end;
  event_assign(&link->read_event, supervisor->base, link->fd, EV_READ | EV_PERSIST, on_readable, supervisor);
  event_assign(&link->write_event, supervisor->base, link->fd, EV_WRITE, on_writable, supervisor);
  return true;
}

void link_attach(struct supervisor *supervisor, uint64_t core_generation) {
  struct link *link = &supervisor->link;
  close(link->core_end);
  link->core_end = -1;
  link->core_generation = core_generation;
  link->sequence = link->reply_to = 0;
  link->bad_messages = 0;
  link->cursor = 0;
  event_add(&link->read_event, NULL);
  event_add(&link->write_event,
            NULL); /* the greeting goes out in the next turn, when the core's own state is settled */
}

void link_close(struct supervisor *supervisor) {
  struct link *link = &supervisor->link;
  if (link->fd >= 0) {
    if (event_initialized(&link->read_event))
      event_del(&link->read_event);
    if (event_initialized(&link->write_event))
      event_del(&link->write_event);
    close(link->fd);
  }
  if (link->core_end >= 0)
    close(link->core_end);
  link->fd = link->core_end = -1;
  link->cursor = UINT32_MAX;
}
