/* run_status.c: `status`, `module list` and `metrics`: how the gateway is. */
#include <stdio.h>
#include <string.h>

#include "sdk/base/clock.h"
#include "sdk/base/str.h"
#include "supervisor/ctl/ctl_internal.h"
#include "wire/pbc/core/admin/v1/admin.pb-c.h"

#define WATCH_PAUSE_MS 2000

static enum ctl_colour colour_of(const char *state) {
  static const struct {
    const char *state;
    enum ctl_colour colour;
  } colours[] = {{"ready", CTL_COLOUR_GOOD},
                 {"ok", CTL_COLOUR_GOOD},
                 {"failed", CTL_COLOUR_BAD},
                 {"down", CTL_COLOUR_BAD},
                 {"quarantined", CTL_COLOUR_BAD}};
  for (size_t i = 0; i < sizeof(colours) / sizeof(colours[0]); i++)
    if (str_equal(colours[i].state, state))
      return colours[i].colour;
  return CTL_COLOUR_WARN;
}

/* Why it is not ready, if so; then how the instance before ended. */
static void reason_write(const Core__Admin__V1__ProcessStatus *process, struct buf *target) {
  char ago[32];
  bool told = process->degraded || !str_equal(process->state, "ready");
  bool reason = process->reason[0] && told && !str_equal(process->reason, process->last_exit);
  if (reason)
    buf_append_text(target, process->reason);
  if (!process->last_exit[0])
    return;
  buf_printf(target, "%s%s", reason ? "; " : "", process->last_exit);
  int64_t since_ms = clock_wall_ms() - process->last_exit_at_ms;
  if (process->last_exit_at_ms > 0 && since_ms >= 0) {
    ctl_duration_format((uint64_t)since_ms, ago);
    buf_printf(target, ", %s ago", ago);
  }
}

static void process_row(struct ctl_table *table, const Core__Admin__V1__ProcessStatus *process) {
  char uptime[32] = "", memory[32] = "";
  struct buf reason = {0};
  if (process->uptime_ms)
    ctl_duration_format(process->uptime_ms, uptime);
  if (process->memory_resident_bytes)
    ctl_bytes_format(process->memory_resident_bytes, memory);
  reason_write(process, &reason);
  ctl_table_cell(table, process->id);
  if (process->generation)
    ctl_table_cell_number(table, process->generation);
  else
    ctl_table_cell(table, NULL);
  ctl_table_cell(table, process->version);
  ctl_table_cell_coloured(table, process->state, colour_of(process->state));
  ctl_table_cell(table, uptime);
  ctl_table_cell_number(table, process->restarts);
  ctl_table_cell(table, memory);
  ctl_table_cell(table, reason.data);
  buf_free(&reason);
}

static void processes_write(Core__Admin__V1__ProcessStatus **processes, size_t count, bool modules_only,
                            struct buf *target) {
  static const char *const heads[] = {"ID",     "GENERATION", "VERSION", "STATE",
                                      "UPTIME", "RESTARTS",   "MEMORY",  "REASON / LAST EXIT"};
  struct ctl_table *table = ctl_table_create(heads, sizeof(heads) / sizeof(heads[0]));
  for (size_t i = 0; i < count; i++)
    if (!modules_only || (!str_equal(processes[i]->id, "supervisor") && !str_equal(processes[i]->id, "core")))
      process_row(table, processes[i]);
  ctl_table_finish(&table, target);
}

