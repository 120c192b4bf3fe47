/* arena.c: bump allocation in a chain of blocks, newest first. The first block survives arena_reset, so a request after
 * the first one usually allocates nothing. A piece larger than a block gets a block of its own. */
#include "sdk/base/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "sdk/base/alloc.h"
#include "sdk/base/check.h"

#define ARENA_MAGIC 0x61726e61u
#define ARENA_ALIGN 16u
#define ARENA_BLOCK_DEFAULT 4096u
#define ARENA_BLOCK_MAX (256u * 1024u)

struct arena_block {
  struct arena_block *next;
  size_t used;
  size_t capacity;
  _Alignas(ARENA_ALIGN) char data[];
};

struct arena {
  uint32_t magic;
  struct arena_block *head;
  struct arena_block *first;
  size_t next_block_bytes;
  size_t held_bytes;
};

static struct arena_block *block_add(struct arena *arena, size_t capacity) {
  size_t total;
  BASE_CHECK(!__builtin_add_overflow(capacity, sizeof(struct arena_block), &total));
  struct arena_block *block = base_alloc(total);
  block->next = arena->head;
  block->used = 0;
  block->capacity = capacity;
  arena->head = block;
  arena->held_bytes += total;
  return block;
}

struct arena *arena_create(size_t first_block_bytes) {
  struct arena *arena = BASE_NEW(struct arena);
  arena->magic = ARENA_MAGIC;
  arena->next_block_bytes = first_block_bytes ? first_block_bytes : ARENA_BLOCK_DEFAULT;
  arena->first = block_add(arena, arena->next_block_bytes);
  return arena;
}

void arena_reset(struct arena *arena) {
  BASE_CHECK_MAGIC(arena, ARENA_MAGIC);
  while (arena->head != arena->first) {
    struct arena_block *block = arena->head;
    arena->head = block->next;
    arena->held_bytes -= sizeof *block + block->capacity;
    base_free(block);
  }
  arena->first->used = 0;
}

void arena_free(struct arena **arena) {
  if (!arena || !*arena)
    return;
  arena_reset(*arena);
  base_free((*arena)->first);
  (*arena)->magic = 0;
  base_free(*arena);
  *arena = NULL;
}

static void *arena_take(struct arena *arena, size_t size_bytes) {
  BASE_CHECK_MAGIC(arena, ARENA_MAGIC);
  size_t rounded;
  BASE_CHECK(!__builtin_add_overflow(size_bytes, ARENA_ALIGN - 1, &rounded));
  rounded &= ~(size_t)(ARENA_ALIGN - 1);
  struct arena_block *block = arena->head;
  if (rounded > block->capacity - block->used) {
    if (arena->next_block_bytes < ARENA_BLOCK_MAX)
      arena->next_block_bytes *= 2;
    block = block_add(arena, rounded > arena->next_block_bytes ? rounded : arena->next_block_bytes);
  }
  void *memory = block->data + block->used;
  block->used += rounded;
  return memory;
}

void *arena_alloc(struct arena *arena, size_t size_bytes) {
  return memset(arena_take(arena, size_bytes), 0, size_bytes);
}

void *arena_memdup(struct arena *arena, const void *data, size_t size_bytes) {
  size_t total;
  BASE_CHECK(!__builtin_add_overflow(size_bytes, 1, &total));
  char *copy = arena_take(arena, total);
  if (size_bytes)
    memcpy(copy, data, size_bytes);
  copy[size_bytes] = 0;
  return copy;
}

char *arena_strdup(struct arena *arena, const char *text) {
  return arena_memdup(arena, text, strlen(text));
}

char *arena_printf(struct arena *arena, const char *format, ...) {
  va_list arguments, again;
  va_start(arguments, format);
  va_copy(again, arguments);
  int length = vsnprintf(NULL, 0, format, arguments);
  BASE_CHECK(length >= 0);
  char *text = arena_take(arena, (size_t)length + 1);
  vsnprintf(text, (size_t)length + 1, format, again);
  va_end(again);
  va_end(arguments);
  return text;
}

size_t arena_size_bytes(const struct arena *arena) {
  BASE_CHECK_MAGIC(arena, ARENA_MAGIC);
  return sizeof *arena + arena->held_bytes;
}
