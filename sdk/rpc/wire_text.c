/* wire_text.c: the text forms inside gRPC headers: base64 of "-bin" values, percent encoding of grpc-message,
 * grpc-timeout, and which names and values are metadata at all. Pure functions over outside bytes; nothing here trusts
 * its input. */
#include <string.h>

#include "sdk/base/str.h"
#include "sdk/rpc/rpc_internal.h"

void rpc_base64_encode(struct buf *target, const uint8_t *data, size_t length) {
  str_base64_encode(buf_reserve(target, STR_BASE64_LENGTH(length)), data, length);
  target->length += STR_BASE64_LENGTH(length);
}

bool rpc_base64_decode(struct buf *target, const char *text, size_t length) {
  size_t count;
  length -= str_base64_padding(text, length);
  uint8_t *out = (uint8_t *)buf_reserve(target, length / 4 * 3 + 3);
  if (!str_base64_decode(out, &count, text, length, STR_BASE64))
    return false;
  target->length += count;
  buf_append(target, "", 0);
  return true;
}

void rpc_percent_encode(struct buf *target, const char *text) {
  for (; *text != '\0'; text++) {
    unsigned char c = (unsigned char)*text;
    if (c >= 0x20 && c <= 0x7e && c != '%')
      buf_append_char(target, *text);
    else
      buf_printf(target, "%%%02X", c);
  }
}

void rpc_percent_decode(char *target, size_t target_bytes, const char *text, size_t length) {
  size_t written = 0;
  for (size_t i = 0; i < length && written + 1 < target_bytes; i++) {
    int high = text[i] == '%' && i + 2 < length ? str_hex_value(text[i + 1]) : -1;
    int low = high >= 0 ? str_hex_value(text[i + 2]) : -1;
    if (low >= 0 && high * 16 + low != 0) {
      target[written++] = (char)(high * 16 + low);
      i += 2;
    } else if (text[i] != '\0') {
      target[written++] = text[i];
    }
  }
  target[written] = '\0';
}

size_t rpc_timeout_format(char target[static RPC_TIMEOUT_TEXT_BYTES], int64_t timeout_us) {
  /* At most eight digits; the finest unit that fits. A deadline that has passed is sent as the smallest one. */
  int64_t value = timeout_us > 0 ? timeout_us : 1;
  char unit = 'u';
  if (value > 99999999) {
    value = (value + 999) / 1000;
    unit = 'm';
  }
  if (value > 99999999) {
    value = (value + 999) / 1000;
    unit = 'S';
  }
  if (value > 99999999)
    value = 99999999;
  char digits[8];
  size_t first = sizeof(digits);
  do
    digits[--first] = (char)('0' + value % 10);
  while ((value /= 10) > 0);
  size_t count = sizeof(digits) - first;
  memcpy(target, digits + first, count);
  target[count] = unit;
  target[count + 1] = '\0';
  return count + 1;
}

bool rpc_timeout_parse(const char *text, size_t length, int64_t *timeout_us) {
  static const struct {
    char unit;
    int64_t multiply, divide;
  } units[] = {{'H', 3600000000, 1}, {'M', 60000000, 1}, {'S', 1000000, 1},
               {'m', 1000, 1},       {'u', 1, 1},        {'n', 1, 1000}};
  if (length < 2 || length > 9)
    return false;
  int64_t value = 0;
  for (size_t i = 0; i + 1 < length; i++) {
    if (text[i] < '0' || text[i] > '9')
      return false;
    value = value * 10 + (text[i] - '0');
  }
  for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
    if (units[i].unit == text[length - 1]) {
      *timeout_us = value * units[i].multiply / units[i].divide; /* at most 3.6e17 */
      return true;
    }
  return false;
}

bool rpc_metadata_name_is_valid(const char *name, size_t length) {
  if (length == 0 || (length >= 5 && memcmp(name, "grpc-", 5) == 0))
    return false;
  for (size_t i = 0; i < length; i++) {
    char c = name[i];
    if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-'))
      return false;
  }
  return true;
}

bool rpc_metadata_value_is_valid(const char *value, size_t length) {
  if (length > 0 && (value[0] == ' ' || value[length - 1] == ' '))
    return false;
  for (size_t i = 0; i < length; i++)
    if (value[i] < 0x20 || value[i] > 0x7e)
      return false;
  return true;
}

bool rpc_metadata_name_is_binary(const char *name, size_t length) {
  return length >= 4 && memcmp(name + length - 4, "-bin", 4) == 0;
}
