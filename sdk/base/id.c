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

static void uuid_v4_format(uint8_t random[static ID_UUID_RAW_BYTES], char target[static ID_UUID_BYTES]) {
  random[6] = (uint8_t)((random[6] & 0x0f) | 0x40);
  random[8] = (uint8_t)((random[8] & 0x3f) | 0x80);
  id_uuid_format(random, target);
}

void id_uuid_v4(char target[static ID_UUID_BYTES]) {
  uint8_t bytes[ID_UUID_RAW_BYTES];
  id_random_bytes(bytes, sizeof bytes);
  uuid_v4_format(bytes, target);
}

void id_pool_uuid_v4(struct id_pool *pool, char target[static ID_UUID_BYTES]) {
  uint8_t bytes[ID_UUID_RAW_BYTES];
  id_pool_take(pool, bytes, sizeof bytes);
  uuid_v4_format(bytes, target);
}

static const uint8_t uuid_groups[] = {4, 2, 2, 2, 6}; /* bytes between dashes */

bool id_uuid_parse(const char *text, size_t length, uint8_t target[static ID_UUID_RAW_BYTES]) {
  if (length != ID_UUID_BYTES - 1)
    return false;
  for (size_t group = 0; group < sizeof(uuid_groups); group++) {
    if (group > 0 && *text++ != '-')
      return false;
    for (size_t i = 0; i < uuid_groups[group]; i++, text += 2) {
      int high = str_hex_value(text[0]), low = str_hex_value(text[1]);
      if (high < 0 || low < 0)
        return false;
      *target++ = (uint8_t)(high << 4 | low);
    }
  }
  return true;
}

void id_uuid_format(const uint8_t id[static ID_UUID_RAW_BYTES], char target[static ID_UUID_BYTES]) {
  char digits[2 * ID_UUID_RAW_BYTES + 1];
  str_hex_encode(digits, id, ID_UUID_RAW_BYTES);
  memcpy(target, digits, 8); /* each length is known here: a few moves, where a loop would make calls */
  memcpy(target + 9, digits + 8, 4);
  memcpy(target + 14, digits + 12, 4);
  memcpy(target + 19, digits + 16, 4);
  memcpy(target + 24, digits + 20, 12);
  target[8] = target[13] = target[18] = target[23] = '-';
  target[36] = 0;
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
