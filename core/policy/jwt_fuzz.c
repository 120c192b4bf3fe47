/* jwt_fuzz.c: fuzz target of the JWT reader (SPI-19). The input is used twice: as a whole token, and as header and
 * payload that are then signed, so that what lies behind the signature is reached too. */
#include <openssl/hmac.h>

#include "core/policy/policy_internal.h"
#include "sdk/base/buf.h"

#define FUZZ_KEY "0123456789abcdef0123456789abcdef"
#define FUZZ_WALL_US (INT64_C(1785232800) * 1000000)

static void verify(const struct jwt_verifier *verifier, const char *token, size_t length) {
  struct arena *arena = arena_create(0);
  struct jwt_claims claims;
  if (jwt_verify(verifier, token, length, FUZZ_WALL_US, arena, &claims))
    BASE_CHECK(policy_name_valid(claims.email) && policy_name_valid(claims.jti) && claims.expires_at_us > FUZZ_WALL_US);
  arena_free(&arena);
}

static void append_part(struct buf *token, const uint8_t *data, size_t length) {
  char *part = str_base64url_encode(data, length);
  buf_append_text(token, part);
  base_free(part);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char header[] = "{\"alg\":\"HS256\"}";
  static struct jwt_verifier *verifier;
  if (verifier == NULL) {
    static const struct policy_jwt_key key = {.algorithm = "HS256", .key = FUZZ_KEY, .key_length = 32};
    verifier = jwt_verifier_create(&(struct policy_options){.jwt_keys = &key, .jwt_key_count = 1}, NULL);
    BASE_CHECK(verifier != NULL);
  }
  verify(verifier, (const char *)data, size);
  if (size == 0 || size > POLICY_CREDENTIAL_MAX_BYTES)
    return 0;
  for (int whole_is_payload = 0; whole_is_payload < 2; whole_is_payload++) {
    struct buf token = {0};
    uint8_t mac[EVP_MAX_MD_SIZE];
    unsigned length = 0;
    size_t half = whole_is_payload ? 0 : size / 2;
    if (half > 0)
      append_part(&token, data, half);
    else
      append_part(&token, (const uint8_t *)header, sizeof(header) - 1);
    buf_append_char(&token, '.');
    append_part(&token, data + half, size - half);
    HMAC(EVP_sha256(), FUZZ_KEY, 32, (const unsigned char *)token.data, token.length, mac, &length);
    buf_append_char(&token, '.');
    append_part(&token, mac, length);
    verify(verifier, token.data, token.length);
    buf_free(&token);
  }
  return 0;
}
