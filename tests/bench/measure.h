/* measure.h: what every load generator of the benchmarks shares: latency samples, CPU clocks of any process, and a
 * small command loop, so that one long-lived client serves many short rounds that a driver interleaves.
 *
 * A command is one line: OUTSTANDING PACE_US MILLISECONDS SERVER_PID [WORD]. PACE_US 0 means back to back. The answer
 * is one line of JSON. Not thread-safe; one run at a time. */
#ifndef GATEHOUSE_BENCH_MEASURE_H
#define GATEHOUSE_BENCH_MEASURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

/* The sizes of every echo: a permission check as modules send it, and a generous answer. */
#define MEASURE_REQUEST_BYTES 189
#define MEASURE_REPLY_BYTES 383
#define MEASURE_METHOD "/bench.v1.Echo/Call"
/* The part of a run that is not counted. */
#define MEASURE_WARM_UP_NS 100000000LL

struct measure_command {
  unsigned outstanding; /* 1…1024 */
  int64_t pace_us;      /* microseconds between two calls; 0: back to back */
  int64_t milliseconds; /* counted time */
  pid_t server_pid;     /* whose CPU time is charged to the server; 0: none */
  char word[64];        /* which call, where a client knows several */
};

/* One run. begin, then record for each call while measure_is_open, then end. */
struct measure {
  struct measure_command command;
  uint32_t *samples_ns;
  size_t sample_count, sample_capacity;
  uint64_t total, errors; /* with those of the warm-up */
  int64_t counted_from_ns, end_ns, counted_until_ns;
  clockid_t server_clock;
  int64_t own_cpu_ns, server_cpu_ns;
  bool counting;
};

int64_t measure_now_ns(void);
/* False: the line is no command. */
bool measure_command_parse(const char *line, struct measure_command *command);
void measure_begin(struct measure *measure, const struct measure_command *command);
/* One call ended. Calls that began in the warm-up are not counted. ok: its payload was as expected. */
void measure_record(struct measure *measure, int64_t started_ns, bool ok);
/* May a further call be started? */
static inline bool measure_is_open(const struct measure *measure) {
  return measure_now_ns() < measure->end_ns;
}
/* Stops the clocks: after the last call. Writes the result as one line of JSON (at most line_bytes). */
void measure_end(struct measure *measure, char *line, size_t line_bytes);
void measure_free(struct measure *measure);

/* Fills a reply whose bytes depend on the request's first one, and checks such a reply. */
void measure_reply_fill(uint8_t reply[static MEASURE_REPLY_BYTES], uint8_t seed);
bool measure_reply_is_right(const uint8_t *reply, size_t length, uint8_t seed);

/* Reads commands from standard input until it ends, prints each result. For clients with a loop of their own. */
int measure_serve_commands(void (*run)(struct measure *measure, void *arg), void *arg);

#endif
