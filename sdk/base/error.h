/* error.h: errors as values (ERR-1, ERR-2, ERR-5).
 *
 * A function that can fail takes `struct error *err` last and returns bool or a handle. The error is made where it is
 * understood, once, with a code from error_codes.def; the category, the HTTP and the gRPC status follow from the table.
 * The message is safe for clients: no path, no library text, no SQL, no secret ever goes into it. Details for operators
 * go to the log at the place where the error is made. `err` may be NULL where the caller does not care.
 * A code that is not in the table does not compile. No allocation; any thread. */
#ifndef GATEHOUSE_BASE_ERROR_H
#define GATEHOUSE_BASE_ERROR_H

#include <stdbool.h>
#include <stdint.h>

/* Categories of ERR-1, numbered as core.common.v1.ErrorCategory. */
enum error_category {
  ERROR_CATEGORY_NONE = 0,
  ERROR_CATEGORY_INVALID_ARGUMENT = 1,
  ERROR_CATEGORY_UNAUTHENTICATED = 2,
  ERROR_CATEGORY_PERMISSION_DENIED = 3,
  ERROR_CATEGORY_NOT_FOUND = 4,
  ERROR_CATEGORY_CONFLICT = 5,
  ERROR_CATEGORY_FAILED_PRECONDITION = 6,
  ERROR_CATEGORY_RATE_LIMITED = 7,
  ERROR_CATEGORY_UNSUPPORTED = 8,
  ERROR_CATEGORY_UNAVAILABLE = 9,
  ERROR_CATEGORY_UPSTREAM_ERROR = 10,
  ERROR_CATEGORY_INTERNAL = 11,
};

/* Where the error was understood; numbered as core.common.v1.ErrorOrigin. */
enum error_origin {
  ERROR_ORIGIN_UNSPECIFIED = 0,
  ERROR_ORIGIN_MODULE = 1,
  ERROR_ORIGIN_CORE = 2,
  ERROR_ORIGIN_PLUGIN = 3,
  ERROR_ORIGIN_UPSTREAM = 4,
};

/* Every stable code: ERR_<NAME>. The table is error_codes.def; docs/errors.md is generated from it. */
enum error_code {
  ERR_NONE = 0,
#define ERROR_CODE(name, category, text, summary) ERR_##name,
#include "sdk/base/error_codes.def"
#undef ERROR_CODE
  ERR_CODE_COUNT
};

#define ERROR_CODE_MAX 64
#define ERROR_MESSAGE_MAX 256
#define ERROR_TRACE_ID_MAX 33

struct error {
  enum error_category category; /* ERROR_CATEGORY_NONE: no error */
  enum error_origin origin;
  char code[ERROR_CODE_MAX];       /* stable, machine readable: "catalog.tool.not_found" */
  char message[ERROR_MESSAGE_MAX]; /* safe for clients */
  bool retryable;
  bool foreign;            /* it came over the wire: its code is what somebody else met */
  uint32_t retry_after_ms; /* 0: unknown */
  char trace_id[ERROR_TRACE_ID_MAX];
};

/* Fills *err (when not NULL) from the table, with a printf-style client-safe message (NULL format: the table's
 * summary). The origin is the process-wide default (error_origin_default_set); returns false, so that `return
 * error_set(…)` reads well. */
bool error_set(struct error *err, enum error_code code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Like error_set for an error that came over the wire with a code we may not know. Text is cut to size, made printable.
 */
bool error_set_foreign(struct error *err, enum error_category category, enum error_origin origin, const char *code,
                       const char *message);

/* What origin error_set() writes in this process; set once at start. Default ERROR_ORIGIN_CORE. */
void error_origin_default_set(enum error_origin origin);

/* Forgets: *err becomes "no error". */
void error_clear(struct error *err);

static inline bool error_is_set(const struct error *err) {
  return err->category != ERROR_CATEGORY_NONE;
}

/* True when err carries exactly this code of ours. */
bool error_is(const struct error *err, enum error_code code);

/* Table look-ups. An unknown category answers as INTERNAL. The names are the upper-case ones of ERR-1. */
const char *error_category_name(enum error_category category);
enum error_category error_category_from_name(const char *name);
int error_category_http_status(enum error_category category);
int error_category_grpc_status(enum error_category category);
bool error_category_retryable(enum error_category category);
enum error_category error_category_from_grpc_status(int grpc_status);
const char *error_origin_name(enum error_origin origin);
const char *error_code_text(enum error_code code);
const char *error_code_summary(enum error_code code);
enum error_category error_code_category(enum error_code code);

#endif
