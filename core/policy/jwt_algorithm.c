/* jwt_algorithm.c: the signature algorithms of JWTs (RFC 7518, RFC 8037), each bound to the one kind of key it is for.
 * A public key is a SubjectPublicKeyInfo in PEM; loading refuses it for an algorithm of another type, so that a public
 * key can never serve as the shared key of an HMAC. */
#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <string.h>

#include "core/policy/jwt_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/str.h"

#define HS256_KEY_MIN_BYTES 32  /* RFC 7518, 3.2 */
#define RS256_KEY_MIN_BITS 2048 /* RFC 7518, 3.3 */
#define ES256_HALF_BYTES 32
#define PEM_MAX_BYTES 16384

/* ---- Shared keys ---- */

static bool hs256_load(struct jwt_key *key, const void *data, size_t length) {
  if (length < HS256_KEY_MIN_BYTES || length > PEM_MAX_BYTES || memmem(data, length, "-----BEGIN ", 11) != NULL)
    return false;
  key->secret = secret_create(data, length);
  return true;
}

static bool hs256_verify(const struct jwt_key *key, const void *data, size_t length, const uint8_t *signature,
                         size_t signature_length) {
  uint8_t expected[EVP_MAX_MD_SIZE];
  unsigned expected_length = 0;
  if (HMAC(EVP_sha256(), secret_reveal(key->secret), (int)secret_length(key->secret), data, length, expected,
           &expected_length) == NULL)
    return false;
  bool equal = signature_length == expected_length && CRYPTO_memcmp(signature, expected, expected_length) == 0;
  OPENSSL_cleanse(expected, sizeof(expected));
  return equal;
}

/* ---- Key pairs ---- */

static EVP_PKEY *public_key_read(const void *data, size_t length) {
  if (length == 0 || length > PEM_MAX_BYTES)
    return NULL;
  BIO *source = BIO_new_mem_buf(data, (int)length);
  EVP_PKEY *key = source == NULL ? NULL : PEM_read_bio_PUBKEY(source, NULL, NULL, NULL);
  BIO_free(source);
  ERR_clear_error();
  return key;
}

static bool public_key_keep(struct jwt_key *key, EVP_PKEY *public_key, bool fits) {
  if (fits)
    key->public_key = public_key;
  else
    EVP_PKEY_free(public_key);
  return fits;
}

static bool signature_good(const struct jwt_key *key, const EVP_MD *digest, const void *data, size_t length,
                           const uint8_t *signature, size_t signature_length) {
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  bool good = context != NULL && EVP_DigestVerifyInit(context, NULL, digest, NULL, key->public_key) == 1 &&
              EVP_DigestVerify(context, signature, signature_length, data, length) == 1;
  EVP_MD_CTX_free(context);
  ERR_clear_error();
  return good;
}

static bool rs256_load(struct jwt_key *key, const void *data, size_t length) {
  EVP_PKEY *public_key = public_key_read(data, length);
  return public_key_keep(key, public_key,
                         public_key != NULL && EVP_PKEY_is_a(public_key, "RSA") &&
                             EVP_PKEY_get_bits(public_key) >= RS256_KEY_MIN_BITS);
}

static bool rs256_verify(const struct jwt_key *key, const void *data, size_t length, const uint8_t *signature,
                         size_t signature_length) {
  return signature_good(key, EVP_sha256(), data, length, signature, signature_length);
}

static bool es256_load(struct jwt_key *key, const void *data, size_t length) {
  char curve[32] = "";
  EVP_PKEY *public_key = public_key_read(data, length);
  bool named = public_key != NULL && EVP_PKEY_is_a(public_key, "EC") &&
               EVP_PKEY_get_utf8_string_param(public_key, OSSL_PKEY_PARAM_GROUP_NAME, curve, sizeof(curve), NULL) == 1;
  return public_key_keep(key, public_key, named && str_equal(curve, "prime256v1"));
}

/* A JWT has r and s as two numbers of 32 bytes, OpenSSL wants them in DER. */
static bool es256_verify(const struct jwt_key *key, const void *data, size_t length, const uint8_t *signature,
                         size_t signature_length) {
  if (signature_length != 2 * ES256_HALF_BYTES)
    return false;
  bool good = false;
  uint8_t *der = NULL;
  ECDSA_SIG *pair = ECDSA_SIG_new();
  BIGNUM *r = BN_bin2bn(signature, ES256_HALF_BYTES, NULL);
  BIGNUM *s = BN_bin2bn(signature + ES256_HALF_BYTES, ES256_HALF_BYTES, NULL);
  if (pair != NULL && r != NULL && s != NULL && ECDSA_SIG_set0(pair, r, s) == 1) {
    r = s = NULL; /* the pair owns them now */
    int der_length = i2d_ECDSA_SIG(pair, &der);
    good = der_length > 0 && signature_good(key, EVP_sha256(), data, length, der, (size_t)der_length);
  }
  OPENSSL_free(der);
  BN_free(r);
  BN_free(s);
  ECDSA_SIG_free(pair);
  return good;
}

static bool eddsa_load(struct jwt_key *key, const void *data, size_t length) {
  EVP_PKEY *public_key = public_key_read(data, length);
  return public_key_keep(key, public_key, public_key != NULL && EVP_PKEY_is_a(public_key, "ED25519"));
}

static bool eddsa_verify(const struct jwt_key *key, const void *data, size_t length, const uint8_t *signature,
                         size_t signature_length) {
  return signature_good(key, NULL, data, length, signature, signature_length);
}

/* ---- The table ---- */

static const struct jwt_algorithm jwt_algorithms[] = {
#define JWT_ALGORITHM(name, load, verify) {name, load, verify},
#include "core/policy/jwt_algorithms.def"
#undef JWT_ALGORITHM
};

const struct jwt_algorithm *jwt_algorithm_find(const char *name) {
  for (size_t i = 0; i < sizeof(jwt_algorithms) / sizeof(jwt_algorithms[0]); i++)
    if (str_equal(jwt_algorithms[i].name, name))
      return &jwt_algorithms[i];
  return NULL;
}

void jwt_key_clear(struct jwt_key *key) {
  base_free(key->kid);
  secret_free(&key->secret);
  EVP_PKEY_free(key->public_key);
  *key = (struct jwt_key){0};
}
