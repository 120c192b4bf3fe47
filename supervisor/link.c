/* link.c: the supervisor's end of the control channel. Orders come in, for orders.c to carry out; news go out. A core
 * that does not read loses news but not the truth: when the channel takes messages again, the whole process list is
 * sent, and it says everything that the lost news said; what was said of the core's program is owed by itself.
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

message *link_begin(struct supervisor *supervisor, pb_size_t which, uint64_t reply_to) {
  message *out = &supervisor->link.message.pb;
  memset(out, 0, sizeof(*out));
  out->core_generation = supervisor->link.core_generation;
  out->in_reply_to = reply_to;
  out->which_body = which;
  return out;
}

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
  supervisor_control_v1_Hello *hello = &LINK_BEGIN(supervisor, hello, 0)->body.hello;
  str_copy(hello->boot_id, sizeof(hello->boot_id), supervisor->boot_id);
  str_copy(hello->supervisor_version, sizeof(hello->supervisor_version), GATEHOUSE_VERSION);
  str_copy(hello->config_path, sizeof(hello->config_path), config->path);
  str_copy(hello->run_dir, sizeof(hello->run_dir), config->run_dir);
  str_copy(hello->state_dir, sizeof(hello->state_dir), config->state_dir);
  hello->module_count = reload_module_count(supervisor);
  hello->supervisor_pid = getpid();
  hello->core_starts = supervisor->children[0].starts;
  core_program_fill(supervisor, &hello->core_program);
  hello->has_core_program = true;
  hello->protections_count = image_protections_fill(hello->protections, &supervisor->children[0].image.sandbox);
  hello->supervisor_protections_count =
      image_protections_fill(hello->supervisor_protections, &supervisor->privileges.self);
}

static void build_configured(struct supervisor *supervisor, const struct child *child) {
  supervisor_control_v1_ConfiguredModule *out = &LINK_BEGIN(supervisor, configured_module, 0)->body.configured_module;
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
      &LINK_BEGIN(supervisor, process_entry, supervisor->link.reply_to)->body.process_entry;
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

/* Sends the message that was built. False: it is owed still, since the channel is full. */
static bool pay(struct supervisor *supervisor, bool *owed) {
  *owed = flush_message(supervisor) == CONTROL_AGAIN;
  if (*owed)
    event_add(&supervisor->link.write_event, NULL);
  return !*owed;
}

/* Sends what is owed until it is all said or the channel is full. */
void link_settle(struct supervisor *supervisor) {
  struct link *link = &supervisor->link;
  if (link->fd >= 0 && link->core_program_owed && link->cursor > 0) { /* the Hello says it as well */
    core_program_fill(supervisor, &LINK_BEGIN(supervisor, core_program, 0)->body.core_program);
    if (!pay(supervisor, &link->core_program_owed))
      return;
  }
  if (link->fd >= 0 && link->alerts_owed && link->cursor > 0) {
    alerts_report_fill(supervisor, &LINK_BEGIN(supervisor, alert_report, 0)->body.alert_report);
    if (!pay(supervisor, &link->alerts_owed))
      return;
  }
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
  if (link->fd >= 0 && link->alerts_owed) /* to a core that has just been greeted */
    link_settle(supervisor);
}

void link_owe_list(struct supervisor *supervisor, uint64_t reply_to) {
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
void link_say(struct supervisor *supervisor) {
  if (flush_message(supervisor) != CONTROL_AGAIN)
    return;
  link_owe_list(supervisor, 0);
  event_add(&supervisor->link.write_event, NULL);
}

/* ---- news -----------------------------------------------------------------------------------------------------------
 */

void link_say_configured(struct supervisor *supervisor, const struct child *child) {
  if (supervisor->link.fd < 0)
    return;
  build_configured(supervisor, child);
  link_say(supervisor);
}

void link_say_core_program(struct supervisor *supervisor) {
  supervisor->link.core_program_owed = true;
  link_settle(supervisor);
}

void link_say_alerts(struct supervisor *supervisor) {
  supervisor->link.alerts_owed = true;
  link_settle(supervisor);
}

void link_say_spawned(struct supervisor *supervisor, const struct child *child) {
  if (supervisor->link.fd < 0 || child->is_core)
    return;
  supervisor_control_v1_Spawned *spawned = &LINK_BEGIN(supervisor, spawned, 0)->body.spawned;
  str_copy(spawned->module_id, sizeof(spawned->module_id), child->id);
  spawned->generation = child->generation;
  spawned->pid = child->pid;
  spawned->starts = child->starts;
  link_say(supervisor);
}

void link_say_notified(struct supervisor *supervisor, const struct child *child) {
  if (supervisor->link.fd < 0 || child->is_core)
    return;
  supervisor_control_v1_Notified *notified = &LINK_BEGIN(supervisor, notified, 0)->body.notified;
  str_copy(notified->module_id, sizeof(notified->module_id), child->id);
  notified->generation = child->generation;
  notified->ready = child->ready;
  str_copy(notified->status, sizeof(notified->status), child->status);
  link_say(supervisor);
}

void link_say_reconfigured(struct supervisor *supervisor) {
  if (supervisor->link.fd < 0)
    return;
  LINK_BEGIN(supervisor, reconfigured, 0);
  link_say(supervisor);
}

static void say_spawn_failed(struct supervisor *supervisor, const struct child *child,
                             const struct child_death *death) {
  supervisor_control_v1_SpawnFailed *failed = &LINK_BEGIN(supervisor, spawn_failed, 0)->body.spawn_failed;
  str_copy(failed->module_id, sizeof(failed->module_id), child->id);
  failed->generation = death->generation;
  str_copy(failed->error_name, sizeof(failed->error_name), death->error_name ? death->error_name : "unknown");
  str_copy(failed->step, sizeof(failed->step), death->step);
  failed->next_step = death->next_step;
  failed->delay_ms = death->delay_ms;
  link_say(supervisor);
}

void link_say_death(struct supervisor *supervisor, const struct child *child, const struct child_death *death) {
  if (supervisor->link.fd < 0 || child->is_core)
    return;
  if (death->cause == supervisor_control_v1_ExitCause_EXIT_CAUSE_SPAWN) {
    say_spawn_failed(supervisor, child, death);
    return;
  }
  supervisor_control_v1_Exited *exited = &LINK_BEGIN(supervisor, exited, 0)->body.exited;
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
  link_say(supervisor);
}

/* ---- reading and writing
 * ---------------------------------------------------------------------------------------------
 */

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
      orders_handle(supervisor);
    else if (link->bad_messages++ < BAD_MESSAGES_LOGGED)
      log_error_value(LOG_WARN, "supervisor", "a control message was refused", &err);
  }
}

static void on_writable(evutil_socket_t fd, short what, void *context) {
  (void)fd;
  (void)what;
  link_settle(context);
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
  link->core_program_owed = false;
  link->alerts_owed = supervisor->alerts.configured;
  link->bad_messages = 0;
  link->cursor = 0;
  event_add(&link->read_event, NULL);
  event_add(&link->write_event,
            NULL); /* the greeting goes out in the next turn, when the core's own state is settled */
}

void link_close(struct supervisor *supervisor) {
  struct link *link = &supervisor->link;
  if (link->fd >= 0) {
    event_end(&link->read_event);
    event_end(&link->write_event);
    close(link->fd);
  }
  if (link->core_end >= 0)
    close(link->core_end);
  link->fd = link->core_end = -1;
  link->cursor = UINT32_MAX;
}
