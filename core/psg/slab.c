/* slab.c: memory for what comes all at once when the graph is loaded: thousands of nodes, objects and edges.
 *
 * The general allocator would ask the kernel for each page of it, one after the other, and each would be faulted in on
 * its own: on a virtual machine a third of the load. Here a chunk is mapped whole: the first one small, as many graphs
 * are, each further one a huge page where the system gives those to who asks. A piece is given back like any other; a
 * chunk goes when its last piece does, which the history of executions sees to, as it forgets the oldest first. */
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "core/psg/psg_internal.h"

#define CHUNK_BYTES ((size_t)2 << 20) /* of a huge page; where every chunk begins */
#define CHUNK_BYTES_FIRST ((size_t)256 << 10)
#define PIECE_BYTES_MAX ((size_t)32 << 10)
#define PIECE_ALIGNMENT 16u

struct psg_chunk {
  size_t size, used, pieces;
};
#define CHUNK_HEAD_BYTES ((sizeof(struct psg_chunk) + PIECE_ALIGNMENT - 1) & ~(size_t)(PIECE_ALIGNMENT - 1))

static struct psg_chunk *chunk_make(size_t size) {
  size_t span = size + CHUNK_BYTES;
  char *mapped = mmap(NULL, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED)
    return NULL;
  size_t before = -(uintptr_t)mapped & (CHUNK_BYTES - 1);
  char *chunk = mapped + before;
  if (before)
    munmap(mapped, before);
  munmap(chunk + size, span - before - size);
  madvise(chunk, size, size == CHUNK_BYTES ? MADV_HUGEPAGE : MADV_POPULATE_WRITE); /* or page by page */
  struct psg_chunk *made = (struct psg_chunk *)(void *)chunk;
  *made = (struct psg_chunk){.size = size, .used = CHUNK_HEAD_BYTES, .pieces = 1};
  return made;
}

static void piece_return(struct psg_chunk *chunk) {
  BASE_CHECK(chunk->pieces > 0);
  if (--chunk->pieces == 0)
    munmap(chunk, chunk->size);
}

void *psg_slab_take(struct psg_chunk **slab, size_t size_bytes) {
  size_t size = (size_bytes + PIECE_ALIGNMENT - 1) & ~(size_t)(PIECE_ALIGNMENT - 1);
  if (size_bytes == 0 || size_bytes > PIECE_BYTES_MAX)
    return NULL;
  if (!*slab || (*slab)->size - (*slab)->used < size) {
    size_t chunk_size = *slab ? CHUNK_BYTES : CHUNK_BYTES_FIRST;
    psg_slab_close(slab);
    if (!(*slab = chunk_make(chunk_size)))
      return NULL;
  }
  void *piece = (char *)*slab + (*slab)->used;
  (*slab)->used += size;
  (*slab)->pieces++;
  return piece;
}

void psg_slab_give(void *piece) {
  piece_return((struct psg_chunk *)((uintptr_t)piece & ~(uintptr_t)(CHUNK_BYTES - 1)));
}

void psg_slab_close(struct psg_chunk **slab) {
  struct psg_chunk *chunk = BASE_TAKE(*slab);
  if (chunk)
    piece_return(chunk);
}
