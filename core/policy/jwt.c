/* jwt.c: JSON Web Tokens (SPI-19; RFC 7515, RFC 7519, RFC 8725), read strictly.
 *
 * A token is refused unless all of this holds:
 *  1. at most POLICY_CREDENTIAL_MAX_BYTES; three non-empty parts of unpadded canonical base64url;
 *  2. the header is a JSON object of at most alg, typ, kid, each a string and no key twice; typ is JWT or at+jwt;
 *  3. its kid names one of our keys; without kid our only key is the one without kid;
 *  4. its alg is the algorithm of that key: the token never chooses how it is verified;
 *  5. the signature verifies; only then is the payload looked at;
 *  6. the payload is a JSON object with no key twice, with a jti and an exp in the future; nbf and iat, when there, are
 * not more than POLICY_SKEW_SECONDS ahead; iss and aud fit when they are configured;
 *  7. it says who it is for (sub, else email, else user.email), and its scopes claim can be read completely.
 * Why it was refused is nobody's business: the answer is always the same. */
#include <math.h>
#include <string.h>
#include <strings.h>

#include "core/policy/jwt_internal.h"
#include "core/policy/policy_internal.h"
#include "sdk/base/json.h"

#define JWT_DEPTH_MAX 16
#define JWT_TIME_MAX 253402300799.0 /* the end of the year 9999 */

struct jwt_verifier {
  struct jwt_key *keys;
  size_t key_count;
  char *issuer;
  char *audience;
};

/* ---- Keys ---- */

static bool key_load(struct jwt_verifier *verifier, const struct policy_jwt_key *source, struct error *err) {
  struct jwt_key *key = &verifier->keys[verifier->key_count];
  key->algorithm = jwt_algorithm_find(source->algorithm);
  if (key->algorithm == NULL)
    return error_set(err, ERR_CONFIG_VALUE, "JWT key %zu: unknown algorithm.", verifier->key_count + 1);
  if (source->kid != NULL && !policy_name_valid(source->kid))
    return error_set(err, ERR_CONFIG_VALUE, "JWT key %zu: kid is not a valid name.", verifier->key_count + 1);
  for (size_t i = 0; i < verifier->key_count; i++)
    if (source->kid != NULL && str_equal(verifier->keys[i].kid, source->kid))
      return error_set(err, ERR_CONFIG_VALUE, "JWT key %zu: kid is used twice.", verifier->key_count + 1);
  if (source->key == NULL || !key->algorithm->load(key, source->key, source->key_length))
    return error_set(err, ERR_CONFIG_VALUE, "JWT key %zu: the key is too weak or malformed.", verifier->key_count + 1);
  key->kid = source->kid == NULL ? NULL : base_strdup(source->kid);
  verifier->key_count++;
  return true;
}

struct jwt_verifier *jwt_verifier_create(const struct policy_options *options, struct error *err) {
  struct jwt_verifier *verifier = BASE_NEW(struct jwt_verifier);
  verifier->keys = base_calloc(options->jwt_key_count + 1, sizeof(*verifier->keys));
  verifier->issuer = options->jwt_issuer == NULL ? NULL : base_strdup(options->jwt_issuer);
  verifier->audience = options->jwt_audience == NULL ? NULL : base_strdup(options->jwt_audience);
  for (size_t i = 0; i < options->jwt_key_count; i++) {
    if (options->jwt_keys[i].kid == NULL && options->jwt_key_count > 1) {
      error_set(err, ERR_CONFIG_VALUE, "JWT key %zu: with several keys each needs a kid.", i + 1);
      goto failed;
    }
    if (!key_load(verifier, &options->jwt_keys[i], err))
      goto failed;
  }
  return verifier;
failed:
  jwt_verifier_free(&verifier);
  return NULL;
}

void jwt_verifier_free(struct jwt_verifier **verifier) {
  struct jwt_verifier *gone = BASE_TAKE(*verifier);
  if (gone == NULL)
    return;
  for (size_t i = 0; i < gone->key_count; i++)
    jwt_key_clear(&gone->keys[i]);
  base_free(gone->keys);
  base_free(gone->issuer);
  base_free(gone->audience);
  base_free(gone);
}

static const struct jwt_key *key_find(const struct jwt_verifier *verifier, const char *kid) {
  for (size_t i = 0; i < verifier->key_count; i++)
    if (str_equal(verifier->keys[i].kid, kid))
      return &verifier->keys[i];
  return NULL;
}

/* ---- Parts ---- */

struct part {
  const char *text;
  size_t length;
};

static bool split(const char *token, size_t length, struct part parts[static 3]) {
  size_t index = 0, start = 0;
  for (size_t i = 0; i <= length; i++) {
    if (i < length && token[i] != '.')
      continue;
    if (index == 3 || i == start)
      return false;
    parts[index++] = (struct part){token + start, i - start};
    start = i + 1;
  }
  return index == 3;
}

/* A JSON object from a part; NULL when it is anything else. */
static json_t *part_object(const struct part *part) {
  size_t length = 0;
  uint8_t *bytes = str_base64url_decode(part->text, part->length, &length);
  if (bytes == NULL)
    return NULL;
  json_t *object = NULL;
  if (json_check((const char *)bytes, length, JWT_DEPTH_MAX, NULL))
    object = json_loadb((const char *)bytes, length, JSON_REJECT_DUPLICATES, NULL);
  base_free(bytes);
  if (!json_is_object(object)) {
    json_decref(object);
    return NULL;
  }
  return object;
}

