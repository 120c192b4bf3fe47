/* series.c: series of a metric and how a label is written. */
#include <string.h>

#include "core/observe/observe_internal.h"
#include "sdk/base/str.h"

struct observe_series *observe_series_find(struct observe_family *family, const char *key, size_t key_length) {
  struct observe_series *series;
  HASH_FIND(hh, family->series, key, key_length, series);
  return series;
}

struct observe_series *observe_series_add(struct observe_family *family, const char *key, size_t key_length,
                                          char *labels, size_t bucket_count) {
  struct observe_series *series = base_calloc(1, sizeof(*series) + key_length);
  series->labels = labels;
  series->key_length = key_length;
  if (key_length)
    memcpy(series->key, key, key_length);
  if (bucket_count)
    series->buckets = base_calloc(bucket_count, sizeof(*series->buckets));
  HASH_ADD_KEYPTR(hh, family->series, series->key, key_length, series);
  return series;
}

void observe_family_clear(struct observe_family *family) {
  struct observe_series *series, *next;
  HASH_ITER(hh, family->series, series, next) {
    HASH_DEL(family->series, series);
    base_free(series->labels);
    base_free(series->buckets);
    base_free(series);
  }
  base_free(family->name);
  base_free(family->help);
  base_free(family->bounds);
}

void observe_label_append(struct buf *labels, const char *name, size_t name_length, const char *value) {
  if (labels->length)
    buf_append_char(labels, ',');
  buf_append(labels, name, name_length);
  buf_append_text(labels, "=\"");
  if (!str_is_utf8(value, strlen(value)))
    value = "invalid";
  for (; *value; value++) {
    if (*value == '\n')
      buf_append_text(labels, "\\n");
    else if (*value == '"' || *value == '\\')
      buf_printf(labels, "\\%c", *value);
    else
      buf_append_char(labels, *value);
  }
  buf_append_char(labels, '"');
}
