/* buf.h: a growable byte buffer. `data` is always NUL-terminated behind `length`, so text can be used as a C string.
 * A zeroed struct is an empty buffer. One owner; not thread safe. */
#ifndef GATEHOUSE_BASE_BUF_H
#define GATEHOUSE_BASE_BUF_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct buf {
  char *data; /* NULL until first use */
  size_t length;
  size_t capacity;
};

/* Room for `more` bytes behind the content; set length yourself. */
static inline char *buf_reserve(struct buf *buf, size_t more);
static inline void buf_append(struct buf *buf, const void *data, size_t length);
static inline void buf_append_text(struct buf *buf, const char *text);
static inline void buf_append_char(struct buf *buf, char character);
void buf_append_u64(struct buf *buf, uint64_t number); /* decimal */
void buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buf_vprintf(struct buf *buf, const char *format, va_list arguments);
void buf_append_json_string(struct buf *buf, const char *text,
                            size_t length);      /* quoted and escaped; bad UTF-8 becomes U+FFFD */
void buf_consume(struct buf *buf, size_t count); /* drops bytes at the front */
void buf_clear(struct buf *buf);                 /* keeps the memory */
void buf_free(struct buf *buf);                  /* zeroes the struct */
char *buf_take(struct buf *buf);                 /* content as an owned C string (never NULL); buf is empty after */
char *buf_grow(struct buf *buf, size_t more);    /* buf_reserve's, when there is no room yet */

/* Here, since most of what is written is a few bytes of known length that fit. */

static inline char *buf_reserve(struct buf *buf, size_t more) {
  return more < buf->capacity - buf->length ? buf->data + buf->length : buf_grow(buf, more);
}

static inline void buf_append(struct buf *buf, const void *data, size_t length) {
  char *target = buf_reserve(buf, length);
  if (length)
    memcpy(target, data, length);
  target[length] = 0;
  buf->length += length;
}

static inline void buf_append_text(struct buf *buf, const char *text) {
  buf_append(buf, text, strlen(text));
}

static inline void buf_append_char(struct buf *buf, char character) {
  char *target = buf_reserve(buf, 1);
  target[0] = character;
  target[1] = 0;
  buf->length++;
}

#endif
