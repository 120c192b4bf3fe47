/* error.c: the tables behind error.h. Categories and their mappings are ERR-1; the codes come from error_codes.def. */
#include "sdk/base/error.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "sdk/base/base_internal.h"
#include "sdk/base/str.h"

struct category_row {
  const char *name;
  int http_status;
  int grpc_status;
  bool retryable;
};

/* ERR-1. UPSTREAM_ERROR "depends": not retryable unless the place that knows says so. */
static const struct category_row CATEGORIES[] = {
    [ERROR_CATEGORY_NONE] = {"NONE", 200, 0, false},
    [ERROR_CATEGORY_INVALID_ARGUMENT] = {"INVALID_ARGUMENT", 400, 3, false},
    [ERROR_CATEGORY_UNAUTHENTICATED] = {"UNAUTHENTICATED", 401, 16, false},
    [ERROR_CATEGORY_PERMISSION_DENIED] = {"PERMISSION_DENIED", 403, 7, false},
    [ERROR_CATEGORY_NOT_FOUND] = {"NOT_FOUND", 404, 5, false},
    [ERROR_CATEGORY_CONFLICT] = {"CONFLICT", 409, 10, false},
    [ERROR_CATEGORY_FAILED_PRECONDITION] = {"FAILED_PRECONDITION", 412, 9, false},
    [ERROR_CATEGORY_RATE_LIMITED] = {"RATE_LIMITED", 429, 8, true},
    [ERROR_CATEGORY_UNSUPPORTED] = {"UNSUPPORTED", 404, 12, false},
    [ERROR_CATEGORY_UNAVAILABLE] = {"UNAVAILABLE", 503, 14, true},
    [ERROR_CATEGORY_UPSTREAM_ERROR] = {"UPSTREAM_ERROR", 502, 2, false},
    [ERROR_CATEGORY_INTERNAL] = {"INTERNAL", 500, 13, false},
};
#define CATEGORY_COUNT (sizeof(CATEGORIES) / sizeof(CATEGORIES[0]))

/* Index: the gRPC status code. */
static const enum error_category FROM_GRPC[] = {
    [0] = ERROR_CATEGORY_NONE,                /* OK */
    [1] = ERROR_CATEGORY_UNAVAILABLE,         /* CANCELLED */
    [2] = ERROR_CATEGORY_UPSTREAM_ERROR,      /* UNKNOWN */
    [3] = ERROR_CATEGORY_INVALID_ARGUMENT,    /* INVALID_ARGUMENT */
    [4] = ERROR_CATEGORY_UNAVAILABLE,         /* DEADLINE_EXCEEDED */
    [5] = ERROR_CATEGORY_NOT_FOUND,           /* NOT_FOUND */
    [6] = ERROR_CATEGORY_CONFLICT,            /* ALREADY_EXISTS */
    [7] = ERROR_CATEGORY_PERMISSION_DENIED,   /* PERMISSION_DENIED */
    [8] = ERROR_CATEGORY_RATE_LIMITED,        /* RESOURCE_EXHAUSTED */
    [9] = ERROR_CATEGORY_FAILED_PRECONDITION, /* FAILED_PRECONDITION */
    [10] = ERROR_CATEGORY_CONFLICT,           /* ABORTED */
    [11] = ERROR_CATEGORY_INVALID_ARGUMENT,   /* OUT_OF_RANGE */
    [12] = ERROR_CATEGORY_UNSUPPORTED,        /* UNIMPLEMENTED */
    [13] = ERROR_CATEGORY_INTERNAL,           /* INTERNAL */
    [14] = ERROR_CATEGORY_UNAVAILABLE,        /* UNAVAILABLE */
    [15] = ERROR_CATEGORY_INTERNAL,           /* DATA_LOSS */
    [16] = ERROR_CATEGORY_UNAUTHENTICATED,    /* UNAUTHENTICATED */
};
#define GRPC_COUNT ((int)(sizeof(FROM_GRPC) / sizeof(FROM_GRPC[0])))

struct code_row {
  enum error_category category;
  const char *text;
  const char *summary;
};

static const struct code_row CODES[ERR_CODE_COUNT] = {
    [ERR_NONE] = {ERROR_CATEGORY_NONE, "", "No error."},
#define ERROR_CODE(name, category, text, summary) [ERR_##name] = {ERROR_CATEGORY_##category, text, summary},
#include "sdk/base/error_codes.def"
#undef ERROR_CODE
};

