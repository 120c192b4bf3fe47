/* secrets.h: encrypted secrets (SPI-14). A secret is sealed with AES-256-GCM under a random data key of its own; the
 * data key is wrapped (AES-256-GCM again) by a master key. Both layers authenticate the owner record's id and the
 * secret's name, so sealed bytes that are moved to another record, renamed, cut or changed do not open.
 *
 * Master keys come from one of:
 *   - a key file, mode 0600 and owned by this user (anything else is refused), made on first start; it lists the
 * current key first and older ones behind it: "gatehouse-key-v1 <43 base64url characters>" a line;
 *   - an environment variable of the same keys, "," between them, the current one first.
 * Rotation without downtime: secrets_key_rotate, then secrets_rotate over every stored secret, then secrets_key_retire.
 *
 * Where sealed bytes are kept is the caller's business. One core thread. Nothing here logs or prints a key or a secret.
 */
#ifndef GATEHOUSE_CORE_SECRETS_H
#define GATEHOUSE_CORE_SECRETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sdk/base/buf.h"
#include "sdk/base/error.h"
#include "sdk/base/secret.h"

struct secrets;

#define SECRETS_VALUE_MAX_BYTES 65536
#define SECRETS_NAME_MAX_BYTES 512 /* owner and name */
#define SECRETS_KEYS_MAX 8
#define SECRETS_KEY_ID_BYTES 17 /* 16 hex digits and NUL */

struct secrets_options {
  const char *key_file;        /* made with mode 0600 when it does not exist; NULL: the environment */
  const char *key_environment; /* name of the variable; wins over the file when the variable is set; may be NULL */
};

/* Errors: ERR_SECRET_KEY (no key source, malformed, duplicate or too many keys, file readable by others), ERR_IO. */
struct secrets *secrets_create(const struct secrets_options *options, struct error *err);
void secrets_free(struct secrets **secrets); /* wipes; NULL-safe, nulls */

/* Id of the current master key: derived from it by a hash, safe to show. */
void secrets_key_id(const struct secrets *secrets, char target[static SECRETS_KEY_ID_BYTES]);

/* Appends the sealed form of value to *sealed. owner: id of the record it is attached to; name: which secret of it.
 * Errors: ERR_ARGUMENT_MISSING (owner, name), ERR_ARGUMENT_TOO_LARGE. */
bool secrets_seal(const struct secrets *secrets, const char *owner, const char *name, const void *value, size_t length,
                  struct buf *sealed, struct error *err);

/* The value; the caller frees it with secret_free as soon as it was used. Errors: ERR_SECRET_KEY_UNKNOWN (sealed under
 * a master key that is not loaded), ERR_SECRET_UNREADABLE (changed, cut, or sealed for another owner or name). */
struct secret *secrets_open(const struct secrets *secrets, const char *owner, const char *name, const void *sealed,
                            size_t length, struct error *err);

/* Wraps the data key with the current master key; the encrypted value stays as it is. Appends the new form to *rotated,
 * or nothing when the current key is used already (*changed tells). Errors as secrets_open. */
bool secrets_rotate(const struct secrets *secrets, const char *owner, const char *name, const void *sealed,
                    size_t length, struct buf *rotated, bool *changed, struct error *err);

/* A new current master key, durable before it is used; the old ones still open. Errors: ERR_UNSUPPORTED (keys are from
 * the environment: set the new one first there), ERR_SECRET_KEY (too many keys: retire first), ERR_IO. */
bool secrets_key_rotate(struct secrets *secrets, struct error *err);

/* Forgets every master key but the current one: call when everything was rotated. Errors: ERR_UNSUPPORTED, ERR_IO. */
bool secrets_key_retire(struct secrets *secrets, struct error *err);

#endif