static void status_write(const Core__Admin__V1__GetStatusResponse *status, struct buf *target) {
  static const char *const heads[] = {"LISTENER", "ADDRESS", "MODULE"};
  struct buf store = {0};
  processes_write(status->processes, status->n_processes, false, target);
  buf_append_char(target, '\n');
  struct ctl_table *table = ctl_table_create(heads, 3);
  for (size_t i = 0; i < status->n_listeners; i++) {
    ctl_table_cell(table, status->listeners[i]->name);
    ctl_table_cell(table, status->listeners[i]->address);
    ctl_table_cell(table, status->listeners[i]->module_id);
  }
  if (status->n_listeners) {
    ctl_table_finish(&table, target);
    buf_append_char(target, '\n');
  }
  ctl_table_free(&table);
  for (size_t i = 0; i < status->n_processes; i++)
    for (size_t j = 0; j < status->processes[i]->n_warnings; j++) {
      buf_append_text(target, "warning: ");
      ctl_text_append_safe(target, status->processes[i]->id, strlen(status->processes[i]->id));
      buf_append_text(target, ": ");
      ctl_text_append_safe(target, status->processes[i]->warnings[j], strlen(status->processes[i]->warnings[j]));
      buf_append_char(target, '\n');
    }
  buf_printf(&store, "store: %s, %llu records, catalog as of revision %llu, event %llu", status->store_backend,
             (unsigned long long)status->record_count, (unsigned long long)status->catalog_revision,
             (unsigned long long)status->event_sequence);
  if (status->store_error[0]) {
    char since[32];
    ctl_duration_format(status->store_failing_ms, since);
    buf_printf(&store, "; takes no writes for %s (%s)", since, status->store_error);
  }
  ctl_text_append_safe(target, store.data, store.length);
  buf_append_text(target, "\nhealth: ");
  ctl_text_append_safe(target, status->health, strlen(status->health));
  buf_append_char(target, '\n');
  buf_free(&store);
}

static int show_once(struct ctl *ctl, bool clear) {
  const Core__Admin__V1__GetStatusRequest request = CORE__ADMIN__V1__GET_STATUS_REQUEST__INIT;
  int status;
  Core__Admin__V1__GetStatusResponse *reply = ctl_call_or_fail(ctl, "StatusService/GetStatus", &request.base, &status);
  if (!reply)
    return status;
  if (ctl->output != CTL_OUTPUT_TABLE) {
    status = ctl_print_message(ctl, &reply->base);
  } else {
    struct buf text = {0};
    if (clear)
      buf_append_text(&text, "\033[H\033[2J");
    status_write(reply, &text);
    status = ctl_print(&text);
    buf_free(&text);
  }
  if (status == CTL_EXIT_OK && !str_equal(reply->health, "ok"))
    status = CTL_EXIT_DEGRADED;
  ctl_message_free(reply);
  return status;
}

int ctl_run_status(struct ctl *ctl) {
  if (!ctl_has(ctl, "watch"))
    return show_once(ctl, false);
  /* A core that is away is worth watching for; an output that nobody reads is not. */
  bool clear = ctl->output == CTL_OUTPUT_TABLE && ctl_terminal_width() > 0;
  for (;;) {
    int status = show_once(ctl, clear);
    if (status == CTL_EXIT_ENVIRONMENT)
      return status;
    ctl_sleep(ctl, WATCH_PAUSE_MS);
  }
}

int ctl_run_module_list(struct ctl *ctl) {
  const Core__Admin__V1__GetStatusRequest request = CORE__ADMIN__V1__GET_STATUS_REQUEST__INIT;
  int status;
  Core__Admin__V1__GetStatusResponse *reply = ctl_call_or_fail(ctl, "StatusService/GetStatus", &request.base, &status);
  if (!reply)
    return status;
  struct buf text = {0};
  if (ctl->output == CTL_OUTPUT_TABLE) {
    processes_write(reply->processes, reply->n_processes, true, &text);
    status = ctl_print(&text);
  } else {
    buf_append_text(&text, "[");
    for (size_t i = 0; i < reply->n_processes; i++) {
      const char *id = reply->processes[i]->id;
      if (str_equal(id, "supervisor") || str_equal(id, "core"))
        continue;
      buf_append_text(&text, text.length > 1 ? "," : "");
      ctl_message_json(&reply->processes[i]->base, &text);
    }
    buf_append_text(&text, "]");
    status = ctl_print_json(ctl, text.data, text.length);
  }
  buf_free(&text);
  ctl_message_free(reply);
  return status;
}

int ctl_run_metrics(struct ctl *ctl) {
  const Core__Admin__V1__GetMetricsRequest request = CORE__ADMIN__V1__GET_METRICS_REQUEST__INIT;
  int status;
  Core__Admin__V1__GetMetricsResponse *reply =
      ctl_call_or_fail(ctl, "StatusService/GetMetrics", &request.base, &status);
  if (!reply)
    return status;
  struct buf text = {0};
  buf_append_text(&text, reply->text);
  return ctl_answer(ctl, reply, &text);
}
