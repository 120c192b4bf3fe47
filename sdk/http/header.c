/* header.c: which bytes a field name, a method and a field value may have (RFC 9110 5.5, 5.6.2). */
#include "sdk/http/http_header.h"

#include <string.h>

static const char token_marks[] = "!#$%&'*+-.^_`|~";

static bool is_token_character(unsigned char c) {
  if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'))
    return true;
  return c != '\0' && strchr(token_marks, c) != NULL;
}

bool http_token_is_valid(const char *text, size_t length) {
  for (size_t i = 0; i < length; i++)
    if (!is_token_character((unsigned char)text[i]))
      return false;
  return length > 0;
}

bool http_value_is_valid(const char *text, size_t length) {
  for (size_t i = 0; i < length; i++) {
    unsigned char c = (unsigned char)text[i];
    if ((c < 0x20 && c != '\t') || c == 0x7f)
      return false;
  }
  return true;
}
