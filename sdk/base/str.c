/* str.c: small helpers over C strings and byte ranges. */
#include "sdk/base/str.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sdk/base/alloc.h"
#include "sdk/base/base_internal.h"

bool str_equal(const char *a, const char *b) {
  return a == b || (a && b && strcmp(a, b) == 0);
}

bool str_starts_with(const char *text, const char *prefix) {
  return text && prefix && strncmp(text, prefix, strlen(prefix)) == 0;
}

bool str_ends_with(const char *text, const char *suffix) {
  if (!text || !suffix)
    return false;
  size_t text_length = strlen(text), suffix_length = strlen(suffix);
  return suffix_length <= text_length && memcmp(text + text_length - suffix_length, suffix, suffix_length) == 0;
}

bool str_is_empty(const char *text) {
  return !text || !*text;
}

bool str_copy(char *target, size_t target_bytes, const char *source) {
  if (!target_bytes)
    return false;
  size_t length = strnlen(source, target_bytes);
  bool fits = length < target_bytes;
  if (!fits)
    length = target_bytes - 1;
  memcpy(target, source, length);
  target[length] = 0;
  return fits;
}

bool str_parse_u64(const char *text, uint64_t *value) {
  if (str_is_empty(text))
    return false;
  uint64_t result = 0;
  for (; *text; text++) {
    if (*text < '0' || *text > '9' || __builtin_mul_overflow(result, 10u, &result) ||
        __builtin_add_overflow(result, (uint64_t)(*text - '0'), &result))
      return false;
  }
  *value = result;
  return true;
}

bool str_parse_i64(const char *text, int64_t *value) {
  if (!text)
    return false;
  bool negative = *text == '-';
  uint64_t magnitude;
  if (!str_parse_u64(text + negative, &magnitude) || magnitude > (uint64_t)INT64_MAX + negative)
    return false;
  *value = negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
  return true;
}

bool str_is_utf8(const char *text, size_t length) {
  const char *end = text + length;
  while (text < end) {
    unsigned step = base_utf8_length(text, end);
    if (!step)
      return false;
    text += step;
  }
  return true;
}

bool str_is_visible_ascii(const char *text) {
  if (str_is_empty(text))
    return false;
  for (; *text; text++)
    if ((unsigned char)*text < 0x21 || (unsigned char)*text > 0x7e)
      return false;
  return true;
}

bool str_matches_glob(const char *text, const char *pattern) {
  /* One remembered star is enough: a later star makes earlier choices irrelevant. Quadratic at worst. */
  const char *star = NULL, *resume = NULL;
  if (!text || !pattern)
    return false;
  while (*text) {
    if (*pattern == '*') {
      star = pattern++;
      resume = text;
    } else if (*pattern == *text) {
      pattern++;
      text++;
    } else if (star) {
      pattern = star + 1;
      text = ++resume;
    } else {
      return false;
    }
  }
  while (*pattern == '*')
    pattern++;
  return !*pattern;
}

bool str_equal_constant_time(const void *a, size_t a_length, const void *b, size_t b_length) {
  static const unsigned char empty[1];
  const volatile unsigned char *left = a;
  const volatile unsigned char *right = b_length ? b : empty;
  size_t difference = a_length ^ b_length;
  for (size_t i = 0; i < a_length; i++) {
    size_t inside = (size_t)0 - (size_t)(i < b_length); /* a mask, no branch on b_length */
    difference |= (size_t)(left[i] ^ right[i & inside]);
  }
  return difference == 0;
}

/* The eight digits of four bytes at once: each nibble in a byte of its own, then all of them made digits. */
static void hex_four(char *target, const uint8_t *data) {
  uint32_t four;
  memcpy(&four, data, sizeof(four));
  uint64_t spread = le32toh(four);
  spread = (spread | spread << 16) & UINT64_C(0x0000ffff0000ffff);
  spread = (spread | spread << 8) & UINT64_C(0x00ff00ff00ff00ff);
  uint64_t nibbles = (spread >> 4 & UINT64_C(0x000f000f000f000f)) | (spread & UINT64_C(0x000f000f000f000f)) << 8;
  uint64_t letters = (nibbles + UINT64_C(0x0606060606060606)) >> 4 & UINT64_C(0x0101010101010101);
  uint64_t digits = htole64(nibbles + UINT64_C(0x3030303030303030) + letters * ('a' - '0' - 10));
  memcpy(target, &digits, sizeof(digits));
}

