/* siphash.h: SipHash-2-4 (Aumasson, Bernstein 2012): a keyed hash for tables of what outsiders send. Who does not know
 * the key can neither find two texts that hash alike nor learn the text from its hash. The key comes from
 * id_random_bytes(). Of 128 bits, a piece at a time, or of 64 bits: two texts may hash alike then, and whoever looks
 * one up compares. The same bytes on every machine, so a hash may be stored. No allocation; one owner per state. */
#ifndef GATEHOUSE_BASE_SIPHASH_H
#define GATEHOUSE_BASE_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

#define SIPHASH_KEY_BYTES 16
#define SIPHASH_BYTES 16

struct siphash {
  uint64_t v[4];
  uint64_t tail; /* bytes that do not fill a word yet */
  uint64_t length;
};

void siphash_init(struct siphash *state, const uint8_t key[static SIPHASH_KEY_BYTES]);
void siphash_update(struct siphash *state, const void *data, size_t length);
/* The state is used up. */
void siphash_final(struct siphash *state, uint8_t target[static SIPHASH_BYTES]);
/* 64 bits, of one piece. */
uint64_t siphash_64(const uint8_t key[static SIPHASH_KEY_BYTES], const void *data, size_t length);

#endif
