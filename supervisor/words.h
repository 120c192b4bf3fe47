/* words.h: a child's stderr: every line goes on to the supervisor's own stderr, and the last sixteen are kept as its
 * last words. A line that is JSON goes on as it is; any other becomes the text of a log line of ours, so that the whole
 * output stays one JSON object a line. A ring of fixed size, no allocation; when our stderr does not take more, lines
 * are dropped and counted rather than that the supervisor or a child waits. One thread. */
#ifndef GATEHOUSE_SUPERVISOR_WORDS_H
#define GATEHOUSE_SUPERVISOR_WORDS_H

#include <stddef.h>
#include <stdint.h>

#define WORDS_LINES 16
#define WORDS_LINE_BYTES 256
#define WORDS_PARTIAL_BYTES 4096

struct words_kept {
  char lines[WORDS_LINES][WORDS_LINE_BYTES];
  unsigned next, count;
};

struct words {
  struct words_kept kept;
  char partial[WORDS_PARTIAL_BYTES + 1];
  size_t partial_length;
  uint64_t dropped;
};

/* Takes what a child wrote. name: the child's id, for lines that are not JSON. output_fd: where lines go on; -1:
 * nowhere. */
void words_feed(struct words *words, const char *name, int output_fd, const char *data, size_t length);

/* The child is gone: what is left of an unfinished line counts as a line. */
void words_finish(struct words *words, const char *name, int output_fd);

/* Forgets the kept lines: a new life begins. */
void words_reset(struct words *words);

/* The i-th kept line, 0 the oldest: valid UTF-8 without control characters. NULL beyond the last. */
const char *words_line(const struct words_kept *kept, unsigned index);

#endif
