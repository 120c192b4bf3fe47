/* secrets_internal.h: what the files of core/secrets share: master keys (keys.c) and AES-256-GCM (gcm.c). */
#ifndef GATEHOUSE_CORE_SECRETS_INTERNAL_H
#define GATEHOUSE_CORE_SECRETS_INTERNAL_H

#include "core/secrets/secrets.h"

#define SECRETS_MAGIC 0x73656372u
#define KEY_BYTES 32
#define KEY_ID_RAW_BYTES 8
#define GCM_NONCE_BYTES 12
#define GCM_TAG_BYTES 16

struct master_key {
  uint8_t id[KEY_ID_RAW_BYTES]; /* first bytes of a hash of the key: safe to store beside what it wraps */
  struct secret *key;
};

struct secrets {
  uint32_t magic;
  char *key_file;                           /* NULL: the keys are from the environment */
  struct master_key keys[SECRETS_KEYS_MAX]; /* the first is the current one */
  size_t key_count;
};

/* Adds a key behind the others (takes nothing over). False with ERR_SECRET_KEY: too many, or already there. */
bool keys_add(struct secrets *secrets, const uint8_t key[static KEY_BYTES], struct error *err);
bool keys_load_environment(struct secrets *secrets, const char *value, struct error *err);
/* Makes the file with one new key when it does not exist. */
bool keys_load_file(struct secrets *secrets, struct error *err);
/* Writes these keys to the key file, in this order. */
bool keys_write_file(const struct secrets *secrets, const struct master_key *keys, size_t count, struct error *err);
void master_key_set(struct master_key *target, const uint8_t key[static KEY_BYTES]);
const struct master_key *keys_find(const struct secrets *secrets, const uint8_t id[static KEY_ID_RAW_BYTES]);

/* One byte range of the authenticated data. */
struct gcm_data {
  const void *data;
  size_t length;
};
/* out holds length bytes, then the tag. A failing library is an impossible state. */
void gcm_encrypt(const void *key, const uint8_t nonce[static GCM_NONCE_BYTES], const struct gcm_data *aad,
                 size_t aad_count, const void *plain, size_t length, uint8_t *out);
/* in holds length bytes, then the tag. False: not authentic; out is wiped. */
bool gcm_decrypt(const void *key, const uint8_t nonce[static GCM_NONCE_BYTES], const struct gcm_data *aad,
                 size_t aad_count, const uint8_t *in, size_t length, uint8_t *out);

#endif
