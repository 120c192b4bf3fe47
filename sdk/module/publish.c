/* publish.c: what the module counts, as metrics of the gateway (SPI-16): every PUBLISH_S seconds while it is attached,
 * and once more when it drains. Counters travel as what was added since the last time that the core took them, so
 * nothing is counted twice, and what a core that was away did not hear of is told to the next. A module that was not
 * granted the family observability publishes nothing. */
#include <string.h>

#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/str.h"
#include "sdk/module/module_internal.h"
#include "wire/nano/core/spi/observability/v1/observability.pb.h"

#define PUBLISH_S 10
#define DEADLINE_MS 5000
#define STATS_MAX 24           /* of the module's own; what is more is not published */
#define FIXED_METRICS 5        /* of every module */
#define BOUND_FIRST_EXPONENT 6 /* 64 microseconds */
#define BOUND_COUNT 21         /* each twice the one before: up to 67 seconds */
#define METRICS_MAX (FIXED_METRICS + STATS_MAX)

typedef core_spi_observability_v1_Metric metric_message;

/* Totals; a difference of two is what is published. */
struct totals {
  uint64_t requests, errors, latency_sum_us;
  uint64_t latency[BOUND_COUNT + 1];
  uint64_t stats[STATS_MAX];
};

struct module_publisher {
  struct event *timer;
  struct rpc_call *call;
  struct totals told, telling; /* taken by the core; under way */
};

static bool is_counter(const core_module_v1_Stat *stat) {
  return str_ends_with(stat->name, "_total");
}

static size_t stats_count(const core_module_v1_ModuleStats *stats) {
  return stats->stats_count < STATS_MAX ? stats->stats_count : STATS_MAX;
}

static void totals_take(const struct module *module, const core_module_v1_ModuleStats *stats, struct totals *totals) {
  *totals = (struct totals){
      .requests = stats->requests_total, .errors = stats->errors_total, .latency_sum_us = module->latency_sum_us};
  for (size_t i = 0; i < module->latency_used; i++) {
    size_t bound = 0;
    while (bound < BOUND_COUNT && latency_bucket_end_us(i) > UINT64_C(1) << (bound + BOUND_FIRST_EXPONENT))
      bound++;
    totals->latency[bound] += module->latency_counts[i];
  }
  for (size_t i = 0; i < stats_count(stats); i++)
    totals->stats[i] = stats->stats[i].value;
}

static void published(void *arg, const struct rpc_status *status, void *reply) {
  struct module_publisher *publisher = arg;
  (void)reply;
  publisher->call = NULL;
  if (status->code == RPC_OK)
    publisher->told = publisher->telling;
}

static metric_message *metric_add(core_spi_observability_v1_PublishMetricsRequest *request, const char *name,
                                  const char *help, core_spi_observability_v1_MetricKind kind, double value) {
  BASE_CHECK(request->metrics_count < METRICS_MAX);
  metric_message *metric = &request->metrics[request->metrics_count++];
  *metric =
      (metric_message){.name = (char *)(uintptr_t)name, .help = (char *)(uintptr_t)help, .kind = kind, .value = value};
  return metric;
}

#define COUNTER core_spi_observability_v1_MetricKind_METRIC_KIND_COUNTER
#define GAUGE core_spi_observability_v1_MetricKind_METRIC_KIND_GAUGE
#define HISTOGRAM core_spi_observability_v1_MetricKind_METRIC_KIND_HISTOGRAM

void module_publish_now(struct module *module) {
  struct module_publisher *publisher = module->publisher;
  metric_message metrics[METRICS_MAX];
  core_spi_observability_v1_PublishMetricsRequest request = {.metrics = metrics};
  double bounds[BOUND_COUNT];
  uint64_t counts[BOUND_COUNT + 1];
  if (!publisher || publisher->call || !module->attached)
    return;
  core_module_v1_ModuleStats stats = module_stats_collect(module);
  const struct totals *told = &publisher->told;
  struct totals *now = &publisher->telling;
  totals_take(module, &stats, now);
  metric_add(&request, "requests_total", "Requests served.", COUNTER, (double)(now->requests - told->requests));
  metric_add(&request, "errors_total", "Of these, failed.", COUNTER, (double)(now->errors - told->errors));
  metric_add(&request, "in_flight", "Requests in flight.", GAUGE, stats.in_flight);
  metric_add(&request, "connections", "Open client connections.", GAUGE, stats.connections);
  for (size_t i = 0; i <= BOUND_COUNT; i++) {
    counts[i] = now->latency[i] - told->latency[i];
    if (i < BOUND_COUNT)
      bounds[i] = (double)(UINT64_C(1) << (i + BOUND_FIRST_EXPONENT)) / 1e6;
  }
  metric_message *latency = metric_add(&request, "request_seconds", "How long requests took.", HISTOGRAM,
                                       (double)(now->latency_sum_us - told->latency_sum_us) / 1e6);
  latency->bucket_bounds = bounds;
  latency->bucket_bounds_count = BOUND_COUNT;
  latency->bucket_counts = counts;
  latency->bucket_counts_count = BOUND_COUNT + 1;
  for (size_t i = 0; i < stats_count(&stats); i++) {
    bool counter = is_counter(&stats.stats[i]);
    metric_add(&request, stats.stats[i].name, "A number of the module's own: docs/metrics.md.",
               counter ? COUNTER : GAUGE, (double)(counter ? now->stats[i] - told->stats[i] : now->stats[i]));
  }
  publisher->call =
      module_spi_call(module, SPI_OBSERVABILITY_PUBLISH_METRICS, &request, DEADLINE_MS, published, publisher);
}

static void on_timer(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  module_publish_now(arg);
}

void module_publish_start(struct module *module) {
  const struct timeval period = {.tv_sec = PUBLISH_S};
  bool granted = false;
  for (const char *const *family = module->definition->spi_families; family && *family; family++)
    granted = granted || str_equal(*family, "observability");
  if (!granted || module->publisher)
    return;
  module->publisher = BASE_NEW(struct module_publisher);
  module->publisher->timer = event_new(module->base, -1, EV_PERSIST, on_timer, module);
  BASE_CHECK(module->publisher->timer != NULL);
  event_add(module->publisher->timer, &period);
}

void module_publish_stop(struct module *module) {
  struct module_publisher *publisher = BASE_TAKE(module->publisher);
  if (!publisher)
    return;
  if (publisher->call)
    rpc_call_cancel(publisher->call);
  event_free(publisher->timer);
  base_free(publisher);
}
