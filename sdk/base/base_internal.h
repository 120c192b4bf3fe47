/* base_internal.h: what the files of sdk/base share and no other room includes: UTF-8 stepping and JSON escaping. */
#ifndef GATEHOUSE_BASE_INTERNAL_H
#define GATEHOUSE_BASE_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the character at p (1 to 4), 0 when it is not strict UTF-8 (overlong, surrogate, above U+10FFFF, cut off).
 * p < end. */
static inline unsigned base_utf8_length(const char *p, const char *end) {
  const unsigned char *s = (const unsigned char *)p;
  size_t left = (size_t)(end - p);
  unsigned char c = s[0];
  if (c < 0x80)
    return 1;
  if (c < 0xc2 || c > 0xf4)
    return 0;
  if (left < 2)
    return 0;
  if (c < 0xe0)
    return (s[1] & 0xc0) == 0x80 ? 2 : 0;
  if (c < 0xf0) {
    unsigned char low = c == 0xe0 ? 0xa0 : 0x80, high = c == 0xed ? 0x9f : 0xbf;
    return left >= 3 && s[1] >= low && s[1] <= high && (s[2] & 0xc0) == 0x80 ? 3 : 0;
  }
  unsigned char low = c == 0xf0 ? 0x90 : 0x80, high = c == 0xf4 ? 0x8f : 0xbf;
  return left >= 4 && s[1] >= low && s[1] <= high && (s[2] & 0xc0) == 0x80 && (s[3] & 0xc0) == 0x80 ? 4 : 0;
}

/* Longest prefix of p..end that is plain in a JSON string: no quote, backslash, control character or byte above 0x7E.
 */
static inline const char *base_json_plain_end(const char *p, const char *end) {
  const uint64_t ones = 0x0101010101010101u, highs = 0x8080808080808080u;
  while (end - p >= 8) {
    uint64_t word;
    __builtin_memcpy(&word, p, 8);
    uint64_t quote = word ^ (ones * '"'), backslash = word ^ (ones * '\\');
    uint64_t bad = (word - ones * 0x20) | (quote - ones) | (backslash - ones) | word;
    if (bad & highs)
      break; /* at least one byte needs a look; false alarms only cost the slow loop below */
    p += 8;
  }
  while (p < end && (unsigned char)*p >= 0x20 && (unsigned char)*p < 0x80 && *p != '"' && *p != '\\')
    p++;
  return p;
}

/* Escapes the character at *p (*p < end) for a JSON string into out, steps *p over it, returns the bytes written. */
unsigned base_json_escape(const char **p, const char *end, char out[static 6]);

/* Decodes one character of the inside of a JSON string: steps *p, writes 1 to 4 bytes of UTF-8; 0: malformed. */
unsigned base_json_unescape(const char **p, const char *end, char out[static 4]);

#endif
