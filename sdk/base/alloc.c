/* alloc.c: malloc that never answers NULL. Running out of memory is reported with write(2) only and ends the process
 * with a status that says so. */
#include "sdk/base/alloc.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void __attribute__((noreturn, cold)) out_of_memory(void) {
  static const char line[] = "{\"level\":\"panic\",\"room\":\"base\",\"message\":\"out of memory\"}\n";
  ssize_t ignored = write(STDERR_FILENO, line, sizeof line - 1);
  (void)ignored;
  _exit(BASE_EXIT_OUT_OF_MEMORY);
}

static size_t product(size_t count, size_t size_bytes) {
  size_t total;
  if (__builtin_mul_overflow(count, size_bytes, &total))
    out_of_memory();
  return total ? total : 1;
}

void *base_alloc(size_t size_bytes) {
  void *memory = malloc(size_bytes ? size_bytes : 1);
  if (!memory)
    out_of_memory();
  return memory;
}

void *base_calloc(size_t count, size_t size_bytes) {
  void *memory = calloc(1, product(count, size_bytes));
  if (!memory)
    out_of_memory();
  return memory;
}

void *base_realloc(void *memory, size_t size_bytes) {
  void *grown = realloc(memory, size_bytes ? size_bytes : 1);
  if (!grown)
    out_of_memory();
  return grown;
}

void *base_realloc_array(void *memory, size_t count, size_t size_bytes) {
  return base_realloc(memory, product(count, size_bytes));
}

void *base_memdup(const void *data, size_t size_bytes) {
  size_t total;
  if (__builtin_add_overflow(size_bytes, 1, &total))
    out_of_memory();
  char *copy = base_alloc(total);
  if (size_bytes)
    memcpy(copy, data, size_bytes);
  copy[size_bytes] = 0;
  return copy;
}

char *base_strdup(const char *text) {
  return base_memdup(text, strlen(text));
}

char *base_strndup(const char *text, size_t length_max) {
  return base_memdup(text, strnlen(text, length_max));
}

char *base_asprintf(const char *format, ...) {
  char *text = NULL;
  va_list arguments;
  va_start(arguments, format);
  int length = vasprintf(&text, format, arguments);
  va_end(arguments);
  if (length < 0)
    out_of_memory();
  return text;
}

void base_free(void *memory) {
  free(memory);
}
