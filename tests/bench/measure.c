/* measure.c: samples, clocks and the command loop of measure.h. A percentile is exact: every sample is kept. */
#include "tests/bench/measure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sdk/base/alloc.h"

enum { SAMPLES_FIRST = 65536 };

int64_t measure_now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int64_t cpu_ns(clockid_t clock) {
  struct timespec spent;
  return clock_gettime(clock, &spent) == 0 ? (int64_t)spent.tv_sec * 1000000000 + spent.tv_nsec : 0;
}

bool measure_command_parse(const char *line, struct measure_command *command) {
  long long pace, milliseconds, pid;
  *command = (struct measure_command){0};
  int count = sscanf(line, "%u %lld %lld %lld %63s", &command->outstanding, &pace, &milliseconds, &pid, command->word);
  if (count < 4 || command->outstanding < 1 || command->outstanding > 1024 || pace < 0 || milliseconds < 1 || pid < 0)
    return false;
  command->pace_us = pace;
  command->milliseconds = milliseconds;
  command->server_pid = (pid_t)pid;
  return true;
}

void measure_begin(struct measure *measure, const struct measure_command *command) {
  measure->command = *command;
  measure->sample_count = 0;
  measure->errors = 0;
  measure->total = 0;
  measure->counting = false;
  measure->counted_from_ns = measure_now_ns() + MEASURE_WARM_UP_NS;
  measure->end_ns = measure->counted_from_ns + command->milliseconds * 1000000;
  if (command->server_pid == 0 || clock_getcpuclockid(command->server_pid, &measure->server_clock) != 0)
    measure->server_clock = 0;
  if (measure->samples_ns == NULL) {
    measure->sample_capacity = SAMPLES_FIRST;
    measure->samples_ns = base_calloc(SAMPLES_FIRST, sizeof(uint32_t));
  }
}

static int64_t server_cpu_ns(const struct measure *measure) {
  return measure->server_clock ? cpu_ns(measure->server_clock) : 0;
}

void measure_record(struct measure *measure, int64_t started_ns, bool ok) {
  int64_t now = measure_now_ns();
  measure->errors += !ok;
  measure->total++;
  if (started_ns < measure->counted_from_ns)
    return;
  if (!measure->counting) { /* the clocks start with the end of the first counted call: one call of thousands is off */
    measure->counting = true;
    measure->counted_from_ns = now;
    measure->own_cpu_ns = cpu_ns(CLOCK_PROCESS_CPUTIME_ID);
    measure->server_cpu_ns = server_cpu_ns(measure);
    return;
  }
  if (measure->sample_count == measure->sample_capacity) {
    measure->sample_capacity *= 2;
    measure->samples_ns = base_realloc_array(measure->samples_ns, measure->sample_capacity, sizeof(uint32_t));
  }
  int64_t took = now - started_ns;
  measure->samples_ns[measure->sample_count++] = took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
  measure->counted_until_ns = now;
}

static int sample_compare(const void *a, const void *b) {
  uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
  return (left > right) - (left < right);
}

static double percentile_us(const struct measure *measure, double share) {
  size_t index = (size_t)((double)(measure->sample_count - 1) * share);
  return (double)measure->samples_ns[index] / 1000.0;
}

void measure_end(struct measure *measure, char *line, size_t line_bytes) {
  double own = (double)(cpu_ns(CLOCK_PROCESS_CPUTIME_ID) - measure->own_cpu_ns) / 1000.0;
  double server = (double)(server_cpu_ns(measure) - measure->server_cpu_ns) / 1000.0;
  if (measure->sample_count == 0) {
    snprintf(line, line_bytes, "{\"calls\": 0, \"errors\": %llu}", (unsigned long long)measure->errors);
    return;
  }
  double calls = (double)measure->sample_count;
  double seconds = (double)(measure->counted_until_ns - measure->counted_from_ns) / 1e9;
  qsort(measure->samples_ns, measure->sample_count, sizeof(uint32_t), sample_compare);
  snprintf(line, line_bytes,
           "{\"calls\": %zu, \"total\": %llu, \"errors\": %llu, \"p50_us\": %.2f, \"p99_us\": %.2f, \"rps\": %.0f, "
           "\"client_cpu_us\": %.2f, \"server_cpu_us\": %.2f}",
           measure->sample_count, (unsigned long long)measure->total, (unsigned long long)measure->errors,
           percentile_us(measure, 0.50), percentile_us(measure, 0.99), calls / seconds, own / calls, server / calls);
}

void measure_free(struct measure *measure) {
  base_free(measure->samples_ns);
  *measure = (struct measure){0};
}

void measure_reply_fill(uint8_t reply[static MEASURE_REPLY_BYTES], uint8_t seed) {
  memset(reply, (uint8_t)(seed + 1), MEASURE_REPLY_BYTES);
}

bool measure_reply_is_right(const uint8_t *reply, size_t length, uint8_t seed) {
  uint8_t expected[MEASURE_REPLY_BYTES];
  measure_reply_fill(expected, seed);
  return length == sizeof(expected) && memcmp(reply, expected, sizeof(expected)) == 0;
}

int measure_serve_commands(void (*run)(struct measure *measure, void *arg), void *arg) {
  struct measure measure = {0};
  char line[512];
  while (fgets(line, sizeof(line), stdin) != NULL) {
    struct measure_command command;
    if (!measure_command_parse(line, &command)) {
      fprintf(stderr, "not a command: %s", line);
      measure_free(&measure);
      return EXIT_FAILURE;
    }
    measure_begin(&measure, &command);
    run(&measure, arg);
    measure_end(&measure, line, sizeof(line));
    puts(line);
    fflush(stdout);
  }
  measure_free(&measure);
  return EXIT_SUCCESS;
}
