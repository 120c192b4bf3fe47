/* buf.c: the growable buffer. Growth doubles; one byte behind the content always holds NUL. */
#include "sdk/base/buf.h"

#include <stdio.h>
#include <string.h>

#include "sdk/base/alloc.h"
#include "sdk/base/base_internal.h"
#include "sdk/base/check.h"

#define BUF_FIRST_BYTES 64u

char *buf_grow(struct buf *buf, size_t more) {
  size_t needed, capacity = buf->capacity < BUF_FIRST_BYTES ? BUF_FIRST_BYTES : buf->capacity;
  BASE_CHECK(!__builtin_add_overflow(buf->length, more, &needed) && !__builtin_add_overflow(needed, 1, &needed));
  while (capacity < needed)
    if (__builtin_mul_overflow(capacity, 2, &capacity))
      capacity = needed;
  buf->data = base_realloc(buf->data, capacity);
  buf->capacity = capacity;
  buf->data[buf->length] = 0;
  return buf->data + buf->length;
}

void buf_append_u64(struct buf *buf, uint64_t number) {
  char digits[20];
  size_t at = sizeof(digits);
  do
    digits[--at] = (char)('0' + number % 10);
  while (number /= 10);
  buf_append(buf, digits + at, sizeof(digits) - at);
}

void buf_vprintf(struct buf *buf, const char *format, va_list arguments) {
  va_list again;
  va_copy(again, arguments);
  size_t room = buf->capacity - buf->length;
  int length = vsnprintf(room ? buf->data + buf->length : NULL, room, format, arguments);
  BASE_CHECK(length >= 0);
  if ((size_t)length >= room) {
    char *target = buf_reserve(buf, (size_t)length);
    vsnprintf(target, (size_t)length + 1, format, again);
  }
  buf->length += (size_t)length;
  va_end(again);
}

void buf_printf(struct buf *buf, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  buf_vprintf(buf, format, arguments);
  va_end(arguments);
}

void buf_append_json_string(struct buf *buf, const char *text, size_t length) {
  buf_reserve(buf, length + 2);
  buf_append_char(buf, '"');
  for (const char *p = text, *end = text + length; p < end;) {
    const char *plain_end = base_json_plain_end(p, end);
    if (plain_end > p) {
      buf_append(buf, p, (size_t)(plain_end - p));
      p = plain_end;
    } else {
      char escaped[6];
      unsigned count = base_json_escape(&p, end, escaped);
      buf_append(buf, escaped, count);
    }
  }
  buf_append_char(buf, '"');
}

void buf_consume(struct buf *buf, size_t count) {
  BASE_CHECK(count <= buf->length);
  if (!count)
    return;
  memmove(buf->data, buf->data + count, buf->length - count + 1);
  buf->length -= count;
}

void buf_clear(struct buf *buf) {
  buf->length = 0;
  if (buf->data)
    buf->data[0] = 0;
}

void buf_free(struct buf *buf) {
  base_free(buf->data);
  *buf = (struct buf){0};
}

char *buf_take(struct buf *buf) {
  buf_reserve(buf, 0);
  char *data = buf->data;
  data[buf->length] = 0;
  *buf = (struct buf){0};
  return data;
}
