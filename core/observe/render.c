/* render.c: every metric in Prometheus text format 0.0.4. Families in the order of the table, then the modules'. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/observe/observe_internal.h"

static const char *const kind_names[] = {
    [OBSERVE_COUNTER] = "counter", [OBSERVE_GAUGE] = "gauge", [OBSERVE_HISTOGRAM] = "histogram"};

/* The shortest text that reads back as the same number. */
static void number_append(struct buf *text, double value) {
  if (isnan(value)) {
    buf_append_text(text, "NaN");
  } else if (isinf(value)) {
    buf_append_text(text, value > 0 ? "+Inf" : "-Inf");
  } else {
    char digits[40];
    for (int precision = 6; precision <= 17; precision++) {
      snprintf(digits, sizeof(digits), "%.*g", precision, value);
      if (strtod(digits, NULL) == value)
        break;
    }
    buf_append_text(text, digits);
  }
}

static void head_append(struct buf *text, const struct observe_family *family) {
  buf_printf(text, "# HELP %s ", family->name);
  for (const char *c = family->help; *c; c++) {
    if (*c == '\n')
      buf_append_text(text, "\\n");
    else if (*c == '\\')
      buf_append_text(text, "\\\\");
    else
      buf_append_char(text, *c);
  }
  buf_printf(text, "\n# TYPE %s %s\n", family->name, kind_names[family->kind]);
}

/* name{labels} with a space behind. */
static void sample_append(struct buf *text, const char *name, const char *suffix, const char *labels) {
  buf_append_text(text, name);
  buf_append_text(text, suffix);
  if (*labels)
    buf_printf(text, "{%s}", labels);
  buf_append_char(text, ' ');
}

static void bucket_append(struct buf *text, const struct observe_family *family, const char *labels, const char *bound,
                          uint64_t count) {
  buf_printf(text, "%s_bucket{%s%sle=\"%s\"} %" PRIu64 "\n", family->name, labels, *labels ? "," : "", bound, count);
}

static void histogram_append(struct buf *text, const struct observe_family *family,
                             const struct observe_series *series) {
  size_t bound_count = family->bounds ? family->bound_count : OBSERVE_BUCKETS;
  uint64_t total = 0;
  struct buf bound = {0};
  for (size_t i = 0; i < bound_count; i++) {
    buf_clear(&bound);
    if (family->bounds)
      number_append(&bound, family->bounds[i]);
    else
      buf_append_text(&bound, observe_bucket_texts[i]);
    total += series->buckets[i];
    bucket_append(text, family, series->labels, bound.data, total);
  }
  buf_free(&bound);
  bucket_append(text, family, series->labels, "+Inf", series->count);
  sample_append(text, family->name, "_sum", series->labels);
  number_append(text, family->bounds ? series->value : (double)series->sum_us / 1e6);
  buf_append_char(text, '\n');
  sample_append(text, family->name, "_count", series->labels);
  buf_printf(text, "%" PRIu64 "\n", series->count);
}

static void family_append(struct buf *text, const struct observe_family *family, bool core) {
  if (!family->series)
    return;
  head_append(text, family);
  for (const struct observe_series *series = family->series; series; series = series->hh.next) {
    if (family->kind == OBSERVE_HISTOGRAM) {
      histogram_append(text, family, series);
      continue;
    }
    sample_append(text, family->name, "", series->labels);
    if (core && family->kind == OBSERVE_COUNTER)
      buf_printf(text, "%" PRIu64, series->count);
    else
      number_append(text, series->value);
    buf_append_char(text, '\n');
  }
}

void observe_refresh_set(struct observe *observe, void (*refresh)(void *arg), void *arg) {
  BASE_CHECK_MAGIC(observe, OBSERVE_MAGIC);
  observe->refresh = refresh;
  observe->refresh_arg = arg;
}

void observe_render(struct observe *observe, struct buf *text) {
  BASE_CHECK_MAGIC(observe, OBSERVE_MAGIC);
  if (observe->refresh)
    observe->refresh(observe->refresh_arg);
  if (observe->store) {
    struct store_metrics metrics;
    struct store_health health;
    store_metrics_get(observe->store, &metrics);
    store_health_get(observe->store, &health);
    observe_gauge_set(observe, OBSERVE_STORE_COMMITS, NULL, (double)metrics.commits);
    observe_gauge_set(observe, OBSERVE_STORE_COMMITS_FAILED, NULL, (double)metrics.commits_failed);
    observe_gauge_set(observe, OBSERVE_STORE_FAILING, NULL, health.failing);
    observe_gauge_set(observe, OBSERVE_STORE_EVENTS, NULL, (double)metrics.events);
    observe_gauge_set(observe, OBSERVE_STORE_QUEUE_BYTES, NULL, (double)metrics.queue_bytes);
  }
  for (size_t i = 0; i < OBSERVE_METRIC_COUNT; i++)
    family_append(text, &observe->core[i], true);
  for (const struct observe_family *family = observe->modules; family; family = family->hh.next)
    family_append(text, family, false);
}
