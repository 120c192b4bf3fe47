/* siphash.c: see siphash.h. Words are little endian, as the definition says. */
#include "sdk/base/siphash.h"

#include <endian.h>
#include <string.h>

#define COMPRESSION_ROUNDS 2
#define FINAL_ROUNDS 4

static uint64_t rotate(uint64_t value, unsigned bits) {
  return value << bits | value >> (64 - bits);
}

static inline void mix(uint64_t v[static 4], int rounds) {
  uint64_t a = v[0], b = v[1], c = v[2], d = v[3];
  while (rounds-- > 0) {
    a += b;
    b = rotate(b, 13) ^ a;
    a = rotate(a, 32);
    c += d;
    d = rotate(d, 16) ^ c;
    a += d;
    d = rotate(d, 21) ^ a;
    c += b;
    b = rotate(b, 17) ^ c;
    c = rotate(c, 32);
  }
  v[0] = a, v[1] = b, v[2] = c, v[3] = d;
}

static uint64_t load(const uint8_t *bytes) {
  uint64_t word;
  memcpy(&word, bytes, sizeof(word));
  return le64toh(word);
}

static void take_word(struct siphash *state, uint64_t word) {
  state->v[3] ^= word;
  mix(state->v, COMPRESSION_ROUNDS);
  state->v[0] ^= word;
}

static struct siphash begin(const uint8_t key[static SIPHASH_KEY_BYTES]) {
  uint64_t k0 = load(key), k1 = load(key + 8);
  return (struct siphash){.v = {k0 ^ UINT64_C(0x736f6d6570736575), k1 ^ UINT64_C(0x646f72616e646f6d),
                                k0 ^ UINT64_C(0x6c7967656e657261), k1 ^ UINT64_C(0x7465646279746573)}};
}

void siphash_init(struct siphash *state, const uint8_t key[static SIPHASH_KEY_BYTES]) {
  *state = begin(key);
  state->v[1] ^= 0xee;
}

void siphash_update(struct siphash *state, const void *data, size_t length) {
  const uint8_t *bytes = data;
  unsigned have = (unsigned)(state->length % 8);
  state->length += length;
  if (have > 0) {
    for (; have < 8 && length > 0; have++, length--)
      state->tail |= (uint64_t)*bytes++ << 8 * have;
    if (have < 8)
      return;
    take_word(state, state->tail);
    state->tail = 0;
  }
  for (; length >= 8; length -= 8, bytes += 8)
    take_word(state, load(bytes));
  for (size_t i = 0; i < length; i++)
    state->tail |= (uint64_t)bytes[i] << 8 * i;
}

static uint64_t word_out(struct siphash *state) {
  mix(state->v, FINAL_ROUNDS);
  return state->v[0] ^ state->v[1] ^ state->v[2] ^ state->v[3];
}

void siphash_final(struct siphash *state, uint8_t target[static SIPHASH_BYTES]) {
  uint64_t halves[2];
  take_word(state, state->tail | state->length << 56);
  state->v[2] ^= 0xee;
  halves[0] = htole64(word_out(state));
  state->v[1] ^= 0xdd;
  halves[1] = htole64(word_out(state));
  memcpy(target, halves, sizeof(halves));
}

uint64_t siphash_64(const uint8_t key[static SIPHASH_KEY_BYTES], const void *data, size_t length) {
  struct siphash state = begin(key);
  siphash_update(&state, data, length);
  take_word(&state, state.tail | state.length << 56);
  state.v[2] ^= 0xff;
  return word_out(&state);
}
