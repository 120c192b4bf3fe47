/* secret.c: each secret has its own anonymous mapping, so that locking, dump exclusion and wiping never touch a
 * neighbour. mlock is best effort (RLIMIT_MEMLOCK); leaving it out of core dumps and wiping are not. */
#include "sdk/base/secret.h"

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "sdk/base/check.h"
#include "sdk/base/str.h"

#define SECRET_MAGIC 0x73656372u

struct secret {
  uint32_t magic;
  size_t length;
  size_t mapping_bytes;
  char data[];
};

struct secret *secret_create(const void *data, size_t length) {
  size_t mapping_bytes;
  BASE_CHECK(!__builtin_add_overflow(length, sizeof(struct secret) + 1, &mapping_bytes));
  struct secret *secret = mmap(NULL, mapping_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  BASE_CHECK(secret != MAP_FAILED);
  (void)mlock(secret, mapping_bytes);
  BASE_CHECK(madvise(secret, mapping_bytes, MADV_DONTDUMP) == 0);
  secret->magic = SECRET_MAGIC;
  secret->length = length;
  secret->mapping_bytes = mapping_bytes;
  if (length)
    memcpy(secret->data, data, length);
  return secret;
}

struct secret *secret_from_text(const char *text) {
  return secret_create(text, strlen(text));
}

void secret_free(struct secret **secret) {
  if (!secret || !*secret)
    return;
  BASE_CHECK_MAGIC(*secret, SECRET_MAGIC);
  size_t mapping_bytes = (*secret)->mapping_bytes;
  secret_wipe(*secret, mapping_bytes);
  BASE_CHECK(munmap(*secret, mapping_bytes) == 0);
  *secret = NULL;
}

size_t secret_length(const struct secret *secret) {
  BASE_CHECK_MAGIC(secret, SECRET_MAGIC);
  return secret->length;
}

const char *secret_reveal(const struct secret *secret) {
  BASE_CHECK_MAGIC(secret, SECRET_MAGIC);
  return secret->data;
}

bool secret_equal(const struct secret *secret, const void *data, size_t length) {
  if (!secret)
    return false;
  BASE_CHECK_MAGIC(secret, SECRET_MAGIC);
  return str_equal_constant_time(data, length, secret->data, secret->length);
}

void secret_wipe(void *memory, size_t length) {
  if (length)
    explicit_bzero(memory, length);
}

void secret_harden_process(void) {
  const struct rlimit none = {0, 0};
  (void)setrlimit(RLIMIT_CORE, &none);
#ifndef __SANITIZE_ADDRESS__ /* the leak checker attaches to its own process with ptrace */
  BASE_CHECK(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0);
#endif
}
