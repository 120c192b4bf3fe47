/* test_statics.h: whether a text stands in the static memory of the test's program or in what this thread has of its
 * thread-local memory: what has to be forgotten after use must not stay in a buffer that lives as long as the process.
 * For *_test.c only. */
#ifndef GATEHOUSE_BASE_TEST_STATICS_H
#define GATEHOUSE_BASE_TEST_STATICS_H

#include <link.h>
#include <stdbool.h>
#include <string.h>

struct statics_search {
  const char *text;
  size_t length;
  bool found;
};

/* Also between objects, where a sanitizer would object, and without memmem(), which it watches. */
__attribute__((no_sanitize("address", "thread"))) static inline void
statics_range(struct statics_search *search, const volatile char *from, size_t bytes) {
  for (size_t at = 0; at + search->length <= bytes && !search->found; at++) {
    size_t same = 0;
    while (same < search->length && from[at + same] == search->text[same])
      same++;
    search->found = same == search->length;
  }
}

static inline int statics_program(struct dl_phdr_info *info, size_t size, void *context) {
  (void)size;
  for (size_t i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) *part = &info->dlpi_phdr[i];
    if (part->p_type == PT_LOAD && (part->p_flags & PF_W))
      statics_range(context, (const char *)(info->dlpi_addr + part->p_vaddr), part->p_memsz);
    else if (part->p_type == PT_TLS && info->dlpi_tls_data)
      statics_range(context, info->dlpi_tls_data, part->p_memsz);
  }
  return 1; /* the program itself is the first one, and holds what is linked into it */
}

/* The text is a literal, and so not itself in memory that is written. */
static inline bool statics_hold(const char *text) {
  struct statics_search search = {.text = text, .length = strlen(text)};
  dl_iterate_phdr(statics_program, &search);
  return search.found;
}

#endif
