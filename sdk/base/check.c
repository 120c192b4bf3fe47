/* check.c: the end of an impossible state. */
#include "sdk/base/check.h"

#include <stdlib.h>

#include "sdk/base/log.h"

void base_panic(const char *file, int line, const char *condition) {
  log_write(LOG_PANIC, "base", "check failed",
            (const struct log_field[]){LOG_TEXT("file", file), LOG_INT("line", line), LOG_TEXT("condition", condition)},
            3);
  abort();
}
