/* report.c: how plans ended, told to the core in batches: a few milliseconds together, never waited for. A report that
 * cannot be delivered is lost with a log line; the core then audits its plan as abandoned. */
#include <event2/event.h>
#include <string.h>

#include "modules/mcp/mcp_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"
#include "wire/nano/core/spi/catalog/v1/catalog.pb.h"

#define BATCH_MAX 64
#define FLUSH_US 5000

struct report {
  char *plan_id;
  enum mcp_report_outcome outcome;
  struct error err;
  size_t result_bytes;
  uint64_t duration_us;
};

struct mcp_reports {
  struct module *module;
  struct event *timer;
  struct report items[BATCH_MAX];
  size_t count;
};

static void reported(void *arg, const struct rpc_status *status, void *reply) {
  const core_spi_catalog_v1_ReportInvokeResponse *response = reply;
  (void)arg;
  if (status->code != RPC_OK)
    log_error_value(LOG_WARN, "mcp", "reports of plans were lost", &status->error);
  else if (response && response->unknown_plan_ids_count)
    log_event(LOG_WARN, "mcp", "the core does not know plans that were reported",
              LOG_INT("count", response->unknown_plan_ids_count));
}

static void flush(struct mcp_reports *reports) {
  struct {
    core_spi_catalog_v1_PlanReport report;
    core_spi_catalog_v1_PlanCompleted completed;
    core_spi_catalog_v1_PlanCancelled cancelled;
    core_common_v1_ErrorEnvelope error;
  } parts[BATCH_MAX];
  core_spi_catalog_v1_PlanReport list[BATCH_MAX];
  core_spi_catalog_v1_ReportInvokeRequest request = {.reports_count = (pb_size_t)reports->count, .reports = list};
  memset(parts, 0, sizeof(parts));
  if (reports->count == 0)
    return;
  for (size_t i = 0; i < reports->count; i++) {
    struct report *item = &reports->items[i];
    core_spi_catalog_v1_PlanReport *report = &parts[i].report;
    report->plan_id = item->plan_id;
    report->upstream_duration_us = item->duration_us;
    if (item->outcome == MCP_REPORT_ERROR) {
      core_common_v1_ErrorEnvelope *error = &parts[i].error;
      error->category = (core_common_v1_ErrorCategory)item->err.category;
      error->origin = (core_common_v1_ErrorOrigin)item->err.origin;
      error->code = item->err.code;
      error->message = item->err.message;
      error->retryable = item->err.retryable;
      report->which_outcome = core_spi_catalog_v1_PlanReport_error_tag;
      report->outcome.error = error;
    } else if (item->outcome == MCP_REPORT_CANCELLED) {
      report->which_outcome = core_spi_catalog_v1_PlanReport_cancelled_tag;
      report->outcome.cancelled = &parts[i].cancelled;
    } else {
      parts[i].completed.is_error = item->outcome == MCP_REPORT_TOOL_FAILED;
      parts[i].completed.result_bytes = item->result_bytes;
      report->which_outcome = core_spi_catalog_v1_PlanReport_completed_tag;
      report->outcome.completed = &parts[i].completed;
    }
    list[i] = *report;
  }
  if (module_is_attached(reports->module) && module_spi(reports->module))
    module_spi_call(reports->module, SPI_CATALOG_REPORT_INVOKE, &request, 0, reported, NULL);
  else
    log_event(LOG_WARN, "mcp", "reports of plans were lost: no core", LOG_INT("count", reports->count));
  for (size_t i = 0; i < reports->count; i++)
    base_free(reports->items[i].plan_id);
  reports->count = 0;
}

static void on_timer(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  flush(arg);
}

struct mcp_reports *mcp_reports_create(struct module *module) {
  struct mcp_reports *reports = BASE_NEW(struct mcp_reports);
  reports->module = module;
  reports->timer = evtimer_new(module_event_base(module), on_timer, reports);
  return reports;
}

void mcp_reports_free(struct mcp_reports **holder) {
  struct mcp_reports *reports = BASE_TAKE(*holder);
  if (!reports)
    return;
  for (size_t i = 0; i < reports->count; i++)
    base_free(reports->items[i].plan_id);
  event_free(reports->timer);
  base_free(reports);
}

void mcp_report(struct mcp_reports *reports, const char *plan_id, enum mcp_report_outcome outcome,
                const struct error *err, size_t result_bytes, uint64_t duration_us) {
  const struct timeval delay = {.tv_usec = FLUSH_US};
  reports->items[reports->count++] = (struct report){.plan_id = base_strdup(plan_id),
                                                     .outcome = outcome,
                                                     .err = err ? *err : (struct error){0},
                                                     .result_bytes = result_bytes,
                                                     .duration_us = duration_us};
  if (reports->count == BATCH_MAX)
    flush(reports);
  else if (reports->count == 1)
    evtimer_add(reports->timer, &delay);
}