static const struct jwt_key *header_key(const struct jwt_verifier *verifier, const json_t *header) {
  const char *algorithm = json_string_value(json_object_get(header, "alg"));
  const char *type = NULL, *kid = NULL;
  size_t understood = 1;
  if (json_object_get(header, "typ") != NULL) {
    type = json_string_value(json_object_get(header, "typ"));
    if (type == NULL || (strcasecmp(type, "JWT") != 0 && strcasecmp(type, "at+jwt") != 0))
      return NULL;
    understood++;
  }
  if (json_object_get(header, "kid") != NULL) {
    kid = json_string_value(json_object_get(header, "kid"));
    if (kid == NULL)
      return NULL;
    understood++;
  }
  if (algorithm == NULL || json_object_size(header) != understood) /* crit, jwk, jku, x5u, zip, …: not ours */
    return NULL;
  const struct jwt_key *key = key_find(verifier, kid);
  return key != NULL && str_equal(key->algorithm->name, algorithm) ? key : NULL;
}

static bool signature_verifies(const struct jwt_key *key, const char *token, const struct part parts[static 3]) {
  size_t length = 0;
  uint8_t *signature = str_base64url_decode(parts[2].text, parts[2].length, &length);
  if (signature == NULL)
    return false;
  size_t signed_length = (size_t)(parts[1].text + parts[1].length - token);
  bool good = key->algorithm->verify(key, token, signed_length, signature, length);
  base_free(signature);
  return good;
}

/* ---- Claims ---- */

static bool time_claim(const json_t *value, int64_t *time_us) {
  if (!json_is_number(value))
    return false;
  double seconds = json_number_value(value);
  if (!isfinite(seconds) || seconds < 0 || seconds > JWT_TIME_MAX)
    return false;
  *time_us = (int64_t)(seconds * 1e6);
  return true;
}

static bool not_ahead(const json_t *claims, const char *name, int64_t wall_us) {
  const json_t *value = json_object_get(claims, name);
  int64_t time_us;
  return value == NULL || (time_claim(value, &time_us) && time_us <= wall_us + POLICY_SKEW_SECONDS * INT64_C(1000000));
}

static bool audience_fits(const json_t *audience, const char *wanted) {
  if (json_is_string(audience))
    return strcmp(json_string_value(audience), wanted) == 0;
  for (size_t i = 0; i < json_array_size(audience); i++)
    if (str_equal(json_string_value(json_array_get(audience, i)), wanted))
      return true;
  return false;
}

static const json_t *subject_claim(const json_t *claims) {
  const json_t *subject = json_object_get(claims, "sub");
  if (subject == NULL)
    subject = json_object_get(claims, "email");
  if (subject == NULL)
    subject = json_object_get(json_object_get(claims, "user"), "email");
  return subject;
}

static bool claims_read(const struct jwt_verifier *verifier, const json_t *json, int64_t wall_us, struct arena *arena,
                        struct jwt_claims *claims) {
  if (!time_claim(json_object_get(json, "exp"), &claims->expires_at_us) || claims->expires_at_us <= wall_us)
    return false;
  if (!not_ahead(json, "nbf", wall_us) || !not_ahead(json, "iat", wall_us))
    return false;
  if (verifier->issuer != NULL && !str_equal(json_string_value(json_object_get(json, "iss")), verifier->issuer))
    return false;
  if (verifier->audience != NULL && !audience_fits(json_object_get(json, "aud"), verifier->audience))
    return false;
  const char *jti = json_string_value(json_object_get(json, "jti"));
  const char *email = json_string_value(subject_claim(json));
  if (!policy_name_valid(jti) || !policy_name_valid(email))
    return false;
  const json_t *use = json_object_get(json, "token_use");
  if (use != NULL && !json_is_string(use))
    return false;
  claims->jti = arena_strdup(arena, jti);
  claims->email = arena_strdup(arena, email);
  claims->is_session = str_equal(json_string_value(use), "session");
  claims->teams = policy_normalize_token_teams(arena, json);
  return scope_from_json(arena, json_object_get(json, "scopes"), &claims->scope);
}

bool jwt_verify(const struct jwt_verifier *verifier, const char *token, size_t length, int64_t wall_us,
                struct arena *arena, struct jwt_claims *claims) {
  struct part parts[3];
  bool accepted = false;
  json_t *header = NULL, *payload = NULL;
  *claims = (struct jwt_claims){0};
  if (length > POLICY_CREDENTIAL_MAX_BYTES || !split(token, length, parts))
    goto out;
  header = part_object(&parts[0]);
  const struct jwt_key *key = header == NULL ? NULL : header_key(verifier, header);
  if (key == NULL || !signature_verifies(key, token, parts))
    goto out;
  payload = part_object(&parts[1]);
  accepted = payload != NULL && claims_read(verifier, payload, wall_us, arena, claims);
out:
  json_decref(header);
  json_decref(payload);
  return accepted;
}