void str_hex_encode(char *target, const uint8_t *data, size_t length) {
  static const char digits[] = "0123456789abcdef";
  for (; length >= 4; length -= 4, data += 4, target += 8)
    hex_four(target, data);
  for (size_t i = 0; i < length; i++) {
    *target++ = digits[data[i] >> 4];
    *target++ = digits[data[i] & 15];
  }
  *target = 0;
}

bool str_hex_decode(uint8_t *target, size_t target_bytes, const char *hex) {
  if (!hex || strlen(hex) != target_bytes * 2)
    return false;
  for (size_t i = 0; i < target_bytes; i++) {
    int high = str_hex_value(hex[2 * i]), low = str_hex_value(hex[2 * i + 1]);
    if (high < 0 || low < 0)
      return false;
    target[i] = (uint8_t)(high << 4 | low);
  }
  return true;
}

#define BASE64_DIGITS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

/* Returns where the digits end. */
static char *base64_write(char *out, const uint8_t *data, size_t length, const char digits[static 64]) {
  for (size_t i = 0; i < length; i += 3) {
    size_t left = length - i;
    uint32_t group = (uint32_t)data[i] << 16;
    group |= left > 1 ? (uint32_t)data[i + 1] << 8 : 0;
    group |= left > 2 ? (uint32_t)data[i + 2] : 0;
    *out++ = digits[group >> 18];
    *out++ = digits[group >> 12 & 63];
    if (left > 1)
      *out++ = digits[group >> 6 & 63];
    if (left > 2)
      *out++ = digits[group & 63];
  }
  return out;
}

void str_base64_encode(char *target, const uint8_t *data, size_t length) {
  char *end = target + STR_BASE64_LENGTH(length);
  for (char *out = base64_write(target, data, length, BASE64_DIGITS "+/"); out < end; out++)
    *out = '=';
}

char *str_base64url_encode(const uint8_t *data, size_t length) {
  char *text = base_alloc(STR_BASE64_LENGTH(length) + 1);
  *base64_write(text, data, length, BASE64_DIGITS "-_") = 0;
  return text;
}

static int base64_value(char digit, enum str_base64_alphabet alphabet) {
  if (digit >= 'A' && digit <= 'Z')
    return digit - 'A';
  if (digit >= 'a' && digit <= 'z')
    return digit - 'a' + 26;
  if (digit >= '0' && digit <= '9')
    return digit - '0' + 52;
  if ((digit == '+' && alphabet & STR_BASE64) || (digit == '-' && alphabet & STR_BASE64URL))
    return 62;
  return (digit == '/' && alphabet & STR_BASE64) || (digit == '_' && alphabet & STR_BASE64URL) ? 63 : -1;
}

size_t str_base64_padding(const char *text, size_t length) {
  if (length == 0 || length % 4 != 0 || text[length - 1] != '=')
    return 0;
  return text[length - 2] == '=' ? 2 : 1;
}

bool str_base64_decode(uint8_t *target, size_t *count, const char *text, size_t length,
                       enum str_base64_alphabet alphabet) {
  uint32_t bits = 0;
  unsigned bit_count = 0;
  *count = 0;
  if (length % 4 == 1)
    return false;
  for (size_t i = 0; i < length; i++) {
    int value = base64_value(text[i], alphabet);
    if (value < 0)
      return false;
    bits = bits << 6 | (uint32_t)value;
    bit_count += 6;
    if (bit_count >= 8) {
      bit_count -= 8;
      target[(*count)++] = (uint8_t)(bits >> bit_count);
    }
  }
  return !(bits & ((1u << bit_count) - 1)); /* two spellings of the same bytes: refused */
}

uint8_t *str_base64url_decode(const char *text, size_t text_length, size_t *length) {
  uint8_t *data = base_alloc(text_length / 4 * 3 + 4);
  if (str_base64_decode(data, length, text, text_length, STR_BASE64URL)) {
    data[*length] = 0;
    return data;
  }
  base_free(data);
  return NULL;
}
