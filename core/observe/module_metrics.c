/* module_metrics.c: metrics that modules publish. A module is another process and may be broken or hostile: names,
 * labels, numbers and the count of series are bounded here, and what does not fit is refused and counted, never cut. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/observe/observe_internal.h"
#include "sdk/base/str.h"

#define MODULE_PREFIX "gatehouse_module_"
#define HELP_MAX_BYTES 512

typedef Core__Spi__Observability__V1__Metric metric_message;
typedef Core__Spi__Observability__V1__Attribute label_message;

static bool name_is_good(const char *name) {
  if (!name || !(isalpha((unsigned char)*name) || *name == '_') ||
      strnlen(name, OBSERVE_NAME_MAX_BYTES + 1) > OBSERVE_NAME_MAX_BYTES)
    return false;
  for (; *name; name++)
    if (!isalnum((unsigned char)*name) && *name != '_')
      return false;
  return true;
}

/* The names that a histogram's lines take would make two metrics look like one. */
static bool metric_name_is_good(const char *name) {
  return name_is_good(name) && !str_ends_with(name, "_bucket") && !str_ends_with(name, "_sum") &&
         !str_ends_with(name, "_count");
}

static bool label_is_good(const label_message *label) {
  return name_is_good(label->key) && !str_starts_with(label->key, "__") && !str_equal(label->key, "module") &&
         !str_equal(label->key, "le") && label->value &&
         strnlen(label->value, OBSERVE_LABEL_VALUE_MAX_BYTES + 1) <= OBSERVE_LABEL_VALUE_MAX_BYTES &&
         str_is_utf8(label->value, strlen(label->value));
}

static int label_compare(const void *a, const void *b) {
  const label_message *const *left = a, *const *right = b;
  return strcmp((*left)->key, (*right)->key);
}

/* The labels in the order of their names, module first; NULL: not acceptable. */
static char *labels_render(const char *module_id, const metric_message *metric) {
  const label_message *sorted[OBSERVE_LABELS_MAX];
  struct buf labels = {0};
  if (metric->n_labels > OBSERVE_LABELS_MAX)
    return NULL;
  for (size_t i = 0; i < metric->n_labels; i++) {
    if (!label_is_good(metric->labels[i]))
      return NULL;
    sorted[i] = metric->labels[i];
  }
  if (metric->n_labels)
    qsort(sorted, metric->n_labels, sizeof(*sorted), label_compare);
  for (size_t i = 1; i < metric->n_labels; i++)
    if (str_equal(sorted[i - 1]->key, sorted[i]->key))
      return NULL;
  observe_label_append(&labels, "module", strlen("module"), module_id);
  for (size_t i = 0; i < metric->n_labels; i++)
    observe_label_append(&labels, sorted[i]->key, strlen(sorted[i]->key), sorted[i]->value);
  return buf_take(&labels);
}

static bool kind_read(const metric_message *metric, enum observe_kind *kind) {
  static const struct {
    int wire;
    enum observe_kind kind;
  } kinds[] = {
      {CORE__SPI__OBSERVABILITY__V1__METRIC_KIND__METRIC_KIND_COUNTER, OBSERVE_COUNTER},
      {CORE__SPI__OBSERVABILITY__V1__METRIC_KIND__METRIC_KIND_GAUGE, OBSERVE_GAUGE},
      {CORE__SPI__OBSERVABILITY__V1__METRIC_KIND__METRIC_KIND_HISTOGRAM, OBSERVE_HISTOGRAM},
  };
  for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
    if ((int)metric->kind == kinds[i].wire) {
      *kind = kinds[i].kind;
      return true;
    }
  return false;
}

static bool numbers_are_good(const metric_message *metric, enum observe_kind kind) {
  if (kind == OBSERVE_GAUGE)
    return true;
  if (!isfinite(metric->value) || (kind == OBSERVE_COUNTER && metric->value < 0))
    return false;
  if (kind == OBSERVE_COUNTER)
    return true;
  if (metric->n_bucket_bounds == 0 || metric->n_bucket_bounds > OBSERVE_BUCKETS_MAX ||
      metric->n_bucket_counts != metric->n_bucket_bounds + 1)
    return false;
  for (size_t i = 0; i < metric->n_bucket_bounds; i++)
    if (!isfinite(metric->bucket_bounds[i]) || (i && metric->bucket_bounds[i] <= metric->bucket_bounds[i - 1]))
      return false;
  return true;
}

