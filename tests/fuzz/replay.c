/* replay.c: main() of a fuzz target that was built without libFuzzer: feeds it every file of the named directories,
 * whole, cut short at every place, and bent by a fixed sequence of changes, so that each run is the same. A crash or a
 * failed check ends the program; leaks are the sanitizer's to report. Exits 1 when there was nothing to feed. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sdk/base/alloc.h"
#include "sdk/base/buf.h"
#include "sdk/base/error.h"
#include "sdk/base/io.h"

#define SEED_BYTES_MAX (1024 * 1024)
#define CUTS_MAX 256
#define CHANGES 200

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t runs;

/* In memory of exactly this size, so that reading beyond it is seen. */
static void feed(const uint8_t *data, size_t size) {
  uint8_t *copy = malloc(size > 0 ? size : 1);
  if (copy == NULL)
    abort();
  if (size > 0)
    memcpy(copy, data, size);
  (void)LLVMFuzzerTestOneInput(copy, size);
  free(copy);
  runs++;
}

/* Knuth's MMIX generator: the same on every machine. */
static uint64_t next_number(uint64_t *state) {
  *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return *state >> 33;
}

static void feed_bent(const uint8_t *data, size_t size) {
  static const uint8_t telling[] = {0x00, 0x01, 0x7f, 0x80, 0xff, '"', '\\', '{',
                                    '}',  '[',  ']',  '\r', '\n', ':', '0',  '-'};
  uint64_t state = size;
  uint8_t *bent = malloc(size);
  if (bent == NULL)
    abort();
  memcpy(bent, data, size);
  for (unsigned i = 0; i < CHANGES; i++) {
    size_t place = next_number(&state) % size;
    bent[place] = telling[next_number(&state) % sizeof(telling)];
    feed(bent, size);
    if (i % 4 == 3) /* up to four changes pile up */
      memcpy(bent, data, size);
  }
  free(bent);
}

static void feed_file(const char *path) {
  struct buf seed = {0};
  struct error err;
  if (!io_read_file(path, SEED_BYTES_MAX, &seed, &err)) {
    (void)fprintf(stderr, "%s: %s\n", path, err.message);
    exit(EXIT_FAILURE);
  }
  const uint8_t *data = (const uint8_t *)seed.data;
  feed(data, seed.length);
  for (size_t cut = 0; cut < seed.length && cut < CUTS_MAX; cut++)
    feed(data, cut);
  if (seed.length > 0)
    feed_bent(data, seed.length);
  buf_free(&seed);
}

static int is_seed(const struct dirent *entry) {
  return entry->d_name[0] != '.';
}

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    struct dirent **entries;
    int count = scandir(argv[i], &entries, is_seed, alphasort);
    if (count < 0) {
      perror(argv[i]);
      return EXIT_FAILURE;
    }
    for (int j = 0; j < count; j++) {
      char *path = base_asprintf("%s/%s", argv[i], entries[j]->d_name);
      feed_file(path);
      base_free(path);
      free(entries[j]);
    }
    free(entries);
  }
  (void)printf("%zu inputs\n", runs);
  return runs > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
