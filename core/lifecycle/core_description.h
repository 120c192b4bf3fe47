/* core_description.h: what a program of the core says of itself (`gatehouse-core --describe`), and whether it can take
 * the place of this one (LIF-10). Pure. One object of JSON on one line of less than 256 bytes; what it does not know it
 * passes over, so that later versions may say more. */
#ifndef GATEHOUSE_CORE_LIFECYCLE_CORE_DESCRIPTION_H
#define GATEHOUSE_CORE_LIFECYCLE_CORE_DESCRIPTION_H

#include <stdbool.h>
#include <stdint.h>

#include "sdk/base/buf.h"
#include "sdk/base/error.h"

struct lifecycle_core_description {
  char version[64];
  uint64_t store_schema; /* that it writes */
};

/* Appends the line, without its newline. */
void lifecycle_core_description_write(const struct lifecycle_core_description *description, struct buf *target);
/* ERR_MODULE_PROGRAM: it is no description of a core. */
bool lifecycle_core_description_read(const char *line, struct lifecycle_core_description *description,
                                     struct error *err);

/* Whether a program that writes schema next can follow one that writes schema now; 0: there is no store that lasts.
 * no_rollback: the operator accepts that there is no way back. *final: there is none. ERR_CORE_SCHEMA. */
bool lifecycle_core_schema_fits(uint64_t now, uint64_t next, bool no_rollback, bool *final, struct error *err);

#endif