static bool family_fits(const struct observe_family *family, const metric_message *metric, enum observe_kind kind) {
  if (family->kind != kind)
    return false;
  return kind != OBSERVE_HISTOGRAM ||
         (family->bound_count == metric->n_bucket_bounds &&
          memcmp(family->bounds, metric->bucket_bounds, family->bound_count * sizeof(double)) == 0);
}

static struct observe_family *family_add(struct observe *observe, const char *name, const metric_message *metric,
                                         enum observe_kind kind) {
  struct observe_family *family = BASE_NEW(struct observe_family);
  family->name = base_strdup(name);
  family->help = metric->help && str_is_utf8(metric->help, strlen(metric->help))
                     ? base_strndup(metric->help, HELP_MAX_BYTES)
                     : base_strdup("");
  if (!str_is_utf8(family->help, strlen(family->help))) /* cut inside a character */
    *family->help = 0;
  family->kind = kind;
  if (kind == OBSERVE_HISTOGRAM) {
    family->bound_count = metric->n_bucket_bounds;
    family->bounds = base_memdup(metric->bucket_bounds, family->bound_count * sizeof(double));
  }
  HASH_ADD_KEYPTR(hh, observe->modules, family->name, strlen(family->name), family);
  return family;
}

static uint64_t add_saturated(uint64_t a, uint64_t b) {
  uint64_t sum;
  return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

static void series_apply(const struct observe_family *family, struct observe_series *series,
                         const metric_message *metric) {
  series->value = family->kind == OBSERVE_GAUGE ? metric->value : series->value + metric->value;
  for (size_t i = 0; family->kind == OBSERVE_HISTOGRAM && i < metric->n_bucket_counts; i++) {
    series->buckets[i] = add_saturated(series->buckets[i], metric->bucket_counts[i]);
    series->count = add_saturated(series->count, metric->bucket_counts[i]);
  }
}

static bool metric_publish(struct observe *observe, const char *module_id, const metric_message *metric) {
  enum observe_kind kind;
  if (!metric_name_is_good(metric->name) || !kind_read(metric, &kind) || !numbers_are_good(metric, kind))
    return false;
  char name[sizeof(MODULE_PREFIX) + OBSERVE_NAME_MAX_BYTES];
  memcpy(name, MODULE_PREFIX, sizeof(MODULE_PREFIX));
  str_copy(name + strlen(MODULE_PREFIX), OBSERVE_NAME_MAX_BYTES + 1, metric->name);
  struct observe_family *family;
  HASH_FIND_STR(observe->modules, name, family);
  if (family && !family_fits(family, metric, kind))
    return false;
  char *labels = labels_render(module_id, metric);
  if (!labels)
    return false;
  size_t length = strlen(labels);
  struct observe_series *series = family ? observe_series_find(family, labels, length) : NULL;
  if (!series) {
    if (observe->series_count >= observe->series_max) {
      base_free(labels);
      return false;
    }
    if (!family)
      family = family_add(observe, name, metric, kind);
    observe->series_count++;
    series =
        observe_series_add(family, labels, length, labels, kind == OBSERVE_HISTOGRAM ? family->bound_count + 1 : 0);
  } else {
    base_free(labels);
  }
  series_apply(family, series, metric);
  return true;
}

uint32_t observe_module_publish(struct observe *observe, const char *module_id,
                                const Core__Spi__Observability__V1__PublishMetricsRequest *request) {
  BASE_CHECK_MAGIC(observe, OBSERVE_MAGIC);
  uint32_t refused = 0;
  for (size_t i = 0; i < request->n_metrics; i++)
    refused += !metric_publish(observe, module_id, request->metrics[i]);
  return refused;
}
