/* secrets.c: sealing, opening, rotating. A sealed secret is, byte by byte:
 *
 *   "GHS1"  key id (8)  nonce (12)  wrapped data key (32)  tag (16)  nonce (12)  value (n)  tag (16)
 *           '------------------ wrap ---------------------'  '----------- body ------------'
 *
 * Both layers authenticate their own label, then the owner and the name, each preceded by its length; the wrap also
 * "GHS1" and the key id. The body does not, so that rotating exchanges the wrap only. The body is tied to its wrap by
 * the data key, which is random and used for this one value. */
#include "core/secrets/secrets.h"

#include <stdlib.h>
#include <string.h>

#include "core/secrets/secrets_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/id.h"
#include "sdk/base/str.h"

#define FORMAT "GHS1"
#define FORMAT_BYTES 4
#define HEAD_BYTES (FORMAT_BYTES + KEY_ID_RAW_BYTES)
#define WRAP_BYTES (HEAD_BYTES + GCM_NONCE_BYTES + KEY_BYTES + GCM_TAG_BYTES)
#define BODY_EXTRA_BYTES (GCM_NONCE_BYTES + GCM_TAG_BYTES)

/* ---- Life ---- */

struct secrets *secrets_create(const struct secrets_options *options, struct error *err) {
  struct secrets *secrets = BASE_NEW(struct secrets);
  secrets->magic = SECRETS_MAGIC;
  const char *value = options->key_environment == NULL ? NULL : getenv(options->key_environment);
  bool loaded;
  if (value != NULL) {
    loaded = keys_load_environment(secrets, value, err);
  } else if (options->key_file != NULL) {
    secrets->key_file = base_strdup(options->key_file);
    loaded = keys_load_file(secrets, err);
  } else {
    loaded = error_set(err, ERR_SECRET_KEY, "There is no master key: neither a key file nor the environment has one.");
  }
  if (!loaded)
    secrets_free(&secrets);
  return secrets;
}

void secrets_free(struct secrets **secrets) {
  struct secrets *gone = BASE_TAKE(*secrets);
  if (gone == NULL)
    return;
  BASE_CHECK_MAGIC(gone, SECRETS_MAGIC);
  for (size_t i = 0; i < gone->key_count; i++)
    secret_free(&gone->keys[i].key);
  base_free(gone->key_file);
  gone->magic = 0;
  base_free(gone);
}

void secrets_key_id(const struct secrets *secrets, char target[static SECRETS_KEY_ID_BYTES]) {
  BASE_CHECK_MAGIC(secrets, SECRETS_MAGIC);
  str_hex_encode(target, secrets->keys[0].id, KEY_ID_RAW_BYTES);
}

/* ---- The two layers ---- */

/* Who a secret belongs to, as authenticated data. */
struct binding {
  uint8_t owner_length[4];
  uint8_t name_length[4];
  struct gcm_data parts[6];
};

static void length_encode(uint8_t target[static 4], size_t length) {
  for (int i = 0; i < 4; i++)
    target[i] = (uint8_t)(length >> (24 - 8 * i));
}

static bool binding_make(struct binding *binding, const char *owner, const char *name, struct error *err) {
  if (str_is_empty(owner) || str_is_empty(name))
    return error_set(err, ERR_ARGUMENT_MISSING, "A secret needs an owner and a name.");
  size_t owner_length = strlen(owner), name_length = strlen(name);
  if (owner_length > SECRETS_NAME_MAX_BYTES || name_length > SECRETS_NAME_MAX_BYTES)
    return error_set(err, ERR_ARGUMENT_TOO_LARGE, "The secret's owner or name is too long.");
  length_encode(binding->owner_length, owner_length);
  length_encode(binding->name_length, name_length);
  binding->parts[2] = (struct gcm_data){binding->owner_length, sizeof(binding->owner_length)};
  binding->parts[3] = (struct gcm_data){owner, owner_length};
  binding->parts[4] = (struct gcm_data){binding->name_length, sizeof(binding->name_length)};
  binding->parts[5] = (struct gcm_data){name, name_length};
  return true;
}

