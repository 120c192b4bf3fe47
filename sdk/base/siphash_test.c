/* siphash_test.c: the vectors of the reference implementation, in every way of cutting the input. */
#include "sdk/base/siphash.h"

#include <endian.h>
#include <string.h>

#include "sdk/base/str.h"
#include "sdk/base/test.h"

/* Key 00 01 … 0f, message 00 01 … of that length. */
static const struct {
  size_t length;
  const char *hash, *hash_64;
} vectors[] = {
    {0, "a3817f04ba25a8e66df67214c7550293", "310e0edd47db6f72"},
    {1, "da87c1d86b99af44347659119b22fc45", "fd67dc93c539f874"},
    {7, "a1f1ebbed8dbc153c0b84aa61ff08239", "37d1018bf50002ab"},
    {8, "3b62a9ba6258f5610f83e264f31497b4", "6224939a79f5f593"},
    {15, "5493e99933b0a8117e08ec0f97cfc3d9", "e545be4961ca29a1"},
    {16, "6ee2a4ca67b054bbfd3315bf85230577", "db9bc2577fcc2a3f"},
    {63, "5150d1772f50834a503e069a973fbd7c", "724506eb4c328a95"},
};

START_TEST(the_reference_vectors_come_out_however_the_input_is_cut) {
  uint8_t key[SIPHASH_KEY_BYTES], message[64], hash[SIPHASH_BYTES];
  char hex[2 * SIPHASH_BYTES + 1];
  for (size_t i = 0; i < sizeof(message); i++)
    message[i] = (uint8_t)i;
  memcpy(key, message, sizeof(key));
  for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
    size_t length = vectors[i].length;
    for (size_t first = 0; first <= length; first++) {
      for (size_t step = 1; step <= 9; step++) {
        struct siphash state;
        siphash_init(&state, key);
        siphash_update(&state, message, first);
        for (size_t at = first; at < length; at += step)
          siphash_update(&state, message + at, length - at < step ? length - at : step);
        siphash_final(&state, hash);
        str_hex_encode(hex, hash, sizeof(hash));
        ck_assert_str_eq(hex, vectors[i].hash);
      }
    }
  }
}
END_TEST

START_TEST(the_reference_vectors_of_64_bits_come_out) {
  uint8_t key[SIPHASH_KEY_BYTES], message[64];
  char hex[2 * sizeof(uint64_t) + 1];
  for (size_t i = 0; i < sizeof(message); i++)
    message[i] = (uint8_t)i;
  memcpy(key, message, sizeof(key));
  for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
    uint64_t hash = htole64(siphash_64(key, message, vectors[i].length));
    str_hex_encode(hex, (const uint8_t *)&hash, sizeof(hash));
    ck_assert_str_eq(hex, vectors[i].hash_64);
  }
}
END_TEST

START_TEST(another_key_gives_another_hash) {
  uint8_t key[SIPHASH_KEY_BYTES] = {0}, first[SIPHASH_BYTES], second[SIPHASH_BYTES];
  struct siphash state;
  siphash_init(&state, key);
  siphash_update(&state, "text", 4);
  siphash_final(&state, first);
  key[SIPHASH_KEY_BYTES - 1] = 1;
  siphash_init(&state, key);
  siphash_update(&state, "text", 4);
  siphash_final(&state, second);
  ck_assert_mem_ne(first, second, sizeof(first));
  ck_assert_uint_ne(siphash_64(key, "text", 4), siphash_64((uint8_t[SIPHASH_KEY_BYTES]){0}, "text", 4));
}
END_TEST

TEST_MAIN("base.siphash", the_reference_vectors_come_out_however_the_input_is_cut,
          the_reference_vectors_of_64_bits_come_out, another_key_gives_another_hash)
