/* jwt_internal.h: what jwt.c and jwt_algorithm.c share: a loaded key and the table of algorithms. */
#ifndef GATEHOUSE_CORE_POLICY_JWT_INTERNAL_H
#define GATEHOUSE_CORE_POLICY_JWT_INTERNAL_H

#include <openssl/evp.h>

#include "sdk/base/secret.h"
#include <stdbool.h>
#include <stdint.h>

struct jwt_key;

struct jwt_algorithm {
  const char *name;
  /* Takes the configured form of the key; false: malformed, of another type, or too weak. */
  bool (*load)(struct jwt_key *key, const void *data, size_t length);
  bool (*verify)(const struct jwt_key *key, const void *data, size_t length, const uint8_t *signature,
                 size_t signature_length);
};

struct jwt_key {
  char *kid; /* NULL: none */
  const struct jwt_algorithm *algorithm;
  struct secret *secret; /* of a shared key */
  EVP_PKEY *public_key;  /* of a key pair */
};

const struct jwt_algorithm *jwt_algorithm_find(const char *name); /* NULL: unknown */
void jwt_key_clear(struct jwt_key *key);

#endif