static void binding_layer(struct binding *binding, const char *label, const void *head, size_t head_length) {
  binding->parts[0] = (struct gcm_data){label, strlen(label)};
  binding->parts[1] = (struct gcm_data){head, head_length};
}
#define BINDING_PARTS(binding) (binding)->parts, sizeof((binding)->parts) / sizeof((binding)->parts[0])

static void wrap_append(const struct master_key *master, struct binding *binding, const uint8_t data_key[KEY_BYTES],
                        struct buf *out) {
  uint8_t wrap[WRAP_BYTES], *nonce = wrap + HEAD_BYTES;
  memcpy(wrap, FORMAT, FORMAT_BYTES);
  memcpy(wrap + FORMAT_BYTES, master->id, KEY_ID_RAW_BYTES);
  id_random_bytes(nonce, GCM_NONCE_BYTES);
  binding_layer(binding, "wrap", wrap, HEAD_BYTES);
  gcm_encrypt(secret_reveal(master->key), nonce, BINDING_PARTS(binding), data_key, KEY_BYTES, nonce + GCM_NONCE_BYTES);
  buf_append(out, wrap, sizeof(wrap));
}

static const struct master_key *unwrap(const struct secrets *secrets, struct binding *binding, const uint8_t *sealed,
                                       size_t length, uint8_t data_key[KEY_BYTES], struct error *err) {
  if (length < WRAP_BYTES + BODY_EXTRA_BYTES || length > WRAP_BYTES + BODY_EXTRA_BYTES + SECRETS_VALUE_MAX_BYTES ||
      memcmp(sealed, FORMAT, FORMAT_BYTES) != 0) {
    error_set(err, ERR_SECRET_UNREADABLE, NULL);
    return NULL;
  }
  const struct master_key *master = keys_find(secrets, sealed + FORMAT_BYTES);
  if (master == NULL) {
    error_set(err, ERR_SECRET_KEY_UNKNOWN, NULL);
    return NULL;
  }
  const uint8_t *nonce = sealed + HEAD_BYTES;
  binding_layer(binding, "wrap", sealed, HEAD_BYTES);
  if (!gcm_decrypt(secret_reveal(master->key), nonce, BINDING_PARTS(binding), nonce + GCM_NONCE_BYTES, KEY_BYTES,
                   data_key)) {
    error_set(err, ERR_SECRET_UNREADABLE, NULL);
    return NULL;
  }
  return master;
}

/* ---- Seal, open, rotate ---- */

bool secrets_seal(const struct secrets *secrets, const char *owner, const char *name, const void *value, size_t length,
                  struct buf *sealed, struct error *err) {
  BASE_CHECK_MAGIC(secrets, SECRETS_MAGIC);
  struct binding binding;
  uint8_t data_key[KEY_BYTES];
  if (!binding_make(&binding, owner, name, err))
    return false;
  if (length > SECRETS_VALUE_MAX_BYTES)
    return error_set(err, ERR_ARGUMENT_TOO_LARGE, "The secret is larger than %d bytes.", SECRETS_VALUE_MAX_BYTES);
  id_random_bytes(data_key, sizeof(data_key));
  wrap_append(&secrets->keys[0], &binding, data_key, sealed);
  uint8_t *nonce = (uint8_t *)buf_reserve(sealed, length + BODY_EXTRA_BYTES);
  id_random_bytes(nonce, GCM_NONCE_BYTES);
  binding_layer(&binding, "body", NULL, 0);
  gcm_encrypt(data_key, nonce, BINDING_PARTS(&binding), value, length, nonce + GCM_NONCE_BYTES);
  sealed->length += length + BODY_EXTRA_BYTES;
  sealed->data[sealed->length] = '\0';
  secret_wipe(data_key, sizeof(data_key));
  return true;
}

