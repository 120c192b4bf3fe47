/* alloc.h: memory. Allocation never returns NULL: out of memory is reported on stderr and ends the process with
 * BASE_EXIT_OUT_OF_MEMORY, so that its supervisor knows the cause. base_free(NULL) is fine. All sizes in bytes; array
 * sizes are multiplied with overflow checks. Any thread. */
#ifndef GATEHOUSE_BASE_ALLOC_H
#define GATEHOUSE_BASE_ALLOC_H

#include <stddef.h>

#define BASE_EXIT_OUT_OF_MEMORY 112

void *base_alloc(size_t size_bytes) __attribute__((malloc, returns_nonnull));
void *base_calloc(size_t count, size_t size_bytes) __attribute__((malloc, returns_nonnull)); /* zeroed */
void *base_realloc(void *memory, size_t size_bytes) __attribute__((returns_nonnull));
void *base_realloc_array(void *memory, size_t count, size_t size_bytes) __attribute__((returns_nonnull));
char *base_strdup(const char *text) __attribute__((malloc, returns_nonnull));
char *base_strndup(const char *text, size_t length_max) __attribute__((malloc, returns_nonnull));
void *base_memdup(const void *data, size_t size_bytes)
    __attribute__((malloc, returns_nonnull)); /* one NUL is added behind */
char *base_asprintf(const char *format, ...) __attribute__((malloc, returns_nonnull, format(printf, 1, 2)));
void base_free(void *memory);

/* Typed: BASE_NEW(struct thing) is zeroed. */
#define BASE_NEW(type) ((type *)base_calloc(1, sizeof(type)))

/* Gives ownership away: evaluates to the pointer and nulls the giver. */
#define BASE_TAKE(pointer)                                                                                             \
  __extension__({                                                                                                      \
    __typeof__(pointer) base_taken_ = (pointer);                                                                       \
    (pointer) = NULL;                                                                                                  \
    base_taken_;                                                                                                       \
  })

#endif
