/* str.h: small helpers over C strings and byte ranges. Nothing here allocates unless it says so. Any thread. */
#ifndef GATEHOUSE_BASE_STR_H
#define GATEHOUSE_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool str_equal(const char *a, const char *b); /* NULL equals only NULL */
bool str_starts_with(const char *text, const char *prefix);
bool str_ends_with(const char *text, const char *suffix);
bool str_is_empty(const char *text);                                  /* NULL or "" */
bool str_copy(char *target, size_t target_bytes, const char *source); /* always terminated; false when cut */
bool str_parse_u64(const char *text, uint64_t *value);                /* decimal, whole text, overflow refused */
bool str_parse_i64(const char *text, int64_t *value);
bool str_is_utf8(const char *text, size_t length);            /* strict: no overlong forms, no surrogates */
bool str_is_visible_ascii(const char *text);                  /* 0x21..0x7E only, not empty */
bool str_matches_glob(const char *text, const char *pattern); /* '*' only, whole text */
bool str_equal_constant_time(const void *a, size_t a_length, const void *b,
                             size_t b_length); /* time depends on a_length only */
/* Of a hexadecimal digit in any case; -1: it is none. */
static inline int str_hex_value(char c) {
  unsigned digit = (unsigned char)c - '0', letter = ((unsigned char)c | 0x20u) - 'a';
  return digit < 10 ? (int)digit : letter < 6 ? (int)letter + 10 : -1;
}
void str_hex_encode(char *target, const uint8_t *data, size_t length);      /* target: 2*length+1 bytes, lower case */
bool str_hex_decode(uint8_t *target, size_t target_bytes, const char *hex); /* exactly 2*target_bytes digits */
/* Base64 of the usual alphabet: exactly STR_BASE64_LENGTH(length) characters with their padding, no NUL. */
#define STR_BASE64_LENGTH(length_) (((length_) + 2) / 3 * 4)
void str_base64_encode(char *target, const uint8_t *data, size_t length);
/* How much of the end is padding, when text is padded as it has to be; else 0, and '=' is no digit of any alphabet. */
size_t str_base64_padding(const char *text, size_t length);
/* Unpadded text of an alphabet, or of either. target: 3 bytes for every 4 characters begun. Strict: false for any other
 * character, a length that nothing has, and a second spelling of the same bytes. */
enum str_base64_alphabet { STR_BASE64 = 1, STR_BASE64URL = 2, STR_BASE64_EITHER = 3 };
bool str_base64_decode(uint8_t *target, size_t *count, const char *text, size_t length,
                       enum str_base64_alphabet alphabet);
char *str_base64url_encode(const uint8_t *data, size_t length); /* no padding; caller frees with base_free */
uint8_t *str_base64url_decode(const char *text, size_t text_length,
                              size_t *length); /* strict, unpadded; NULL: invalid; caller frees */

#endif
