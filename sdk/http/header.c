/* header.c: which bytes a field name, a method and a field value may have (RFC 9110 5.5, 5.6.2). */
#include "sdk/http/http_header.h"

#include <stdint.h>
#include <string.h>

#define EACH_BYTE UINT64_C(0x0101010101010101)
#define HIGH_BITS UINT64_C(0x8080808080808080)

static const bool token_characters[256] = {
    ['a' ... 'z'] = true, ['A' ... 'Z'] = true, ['0' ... '9'] = true, ['!'] = true, ['#'] = true, ['$'] = true,
    ['%'] = true,         ['&'] = true,         ['\''] = true,        ['*'] = true, ['+'] = true, ['-'] = true,
    ['.'] = true,         ['^'] = true,         ['_'] = true,         ['`'] = true, ['|'] = true, ['~'] = true,
};

bool http_token_is_valid(const char *text, size_t length) {
  for (size_t i = 0; i < length; i++)
    if (!token_characters[(unsigned char)text[i]])
      return false;
  return length > 0;
}

static bool value_bytes_are_valid(const char *text, size_t length) {
  for (size_t i = 0; i < length; i++) {
    unsigned char c = (unsigned char)text[i];
    if ((c < 0x20 && c != '\t') || c == 0x7f)
      return false;
  }
  return true;
}

/* Eight bytes at a time: whether one of them may be below 0x20 or 0x7F. A false alarm costs a look at each. */
static bool word_needs_look(uint64_t word) {
  uint64_t deleted = word ^ (EACH_BYTE * 0x7f);
  return ((((word - EACH_BYTE * 0x20) & ~word) | ((deleted - EACH_BYTE) & ~deleted)) & HIGH_BITS) != 0;
}

bool http_value_is_valid(const char *text, size_t length) {
  for (; length >= sizeof(uint64_t); text += sizeof(uint64_t), length -= sizeof(uint64_t)) {
    uint64_t word;
    memcpy(&word, text, sizeof(word));
    if (word_needs_look(word) && !value_bytes_are_valid(text, sizeof(word)))
      return false;
  }
  return value_bytes_are_valid(text, length);
}
