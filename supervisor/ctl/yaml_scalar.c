/* yaml_scalar.c: plain scalars by the core schema of YAML 1.2 (10.3.2), as JSON:
 *
 *   null | Null | NULL | ~ | nothing      null
 *   true | True | TRUE | false | …        true, false
 *   [-+]? [0-9]+ ; 0o[0-7]+ ; 0x[0-9a-fA-F]+
 *   [-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?
 *
 * Everything else is a text. JSON has no .inf and .nan: those are refused rather than turned into something else. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sdk/base/str.h"
#include "supervisor/ctl/ctl_internal.h"

#define NUMBER_BYTES_MAX 400

static bool is_one_of(const char *text, size_t length, const char *const *words) {
  for (; *words; words++)
    if (strlen(*words) == length && memcmp(*words, text, length) == 0)
      return true;
  return false;
}

static size_t digits(const char *text, size_t length) {
  size_t count = 0;
  while (count < length && text[count] >= '0' && text[count] <= '9')
    count++;
  return count;
}

/* The parts of a decimal number; false: it is none. */
struct decimal {
  bool negative, point;
  const char *whole, *fraction, *exponent;
  size_t whole_length, fraction_length, exponent_length; /* exponent with its sign */
};

static bool decimal_read(const char *text, size_t length, struct decimal *number) {
  size_t at = 0;
  *number = (struct decimal){0};
  if (length > 0 && (text[0] == '-' || text[0] == '+'))
    number->negative = text[at++] == '-';
  number->whole = text + at;
  at += number->whole_length = digits(text + at, length - at);
  if (at < length && text[at] == '.') {
    number->point = true;
    number->fraction = text + ++at;
    at += number->fraction_length = digits(text + at, length - at);
  }
  if (number->whole_length + number->fraction_length == 0)
    return false;
  if (at < length && (text[at] == 'e' || text[at] == 'E')) {
    size_t sign = at + 1 < length && (text[at + 1] == '-' || text[at + 1] == '+');
    number->exponent = text + at + 1;
    size_t count = digits(text + at + 1 + sign, length - at - 1 - sign);
    if (count == 0)
      return false;
    number->exponent_length = sign + count;
    at += 1 + number->exponent_length;
  }
  return at == length;
}

/* JSON wants a digit before and after the point, no leading zero, no plus. */
static void decimal_write(const struct decimal *number, struct buf *target) {
  size_t zeros = 0;
  while (zeros + 1 < number->whole_length && number->whole[zeros] == '0')
    zeros++;
  if (number->negative)
    buf_append_char(target, '-');
  if (number->whole_length == 0)
    buf_append_char(target, '0');
  else
    buf_append(target, number->whole + zeros, number->whole_length - zeros);
  if (number->point) {
    buf_append_char(target, '.');
    if (number->fraction_length == 0)
      buf_append_char(target, '0');
    else
      buf_append(target, number->fraction, number->fraction_length);
  }
  if (number->exponent) {
    buf_append_char(target, 'e');
    buf_append(target, number->exponent, number->exponent_length);
  }
}

/* 0o17 and 0xFF. -1: neither; 0: more than 64 bits; 1: written. */
static int based_write(const char *text, size_t length, struct buf *target) {
  int base = length > 2 && text[0] == '0' && text[1] == 'o'   ? 8
             : length > 2 && text[0] == '0' && text[1] == 'x' ? 16
                                                              : 0;
  char copy[NUMBER_BYTES_MAX], *end;
  if (!base || length >= sizeof(copy))
    return -1;
  memcpy(copy, text + 2, length - 2);
  copy[length - 2] = '\0';
  if (strspn(copy, base == 8 ? "01234567" : "0123456789abcdefABCDEF") != length - 2)
    return -1;
  errno = 0;
  unsigned long long value = strtoull(copy, &end, base);
  if (errno)
    return 0;
  buf_printf(target, "%llu", value);
  return 1;
}

bool ctl_yaml_scalar_resolve(const char *text, size_t length, struct buf *target, bool *is_text) {
  static const char *const nulls[] = {"null", "Null", "NULL", "~", "", NULL};
  static const char *const trues[] = {"true", "True", "TRUE", NULL}, *const falses[] = {"false", "False", "FALSE",
                                                                                        NULL};
  static const char *const beyond[] = {".inf",  ".Inf",  ".INF", "+.inf", "+.Inf", "+.INF", "-.inf",
                                       "-.Inf", "-.INF", ".nan", ".NaN",  ".NAN",  NULL};
  struct decimal number;
  *is_text = false;
  int based = based_write(text, length, target);
  if (based >= 0)
    return based > 0;
  if (is_one_of(text, length, beyond))
    return false;
  if (is_one_of(text, length, nulls)) {
    buf_append_text(target, "null");
  } else if (is_one_of(text, length, trues)) {
    buf_append_text(target, "true");
  } else if (is_one_of(text, length, falses)) {
    buf_append_text(target, "false");
  } else if (decimal_read(text, length, &number)) {
    if (length > NUMBER_BYTES_MAX)
      return false;
    decimal_write(&number, target);
  } else {
    buf_append_json_string(target, text, length);
    *is_text = true;
  }
  return true;
}
