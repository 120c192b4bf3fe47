/* words.c: see words.h. */
#include "supervisor/words.h"

#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "sdk/base/log.h"
#include "sdk/base/str.h"

/* Keeps a line: cut to size at a whole character, control characters blanked, foreign encodings replaced. */
static void keep(struct words_kept *words, const char *line, size_t length) {
  char *target = words->lines[words->next];
  size_t kept = length < WORDS_LINE_BYTES - 1 ? length : WORDS_LINE_BYTES - 1;
  if (kept < length)
    while (kept > 0 && ((unsigned char)line[kept] & 0xc0) == 0x80)
      kept--;
  memcpy(target, line, kept);
  target[kept] = '\0';
  for (size_t i = 0; i < kept; i++)
    if ((unsigned char)target[i] < 0x20 || target[i] == 0x7f)
      target[i] = ' ';
  if (!str_is_utf8(target, kept))
    for (size_t i = 0; i < kept; i++)
      if ((unsigned char)target[i] >= 0x80)
        target[i] = '?';
  words->next = (words->next + 1) % WORDS_LINES;
  if (words->count < WORDS_LINES)
    words->count++;
}

/* A pipe that polls writable takes PIPE_BUF (4096) bytes without blocking; a line is never longer. */
static void forward(struct words *words, int output_fd, const char *line, size_t length) {
  struct pollfd ready = {.fd = output_fd, .events = POLLOUT};
  if (poll(&ready, 1, 0) != 1 || !(ready.revents & POLLOUT) || write(output_fd, line, length) != (ssize_t)length)
    words->dropped++;
}

/* line[length] is its newline (or our terminator, which becomes one). */
static void take_line(struct words *words, const char *name, int output_fd, char *line, size_t length) {
  if (length == 0)
    return;
  keep(&words->kept, line, length);
  if (output_fd < 0)
    return;
  if (line[0] == '{' && line[length - 1] == '}') {
    line[length] = '\n';
    forward(words, output_fd, line, length + 1);
  } else {
    const char *text = words_line(&words->kept, words->kept.count - 1);
    log_event(LOG_WARN, "child", "plain text on stderr", LOG_TEXT("module", name), LOG_TEXT("text", text));
  }
}

static void flush(struct words *words, const char *name, int output_fd) {
  take_line(words, name, output_fd, words->partial, words->partial_length);
  words->partial_length = 0;
}

void words_feed(struct words *words, const char *name, int output_fd, const char *data, size_t length) {
  while (length > 0) {
    const char *end = memchr(data, '\n', length);
    size_t piece = end ? (size_t)(end - data) : length;
    size_t room = WORDS_PARTIAL_BYTES - 1 - words->partial_length; /* one byte stays for the newline of PIPE_BUF */
    if (piece > room) {                                            /* an overlong line goes on in parts */
      memcpy(words->partial + words->partial_length, data, room);
      words->partial_length += room;
      flush(words, name, output_fd);
      data += room;
      length -= room;
      continue;
    }
    memcpy(words->partial + words->partial_length, data, piece);
    words->partial_length += piece;
    data += piece;
    length -= piece;
    if (end) {
      flush(words, name, output_fd);
      data++;
      length--;
    }
  }
}

void words_finish(struct words *words, const char *name, int output_fd) {
  flush(words, name, output_fd);
  if (words->dropped > 0)
    log_event(LOG_WARN, "child", "lines on stderr were dropped", LOG_TEXT("module", name),
              LOG_INT("lines", words->dropped));
  words->dropped = 0;
}

void words_reset(struct words *words) {
  words->kept.next = words->kept.count = 0;
  words->partial_length = 0;
}

const char *words_line(const struct words_kept *kept, unsigned index) {
  if (index >= kept->count)
    return NULL;
  return kept->lines[(kept->next + WORDS_LINES - kept->count + index) % WORDS_LINES];
}
