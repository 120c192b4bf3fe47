/* keys.c: where master keys come from and how they are kept. The key file is as strict as an SSH private key: a regular
 * file of ours that nobody else can read or write, opened without following a symbolic link, and replaced only as a
 * whole. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/secrets/secrets_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/id.h"
#include "sdk/base/io.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

#define KEY_FILE_MODE 0600
#define KEY_FILE_MAX_BYTES 4096
#define KEY_TEXT_LENGTH 43
static const char key_line_prefix[] = "gatehouse-key-v1 ";

void master_key_set(struct master_key *target, const uint8_t key[static KEY_BYTES]) {
  static const char label[] = "gatehouse master key id v1";
  uint8_t labelled[sizeof(label) + KEY_BYTES], hash[SHA256_DIGEST_LENGTH];
  memcpy(labelled, label, sizeof(label));
  memcpy(labelled + sizeof(label), key, KEY_BYTES);
  BASE_CHECK(SHA256(labelled, sizeof(labelled), hash) != NULL);
  secret_wipe(labelled, sizeof(labelled));
  memcpy(target->id, hash, KEY_ID_RAW_BYTES);
  target->key = secret_create(key, KEY_BYTES);
}

const struct master_key *keys_find(const struct secrets *secrets, const uint8_t id[static KEY_ID_RAW_BYTES]) {
  for (size_t i = 0; i < secrets->key_count; i++)
    if (memcmp(secrets->keys[i].id, id, KEY_ID_RAW_BYTES) == 0)
      return &secrets->keys[i];
  return NULL;
}

bool keys_add(struct secrets *secrets, const uint8_t key[static KEY_BYTES], struct error *err) {
  struct master_key added;
  if (secrets->key_count == SECRETS_KEYS_MAX)
    return error_set(err, ERR_SECRET_KEY, "More than %d master keys.", SECRETS_KEYS_MAX);
  master_key_set(&added, key);
  if (keys_find(secrets, added.id) != NULL) {
    secret_free(&added.key);
    return error_set(err, ERR_SECRET_KEY, "A master key is listed twice.");
  }
  secrets->keys[secrets->key_count++] = added;
  return true;
}

static bool key_text_add(struct secrets *secrets, const char *text, size_t length, struct error *err) {
  size_t key_length = 0;
  uint8_t *key = length == KEY_TEXT_LENGTH ? str_base64url_decode(text, length, &key_length) : NULL;
  if (key == NULL)
    return error_set(err, ERR_SECRET_KEY, "Master key %zu is malformed.", secrets->key_count + 1);
  bool added = key_length == KEY_BYTES && keys_add(secrets, key, err);
  secret_wipe(key, key_length);
  base_free(key);
  return added;
}

bool keys_load_environment(struct secrets *secrets, const char *value, struct error *err) {
  for (const char *text = value; text != NULL;) {
    const char *comma = strchr(text, ',');
    size_t length = comma == NULL ? strlen(text) : (size_t)(comma - text);
    if (!key_text_add(secrets, text, length, err))
      return false;
    text = comma == NULL ? NULL : comma + 1;
  }
  return true;
}

static bool lines_read(struct secrets *secrets, const char *text, struct error *err) {
  const size_t prefix = sizeof(key_line_prefix) - 1;
  while (*text != '\0') {
    const char *end = strchr(text, '\n');
    if (end == NULL || strncmp(text, key_line_prefix, prefix) != 0)
      return error_set(err, ERR_SECRET_KEY, "The master key file is malformed.");
    if (!key_text_add(secrets, text + prefix, (size_t)(end - text) - prefix, err))
      return false;
    text = end + 1;
  }
  return secrets->key_count > 0 || error_set(err, ERR_SECRET_KEY, "The master key file is empty.");
}

/* Reads the checked descriptor, so that what was checked is what is read. */
static bool file_read(struct secrets *secrets, int fd, struct error *err) {
  struct stat facts;
  char text[KEY_FILE_MAX_BYTES + 1];
  size_t length = 0;
  if (fstat(fd, &facts) != 0)
    return error_set(err, ERR_IO, "The master key file cannot be read.");
  if (!S_ISREG(facts.st_mode) || facts.st_uid != geteuid() || (facts.st_mode & 07177) != 0)
    return error_set(err, ERR_SECRET_KEY, "The master key file must be a regular file of this user with mode 0600.");
  for (;;) {
    ssize_t count = read(fd, text + length, sizeof(text) - length);
    if (count < 0 && errno == EINTR)
      continue;
    if (count <= 0 || (length += (size_t)count) == sizeof(text)) {
      bool complete = count == 0;
      bool valid = complete && memchr(text, '\0', length) == NULL;
      if (valid)
        text[length] = '\0';
      valid = valid ? lines_read(secrets, text, err)
                    : error_set(err, ERR_SECRET_KEY, "The master key file is malformed or cannot be read.");
      secret_wipe(text, sizeof(text));
      return valid;
    }
  }
}

bool keys_load_file(struct secrets *secrets, struct error *err) {
  int fd = open(secrets->key_file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd >= 0) {
    bool read_in = file_read(secrets, fd, err);
    close(fd);
    return read_in;
  }
  if (errno == ELOOP)
    return error_set(err, ERR_SECRET_KEY, "The master key file must not be a symbolic link.");
  if (errno != ENOENT)
    return error_set(err, ERR_IO, "The master key file cannot be opened.");
  uint8_t key[KEY_BYTES];
  id_random_bytes(key, sizeof(key));
  bool added = keys_add(secrets, key, err) && keys_write_file(secrets, secrets->keys, secrets->key_count, err);
  secret_wipe(key, sizeof(key));
  if (added)
    log_event(LOG_INFO, "secrets", "made a new master key");
  return added;
}

bool keys_write_file(const struct secrets *secrets, const struct master_key *keys, size_t count, struct error *err) {
  char text[SECRETS_KEYS_MAX * (sizeof(key_line_prefix) + KEY_TEXT_LENGTH + 1) + 1];
  size_t length = 0;
  for (size_t i = 0; i < count; i++) {
    char *encoded = str_base64url_encode((const uint8_t *)secret_reveal(keys[i].key), KEY_BYTES);
    length += (size_t)snprintf(text + length, sizeof(text) - length, "%s%s\n", key_line_prefix, encoded);
    secret_wipe(encoded, strlen(encoded));
    base_free(encoded);
  }
  bool written = io_write_file_atomic(secrets->key_file, text, length, KEY_FILE_MODE, err);
  secret_wipe(text, sizeof(text));
  return written;
}