/* The body's value; also proves on rotation that what is kept can still be read. */
static struct secret *body_open(struct binding *binding, const uint8_t data_key[KEY_BYTES], const uint8_t *body,
                                size_t body_length, struct error *err) {
  size_t length = body_length - BODY_EXTRA_BYTES;
  uint8_t *plain = base_alloc(length + GCM_TAG_BYTES);
  struct secret *value = NULL;
  binding_layer(binding, "body", NULL, 0);
  if (gcm_decrypt(data_key, body, BINDING_PARTS(binding), body + GCM_NONCE_BYTES, length, plain)) {
    value = secret_create(plain, length);
    secret_wipe(plain, length);
  } else {
    error_set(err, ERR_SECRET_UNREADABLE, NULL);
  }
  base_free(plain);
  return value;
}

struct secret *secrets_open(const struct secrets *secrets, const char *owner, const char *name, const void *sealed,
                            size_t length, struct error *err) {
  BASE_CHECK_MAGIC(secrets, SECRETS_MAGIC);
  struct binding binding;
  uint8_t data_key[KEY_BYTES + GCM_TAG_BYTES];
  struct secret *value = NULL;
  if (binding_make(&binding, owner, name, err) && unwrap(secrets, &binding, sealed, length, data_key, err) != NULL)
    value = body_open(&binding, data_key, (const uint8_t *)sealed + WRAP_BYTES, length - WRAP_BYTES, err);
  secret_wipe(data_key, sizeof(data_key));
  return value;
}

bool secrets_rotate(const struct secrets *secrets, const char *owner, const char *name, const void *sealed,
                    size_t length, struct buf *rotated, bool *changed, struct error *err) {
  BASE_CHECK_MAGIC(secrets, SECRETS_MAGIC);
  struct binding binding;
  uint8_t data_key[KEY_BYTES + GCM_TAG_BYTES];
  bool done = false;
  *changed = false;
  if (!binding_make(&binding, owner, name, err))
    return false;
  const struct master_key *master = unwrap(secrets, &binding, sealed, length, data_key, err);
  if (master != NULL) {
    const uint8_t *body = (const uint8_t *)sealed + WRAP_BYTES;
    struct secret *value = body_open(&binding, data_key, body, length - WRAP_BYTES, err);
    done = value != NULL;
    secret_free(&value);
    *changed = done && master != &secrets->keys[0];
    if (*changed) {
      wrap_append(&secrets->keys[0], &binding, data_key, rotated);
      buf_append(rotated, body, length - WRAP_BYTES);
    }
  }
  secret_wipe(data_key, sizeof(data_key));
  return done;
}

/* ---- Master keys ---- */

bool secrets_key_rotate(struct secrets *secrets, struct error *err) {
  BASE_CHECK_MAGIC(secrets, SECRETS_MAGIC);
  struct master_key keys[SECRETS_KEYS_MAX];
  uint8_t key[KEY_BYTES];
  if (secrets->key_file == NULL)
    return error_set(err, ERR_UNSUPPORTED, "The master keys are from the environment: set the new one first there.");
  if (secrets->key_count == SECRETS_KEYS_MAX)
    return error_set(err, ERR_SECRET_KEY, "More than %d master keys: retire the old ones first.", SECRETS_KEYS_MAX);
  id_random_bytes(key, sizeof(key));
  master_key_set(&keys[0], key);
  secret_wipe(key, sizeof(key));
  memcpy(keys + 1, secrets->keys, secrets->key_count * sizeof(keys[0]));
  if (!keys_write_file(secrets, keys, secrets->key_count + 1, err)) {
    secret_free(&keys[0].key);
    return false;
  }
  secrets->key_count++;
  memcpy(secrets->keys, keys, secrets->key_count * sizeof(keys[0]));
  return true;
}

bool secrets_key_retire(struct secrets *secrets, struct error *err) {
  BASE_CHECK_MAGIC(secrets, SECRETS_MAGIC);
  if (secrets->key_file == NULL)
    return error_set(err, ERR_UNSUPPORTED, "The master keys are from the environment: remove the old ones there.");
  if (!keys_write_file(secrets, secrets->keys, 1, err))
    return false;
  while (secrets->key_count > 1)
    secret_free(&secrets->keys[--secrets->key_count].key);
  return true;
}