#define ERROR_CODE(name, category, text, summary)                                                                      \
  _Static_assert(sizeof(text) > 1 && sizeof(text) <= ERROR_CODE_MAX, "code text length: " #name);                      \
  _Static_assert(sizeof(summary) > 1 && sizeof(summary) <= ERROR_MESSAGE_MAX, "summary length: " #name);
#include "sdk/base/error_codes.def"
#undef ERROR_CODE

static const char *const ORIGINS[] = {
    [ERROR_ORIGIN_UNSPECIFIED] = "unspecified", [ERROR_ORIGIN_MODULE] = "module",     [ERROR_ORIGIN_CORE] = "core",
    [ERROR_ORIGIN_PLUGIN] = "plugin",           [ERROR_ORIGIN_UPSTREAM] = "upstream",
};

static _Atomic int origin_default = ERROR_ORIGIN_CORE;

static const struct category_row *category_row(enum error_category category) {
  unsigned index = (unsigned)category;
  return &CATEGORIES[index < CATEGORY_COUNT ? index : ERROR_CATEGORY_INTERNAL];
}

static const struct code_row *code_row(enum error_code code) {
  unsigned index = (unsigned)code;
  return &CODES[index < ERR_CODE_COUNT ? index : ERR_INTERNAL];
}

/* Copies text into target: cut at a character boundary; control characters and broken UTF-8 become '?'. */
static void copy_printable(char *target, size_t target_bytes, const char *source, bool ascii_only) {
  const char *end = source + strlen(source);
  size_t used = 0;
  while (source < end) {
    unsigned length = base_utf8_length(source, end);
    bool plain = length > 1 ? !ascii_only : length == 1 && (unsigned char)*source >= 0x20 && *source != 0x7f;
    unsigned out_length = plain ? length : 1;
    if (used + out_length >= target_bytes)
      break;
    if (plain)
      memcpy(target + used, source, length);
    else
      target[used] = '?';
    used += out_length;
    source += length ? length : 1;
  }
  target[used] = 0;
}

bool error_set(struct error *err, enum error_code code, const char *format, ...) {
  if (!err)
    return false;
  const struct code_row *row = code_row(code);
  memset(err, 0, sizeof *err);
  err->category = row->category;
  err->origin = (enum error_origin)atomic_load_explicit(&origin_default, memory_order_relaxed);
  err->retryable = error_category_retryable(row->category);
  str_copy(err->code, sizeof err->code, row->text);
  if (format) {
    char text[ERROR_MESSAGE_MAX * 2];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    copy_printable(err->message, sizeof err->message, length < 0 ? row->summary : text, false);
  } else {
    str_copy(err->message, sizeof err->message, row->summary);
  }
  return false;
}

bool error_set_foreign(struct error *err, enum error_category category, enum error_origin origin, const char *code,
                       const char *message) {
  if (!err)
    return false;
  memset(err, 0, sizeof *err);
  bool known = (unsigned)category < CATEGORY_COUNT && category != ERROR_CATEGORY_NONE;
  err->category = known ? category : ERROR_CATEGORY_INTERNAL;
  err->origin = (unsigned)origin < sizeof(ORIGINS) / sizeof(ORIGINS[0]) ? origin : ERROR_ORIGIN_UNSPECIFIED;
  err->retryable = error_category_retryable(err->category);
  err->foreign = true;
  copy_printable(err->code, sizeof err->code, str_is_empty(code) ? CODES[ERR_INTERNAL].text : code, true);
  copy_printable(err->message, sizeof err->message, message ? message : "", false);
  return false;
}

void error_origin_default_set(enum error_origin origin) {
  atomic_store_explicit(&origin_default, (int)origin, memory_order_relaxed);
}

void error_clear(struct error *err) {
  if (err)
    memset(err, 0, sizeof *err);
}

bool error_is(const struct error *err, enum error_code code) {
  return err && error_is_set(err) && strcmp(err->code, code_row(code)->text) == 0;
}

const char *error_category_name(enum error_category category) {
  return category_row(category)->name;
}

enum error_category error_category_from_name(const char *name) {
  for (unsigned i = 0; i < CATEGORY_COUNT; i++)
    if (str_equal(CATEGORIES[i].name, name))
      return (enum error_category)i;
  return ERROR_CATEGORY_INTERNAL;
}

int error_category_http_status(enum error_category category) {
  return category_row(category)->http_status;
}

int error_category_grpc_status(enum error_category category) {
  return category_row(category)->grpc_status;
}

bool error_category_retryable(enum error_category category) {
  return category_row(category)->retryable;
}

enum error_category error_category_from_grpc_status(int grpc_status) {
  if (grpc_status < 0 || grpc_status >= GRPC_COUNT)
    return ERROR_CATEGORY_INTERNAL;
  return FROM_GRPC[grpc_status];
}

const char *error_origin_name(enum error_origin origin) {
  unsigned index = (unsigned)origin;
  return ORIGINS[index < sizeof(ORIGINS) / sizeof(ORIGINS[0]) ? index : ERROR_ORIGIN_UNSPECIFIED];
}

const char *error_code_text(enum error_code code) {
  return code_row(code)->text;
}

const char *error_code_summary(enum error_code code) {
  return code_row(code)->summary;
}

enum error_category error_code_category(enum error_code code) {
  return code_row(code)->category;
}
