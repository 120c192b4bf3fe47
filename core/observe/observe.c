/* observe.c: life of the room and the core's own metrics.
 *
 * The key of a series is its label values as they were given, each with its NUL, put together on the stack. A few
 * recent series of each metric are found by comparing keys, the others by one hash look-up. The rendered form is made
 * once, with the series. */
#include "core/observe/observe_internal.h"

#include <string.h>

#include "sdk/base/str.h"

const struct observe_metric_info observe_metric_table[OBSERVE_METRIC_COUNT] = {
#define METRIC(name_, kind_, text_, help_, labels_)                                                                    \
  [OBSERVE_##name_] = {.name = (text_), .help = (help_), .kind = OBSERVE_##kind_, .labels = (labels_)},
#include "core/observe/metrics.def"
#undef METRIC
};

const uint64_t observe_bucket_bounds_us[OBSERVE_BUCKETS] = {
#define BUCKET(us, text) us,
#include "core/observe/buckets.def"
#undef BUCKET
};

const char *const observe_bucket_texts[OBSERVE_BUCKETS] = {
#define BUCKET(us, text) text,
#include "core/observe/buckets.def"
#undef BUCKET
};

static const char *const no_labels[] = {NULL};

/* Copies the label values behind one another; a value longer than the bound is cut. Returns the length of the key. */
static size_t key_build(char *key, const char *const *labels) {
  size_t length = 0;
  for (size_t i = 0; i < OBSERVE_LABELS_MAX && labels[i]; i++) {
    size_t value_length = strnlen(labels[i], OBSERVE_LABEL_VALUE_MAX_BYTES);
    memcpy(key + length, labels[i], value_length);
    key[length + value_length] = 0;
    length += value_length + 1;
  }
  return length;
}

/* The rendered labels of a key; values that are not there read as "". */
static char *key_render(const char *names, const char *key, size_t key_length) {
  struct buf labels = {0};
  const char *value = key, *end = key + key_length;
  for (const char *name = names; *name;) {
    size_t name_length = strcspn(name, ",");
    observe_label_append(&labels, name, name_length, value < end ? value : "");
    if (value < end)
      value += strlen(value) + 1;
    name += name_length + (name[name_length] == ',');
  }
  return buf_take(&labels);
}

static struct observe_series *core_series_add(struct observe_family *family, enum observe_metric metric,
                                              const char *key, size_t key_length) {
  const struct observe_metric_info *info = &observe_metric_table[metric];
  static const char other[] = "other";
  char others[sizeof(other) * OBSERVE_LABELS_MAX];
  if (HASH_COUNT(family->series) >= OBSERVE_CORE_SERIES_MAX) {
    const char *values[OBSERVE_LABELS_MAX + 1] = {NULL};
    size_t count = 0;
    for (const char *name = info->labels; *name; count++) {
      values[count] = other;
      name += strcspn(name, ",");
      name += *name == ',';
    }
    key = others;
    key_length = key_build(others, values);
    struct observe_series *series = observe_series_find(family, key, key_length);
    if (series)
      return series;
  }
  return observe_series_add(family, key, key_length, key_render(info->labels, key, key_length),
                            info->kind == OBSERVE_HISTOGRAM ? OBSERVE_BUCKETS + 1 : 0);
}

static struct observe_series *core_series(struct observe *observe, enum observe_metric metric,
                                          const char *const *labels, enum observe_kind kind) {
  BASE_CHECK_MAGIC(observe, OBSERVE_MAGIC);
  BASE_CHECK((unsigned)metric < OBSERVE_METRIC_COUNT && observe_metric_table[metric].kind == kind);
  char key[OBSERVE_LABELS_MAX * (OBSERVE_LABEL_VALUE_MAX_BYTES + 1)];
  size_t key_length = key_build(key, labels ? labels : no_labels);
  struct observe_family *family = &observe->core[metric];
  size_t slot = key_length ? (key_length + (uint8_t)key[0] + (uint8_t)key[key_length / 2] * 5u +
                              (uint8_t)key[key_length - (key_length > 1 ? 2 : 1)] * 3u) %
                                 OBSERVE_RECENT
                           : 0;
  struct observe_series *series = family->recent[slot];
  if (series && series->key_length == key_length && memcmp(series->key, key, key_length) == 0)
    return series;
  series = observe_series_find(family, key, key_length);
  if (!series)
    series = core_series_add(family, metric, key, key_length);
  return family->recent[slot] = series;
}

void observe_count(struct observe *observe, enum observe_metric metric, const char *const *labels, uint64_t increment) {
  core_series(observe, metric, labels, OBSERVE_COUNTER)->count += increment;
}

void observe_gauge_set(struct observe *observe, enum observe_metric metric, const char *const *labels, double value) {
  core_series(observe, metric, labels, OBSERVE_GAUGE)->value = value;
}

void observe_duration(struct observe *observe, enum observe_metric metric, const char *const *labels,
                      uint64_t duration_us) {
  struct observe_series *series = core_series(observe, metric, labels, OBSERVE_HISTOGRAM);
  size_t bucket = 0;
  while (bucket < OBSERVE_BUCKETS && duration_us > observe_bucket_bounds_us[bucket])
    bucket++;
  series->buckets[bucket]++;
  series->count++;
  series->sum_us += duration_us;
}

struct observe *observe_open(const struct observe_options *options, struct error *err) {
  struct observe_audit_log *audit = NULL;
  if (options->state_dir && !(audit = observe_audit_open(options->state_dir, options->store, err)))
    return NULL;
  struct observe *observe = BASE_NEW(struct observe);
  observe->magic = OBSERVE_MAGIC;
  observe->store = options->store;
  observe->series_max = options->series_max ? options->series_max : OBSERVE_SERIES_DEFAULT;
  observe->audit = audit;
  for (size_t i = 0; i < OBSERVE_METRIC_COUNT; i++) {
    const struct observe_metric_info *info = &observe_metric_table[i];
    observe->core[i] =
        (struct observe_family){.name = base_strdup(info->name), .help = base_strdup(info->help), .kind = info->kind};
    if (str_is_empty(info->labels)) /* what has no labels is there from the start, as 0 */
      core_series(observe, (enum observe_metric)i, NULL, info->kind);
  }
  return observe;
}

void observe_close(struct observe **observe_pointer) {
  struct observe *observe = BASE_TAKE(*observe_pointer);
  if (!observe)
    return;
  BASE_CHECK_MAGIC(observe, OBSERVE_MAGIC);
  observe_audit_close(&observe->audit);
  for (size_t i = 0; i < OBSERVE_METRIC_COUNT; i++)
    observe_family_clear(&observe->core[i]);
  struct observe_family *family, *next;
  HASH_ITER(hh, observe->modules, family, next) {
    HASH_DEL(observe->modules, family);
    observe_family_clear(family);
    base_free(family);
  }
  observe->magic = 0;
  base_free(observe);
}

void observe_audit_append(struct observe *observe, const struct observe_audit *audit) {
  BASE_CHECK_MAGIC(observe, OBSERVE_MAGIC);
  if (observe->audit)
    observe_audit_write(observe->audit, audit);
}
