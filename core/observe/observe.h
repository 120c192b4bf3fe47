/* observe.h: metrics in Prometheus text format and the audit chain (SPI-16). One thread: the core thread. */
#ifndef GATEHOUSE_CORE_OBSERVE_H
#define GATEHOUSE_CORE_OBSERVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/store/store.h"
#include "sdk/base/buf.h"
#include "sdk/base/error.h"
#include "wire/pbc/core/spi/observability/v1/observability.pb-c.h"

struct observe;

struct observe_options {
  struct store *store;
  const char *state_dir; /* folder of the audit log "audit.jsonl"; NULL: none is kept (tests) */
  uint32_t series_max;   /* series of modules together; 0: 10000 */
};

struct observe *observe_open(const struct observe_options *options, struct error *err);
void observe_close(struct observe **observe);

/* The core's own metrics: OBSERVE_<NAME>, from metrics.def: METRIC(NAME, kind, "gatehouse_…", "help", "label names").
 */
enum observe_metric {
#define METRIC(name, kind, text, help, labels) OBSERVE_##name,
#include "core/observe/metrics.def"
#undef METRIC
  OBSERVE_METRIC_COUNT
};
/* label values in the order of the table, NULL-terminated; NULL: none. */
void observe_count(struct observe *observe, enum observe_metric metric, const char *const *labels, uint64_t increment);
void observe_gauge_set(struct observe *observe, enum observe_metric metric, const char *const *labels, double value);
void observe_duration(struct observe *observe, enum observe_metric metric, const char *const *labels,
                      uint64_t duration_us);

/* What a module publishes; names are checked and prefixed gatehouse_module_, labels get module="<id>". Returns how many
 * were refused. */
uint32_t observe_module_publish(struct observe *observe, const char *module_id,
                                const Core__Spi__Observability__V1__PublishMetricsRequest *request);
/* Called before each observe_render, so that numbers which other rooms keep are taken over when someone looks. */
void observe_refresh_set(struct observe *observe, void (*refresh)(void *arg), void *arg);
/* Everything in text format 0.0.4. */
void observe_render(struct observe *observe, struct buf *text);

/* Appends an audit event: JSON line with sequence, previous hash and hash (SHA-256), so that a gap or an edit shows.
 * Details hold no secrets. Any outcome of "allowed", "denied", "failed", "done". */
struct observe_audit {
  const char *action; /* "token.created", "auth.denied", "spi.denied", … */
  const char *actor;  /* subject, module id or "operator" */
  const char *target;
  const char *outcome;
  const char *trace_id;
  const char *details_json; /* object or NULL */
  size_t details_length;    /* 0: details_json ends in NUL */
};
void observe_audit_append(struct observe *observe, const struct observe_audit *audit);
/* Verifies a chain file: ERR_STORE_CORRUPT names the first bad line. */
bool observe_audit_verify(const char *path, uint64_t *line_count, struct error *err);

/* A module's log lines and spans into the core's log. */
void observe_logs_emit(struct observe *observe, const char *module_id,
                       const Core__Spi__Observability__V1__EmitLogsRequest *request);

#endif
