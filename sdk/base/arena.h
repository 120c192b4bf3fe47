/* arena.h: request-scoped memory that is freed as one. Not thread safe; one owner. Freed memory is not returned
 * piecewise. */
#ifndef GATEHOUSE_BASE_ARENA_H
#define GATEHOUSE_BASE_ARENA_H

#include <stddef.h>

struct arena;

struct arena *arena_create(size_t first_block_bytes); /* 0: a sensible default */
void arena_free(struct arena **arena);                /* frees everything, nulls the pointer; NULL-safe */
void arena_reset(struct arena *arena);                /* forgets the content, keeps the first block */
void *arena_alloc(struct arena *arena, size_t size_bytes)
    __attribute__((malloc, returns_nonnull)); /* zeroed, 16-aligned */
char *arena_strdup(struct arena *arena, const char *text) __attribute__((malloc, returns_nonnull));
void *arena_memdup(struct arena *arena, const void *data, size_t size_bytes)
    __attribute__((malloc, returns_nonnull)); /* NUL added */
char *arena_printf(struct arena *arena, const char *format, ...) __attribute__((returns_nonnull, format(printf, 2, 3)));
size_t arena_size_bytes(const struct arena *arena); /* what it holds from the system */

#endif
