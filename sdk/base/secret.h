/* secret.h: bytes that must not leak (SPI-14): locked in memory, left out of core dumps, wiped when freed. There is no
 * way to print one; comparing is constant time. One owner. */
#ifndef GATEHOUSE_BASE_SECRET_H
#define GATEHOUSE_BASE_SECRET_H

#include <stdbool.h>
#include <stddef.h>

struct secret;

struct secret *secret_create(const void *data,
                             size_t length); /* copies; the caller wipes its own copy with secret_wipe */
struct secret *secret_from_text(const char *text);
void secret_free(struct secret **secret); /* wipes, nulls; NULL-safe */
size_t secret_length(const struct secret *secret);
const char *secret_reveal(const struct secret *secret); /* NUL-terminated; valid while the secret lives; never log it */
bool secret_equal(const struct secret *secret, const void *data, size_t length); /* constant time; NULL secret: false */
void secret_wipe(void *memory, size_t length);                                   /* not optimised away */
/* For a whole process: no core dump, not ptraceable (PR_SET_DUMPABLE 0). Called at the start of every process. */
void secret_harden_process(void);

#endif
