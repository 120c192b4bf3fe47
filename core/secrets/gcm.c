/* gcm.c: AES-256-GCM by OpenSSL, one call to encrypt and one to decrypt. Lengths are bounded by the caller. */
#include <openssl/evp.h>

#include "core/secrets/secrets_internal.h"
#include "sdk/base/check.h"

static void feed_aad(EVP_CIPHER_CTX *cipher, const struct gcm_data *aad, size_t count) {
  int written;
  for (size_t i = 0; i < count; i++)
    if (aad[i].length > 0)
      BASE_CHECK(EVP_CipherUpdate(cipher, NULL, &written, aad[i].data, (int)aad[i].length) == 1);
}

void gcm_encrypt(const void *key, const uint8_t nonce[static GCM_NONCE_BYTES], const struct gcm_data *aad,
                 size_t aad_count, const void *plain, size_t length, uint8_t *out) {
  int written = 0;
  EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
  BASE_CHECK(cipher != NULL && EVP_EncryptInit_ex(cipher, EVP_aes_256_gcm(), NULL, key, nonce) == 1);
  feed_aad(cipher, aad, aad_count);
  if (length > 0)
    BASE_CHECK(EVP_EncryptUpdate(cipher, out, &written, plain, (int)length) == 1 && (size_t)written == length);
  BASE_CHECK(EVP_EncryptFinal_ex(cipher, out + length, &written) == 1);
  BASE_CHECK(EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_GET_TAG, GCM_TAG_BYTES, out + length) == 1);
  EVP_CIPHER_CTX_free(cipher);
}

bool gcm_decrypt(const void *key, const uint8_t nonce[static GCM_NONCE_BYTES], const struct gcm_data *aad,
                 size_t aad_count, const uint8_t *in, size_t length, uint8_t *out) {
  int written = 0;
  EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
  BASE_CHECK(cipher != NULL && EVP_DecryptInit_ex(cipher, EVP_aes_256_gcm(), NULL, key, nonce) == 1);
  feed_aad(cipher, aad, aad_count);
  if (length > 0)
    BASE_CHECK(EVP_DecryptUpdate(cipher, out, &written, in, (int)length) == 1 && (size_t)written == length);
  uint8_t tag[GCM_TAG_BYTES];
  __builtin_memcpy(tag, in + length, sizeof(tag));
  BASE_CHECK(EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_SET_TAG, GCM_TAG_BYTES, tag) == 1);
  bool authentic = EVP_DecryptFinal_ex(cipher, out + length, &written) == 1;
  EVP_CIPHER_CTX_free(cipher);
  if (!authentic)
    secret_wipe(out, length);
  return authentic;
}
