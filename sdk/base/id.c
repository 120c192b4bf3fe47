/* id.c: random identifiers from getrandom(2), unbuffered: a pool would be shared by accident after a fork. Whoever
 * knows that it does not fork may own one (struct id_pool). */
#include "sdk/base/id.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/secret.h"
#include "sdk/base/str.h"

#define TOKEN_BYTES 32

void id_random_bytes(void *target, size_t size_bytes) {
  unsigned char *out = target;
  while (size_bytes) {
    ssize_t count = getrandom(out, size_bytes, 0);
    if (count < 0 && errno == EINTR)
      continue;
    BASE_CHECK(count > 0);
    out += count;
    size_bytes -= (size_t)count;
  }
}

void id_pool_take(struct id_pool *pool, void *target, size_t size_bytes) {
  BASE_CHECK(size_bytes <= sizeof(pool->bytes));
  if (pool->left < size_bytes) {
    id_random_bytes(pool->bytes, sizeof(pool->bytes));
    pool->left = sizeof(pool->bytes);
  }
  pool->left -= size_bytes;
  memcpy(target, pool->bytes + pool->left, size_bytes);
}

uint64_t id_random_u64(void) {
  uint64_t value;
  id_random_bytes(&value, sizeof value);
  return value;
}

void id_uuid_v4(char target[static ID_UUID_BYTES]) {
  uint8_t bytes[16];
  char hex[33];
  id_random_bytes(bytes, sizeof bytes);
  bytes[6] = (uint8_t)((bytes[6] & 0x0f) | 0x40);
  bytes[8] = (uint8_t)((bytes[8] & 0x3f) | 0x80);
  str_hex_encode(hex, bytes, sizeof bytes);
  static const struct {
    unsigned char from, to, count;
  } groups[] = {{0, 0, 8}, {8, 9, 4}, {12, 14, 4}, {16, 19, 4}, {20, 24, 12}};
  memset(target, '-', ID_UUID_BYTES - 1);
  for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++)
    memcpy(target + groups[i].to, hex + groups[i].from, groups[i].count);
  target[ID_UUID_BYTES - 1] = 0;
}

bool id_is_uuid_v4(const char *text) {
  if (!text || strlen(text) != ID_UUID_BYTES - 1)
    return false;
  for (int i = 0; i < ID_UUID_BYTES - 1; i++) {
    char c = text[i];
    bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    bool digit = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
    if (dash ? c != '-' : !digit)
      return false;
  }
  return text[14] == '4' && strchr("89ab", text[19]) != NULL;
}

void id_random_hex(char *target, size_t byte_count) {
  /* The bytes land in the upper half and are spread downwards, so no second buffer is needed. */
  static const char digits[] = "0123456789abcdef";
  uint8_t *raw = (uint8_t *)target + byte_count;
  id_random_bytes(raw, byte_count);
  for (size_t i = 0; i < byte_count; i++) {
    uint8_t byte = raw[i];
    target[2 * i] = digits[byte >> 4];
    target[2 * i + 1] = digits[byte & 15];
  }
  target[2 * byte_count] = 0;
}

char *id_token(const char *prefix) {
  uint8_t bytes[TOKEN_BYTES];
  id_random_bytes(bytes, sizeof bytes);
  char *text = str_base64url_encode(bytes, sizeof bytes);
  secret_wipe(bytes, sizeof bytes);
  char *token = base_asprintf("%s_%s", prefix, text);
  secret_wipe(text, strlen(text));
  base_free(text);
  return token;
}
