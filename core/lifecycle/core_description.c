/* core_description.c: see core_description.h. */
#include "core/lifecycle/core_description.h"

#include <string.h>

#include "sdk/base/alloc.h"
#include "sdk/base/json.h"
#include "sdk/base/str.h"

#define PROGRAM "gatehouse-core"
#define NUMBER_BYTES 24

void lifecycle_core_description_write(const struct lifecycle_core_description *description, struct buf *target) {
  buf_append_text(target, "{\"program\":\"" PROGRAM "\",\"version\":");
  buf_append_json_string(target, description->version, strlen(description->version));
  buf_printf(target, ",\"storeSchema\":%llu}", (unsigned long long)description->store_schema);
}

/* A text of the object; NULL: it is not there, or is none. The caller frees it. */
static char *text_member(const char *line, const char *key) {
  const char *value;
  size_t length;
  return json_member(line, strlen(line), key, &value, &length) ? json_string_decode(value, length) : NULL;
}

static bool number_member(const char *line, const char *key, uint64_t *number) {
  const char *value;
  char digits[NUMBER_BYTES];
  size_t length;
  if (!json_member(line, strlen(line), key, &value, &length) || length >= sizeof(digits))
    return false;
  memcpy(digits, value, length);
  digits[length] = '\0';
  return str_parse_u64(digits, number);
}

bool lifecycle_core_description_read(const char *line, struct lifecycle_core_description *description,
                                     struct error *err) {
  *description = (struct lifecycle_core_description){0};
  bool sound = json_check(line, strlen(line), JSON_DEPTH_MAX, NULL);
  char *program = sound ? text_member(line, "program") : NULL, *version = sound ? text_member(line, "version") : NULL;
  bool ok = str_equal(program, PROGRAM) && version && number_member(line, "storeSchema", &description->store_schema) &&
            description->store_schema > 0;
  if (ok)
    str_copy(description->version, sizeof(description->version), version);
  base_free(program);
  base_free(version);
  return ok || error_set(err, ERR_MODULE_PROGRAM, "it does not describe itself as a core with --describe");
}

bool lifecycle_core_schema_fits(uint64_t now, uint64_t next, bool no_rollback, bool *final, struct error *err) {
  *final = now != 0 && next > now;
  if (now != 0 && next < now)
    return error_set(err, ERR_CORE_SCHEMA,
                     "it writes version %llu of the store's schema and cannot open this store, which has version %llu",
                     (unsigned long long)next, (unsigned long long)now);
  return !*final || no_rollback ||
         error_set(
             err, ERR_CORE_SCHEMA,
             "it brings the store from version %llu of the schema to %llu, from which nothing goes back: copy the "
             "store first, and say --no-rollback",
             (unsigned long long)now, (unsigned long long)next);
}
