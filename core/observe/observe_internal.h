/* observe_internal.h: what the files of this room share. */
#ifndef GATEHOUSE_CORE_OBSERVE_INTERNAL_H
#define GATEHOUSE_CORE_OBSERVE_INTERNAL_H

#include "core/observe/observe.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"

#define uthash_malloc(size_) base_alloc(size_)
#define uthash_free(pointer_, size_) base_free(pointer_)
#include <uthash.h>

#define OBSERVE_MAGIC 0x0b5e12e0u
#define OBSERVE_LABELS_MAX 16
#define OBSERVE_LABEL_VALUE_MAX_BYTES 256
#define OBSERVE_NAME_MAX_BYTES 128
#define OBSERVE_BUCKETS_MAX 64
#define OBSERVE_CORE_SERIES_MAX 1000 /* per metric of the core; what comes later is counted as "other" */
#define OBSERVE_SERIES_DEFAULT 10000
#define OBSERVE_HASH_HEX 64
#define OBSERVE_RECENT 16

enum observe_kind { OBSERVE_COUNTER, OBSERVE_GAUGE, OBSERVE_HISTOGRAM };

/* Upper bounds of the core's histograms. */
enum {
#define BUCKET(us, text) OBSERVE_BUCKET_##us,
#include "core/observe/buckets.def"
#undef BUCKET
  OBSERVE_BUCKETS
};

/* One line of output, or the lines of one histogram. */
struct observe_series {
  UT_hash_handle hh;
  char *labels;      /* rendered without braces: a="b",c="d"; "" without labels */
  double value;      /* gauge; sum of a module's histogram */
  uint64_t count;    /* counter of the core; observations of a histogram */
  uint64_t sum_us;   /* histogram of the core */
  uint64_t *buckets; /* histogram: one more than bounds, not cumulative */
  size_t key_length;
  char key[]; /* core: label values, each with its NUL; module: the rendered labels */
};

/* A metric with its series, in the order of their first sample. */
struct observe_family {
  UT_hash_handle hh; /* modules only, by name */
  char *name;
  char *help;
  enum observe_kind kind;
  double *bounds; /* module histograms */
  size_t bound_count;
  struct observe_series *series;
  struct observe_series *recent[OBSERVE_RECENT]; /* core: by a few bytes of the key, checked against all of it */
};

struct observe_audit_log; /* audit.c */

struct observe {
  uint32_t magic;
  struct store *store;
  uint32_t series_max;
  uint32_t series_count; /* of modules */
  struct observe_family core[OBSERVE_METRIC_COUNT];
  struct observe_family *modules;
  struct observe_audit_log *audit; /* NULL: none is kept */
  void (*refresh)(void *arg);      /* NULL: nobody has numbers to take over */
  void *refresh_arg;
};

struct observe_metric_info {
  const char *name;
  const char *help;
  enum observe_kind kind;
  const char *labels; /* names separated by commas; "": none */
};
extern const struct observe_metric_info observe_metric_table[OBSERVE_METRIC_COUNT];
extern const uint64_t observe_bucket_bounds_us[OBSERVE_BUCKETS];
extern const char *const observe_bucket_texts[OBSERVE_BUCKETS];

/* The series of a key; created by `labels` (taken) when NULL is not found. */
struct observe_series *observe_series_find(struct observe_family *family, const char *key, size_t key_length);
struct observe_series *observe_series_add(struct observe_family *family, const char *key, size_t key_length,
                                          char *labels, size_t bucket_count);
void observe_family_clear(struct observe_family *family);
/* Adds name="value" with the escapes of the text format, after a comma when *labels is not empty. */
void observe_label_append(struct buf *labels, const char *name, size_t name_length, const char *value);

/* The chain, audit.c. dir/audit.jsonl is verified, continued, created. */
struct observe_audit_log *observe_audit_open(const char *state_dir, struct store *store, struct error *err);
void observe_audit_close(struct observe_audit_log **log);
void observe_audit_write(struct observe_audit_log *log, const struct observe_audit *audit);

/* What a walk over a chain file found. */
struct observe_chain {
  uint64_t lines;
  uint64_t last_sequence;
  char last_hash[OBSERVE_HASH_HEX + 1];
  uint64_t good_bytes; /* up to and with the last whole line */
  uint64_t torn_bytes; /* behind it: a line that a crash cut short */
};
/* False: ERR_STORE_CORRUPT names the first bad line, ERR_IO, ERR_NOT_FOUND. A torn last line is no error here. */
bool observe_chain_read(const char *path, struct observe_chain *chain, struct error *err);
void observe_chain_hash(const void *data, size_t length, char hash_hex[static OBSERVE_HASH_HEX + 1]);

#endif
