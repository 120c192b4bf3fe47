/* filter_test.c: response filters in their children: order, bounds, cancellation, and a worker that is none. */
#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "modules/rest/rest_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/test.h"
#include "sdk/http/http_server.h"

struct collected {
  struct event_base *base;
  unsigned done, wanted;
  unsigned outcomes[REST_FILTER_OUTCOMES];
  char last[256];
};

static void on_done(void *arg, enum rest_filter_outcome outcome, const char *json, size_t length) {
  struct collected *collected = arg;
  collected->outcomes[outcome]++;
  snprintf(collected->last, sizeof(collected->last), "%.*s", (int)length, json ? json : "");
  if (++collected->done == collected->wanted)
    event_base_loopbreak(collected->base);
}

static enum rest_filter_outcome run(struct rest_filters *filters, struct collected *collected, const char *program,
                                    const char *json) {
  enum rest_filter_outcome outcome;
  unsigned before[REST_FILTER_OUTCOMES];
  memcpy(before, collected->outcomes, sizeof(before));
  collected->wanted = collected->done + 1;
  if (!rest_filter_start(filters, program, json, strlen(json), on_done, collected, &outcome))
    return outcome;
  event_base_dispatch(collected->base);
  for (outcome = 0; outcome < REST_FILTER_OUTCOMES; outcome++)
    if (collected->outcomes[outcome] != before[outcome])
      return outcome;
  return REST_FILTER_OUTCOMES;
}

START_TEST(programs_end_as_they_should) {
  static const struct {
    const char *program, *json;
    enum rest_filter_outcome outcome;
    const char *output;
  } rows[] = {
      {".", "{\"a\":[1,\"\\u00e9\"]}", REST_FILTER_DONE, "{\"a\":[1,\"\xc3\xa9\"]}"},
      {".[]", "[1,2]", REST_FILTER_DONE, "[1,2]"},
      {".[]", "[]", REST_FILTER_DONE, "[]"},
      {". # comment", "1", REST_FILTER_DONE, "1"},
      {"def f: . + 1; f", "1", REST_FILTER_DONE, "2"},
      {".[]", "[null,null]", REST_FILTER_DONE, "[null,null]"},
      {".a", "{}", REST_FILTER_EMPTY, ""},
      {"$ENV", "1", REST_FILTER_DONE, "{}"},
      {".a", "1", REST_FILTER_FAILED, ""},
      {"halt", "1", REST_FILTER_FAILED, ""},
      {"input", "1", REST_FILTER_FAILED, ""},
      {"error(\"x\")", "1", REST_FILTER_FAILED, ""},
      {"]", "1", REST_FILTER_INVALID, ""},
      {"import \"a\" as a; .", "1", REST_FILTER_INVALID, ""},
      {"repeat(.)", "1", REST_FILTER_TOO_LARGE, ""},
  };
  struct event_base *base = http_event_base_new();
  struct collected collected = {.base = base};
  struct rest_filters *filters = rest_filters_create(base, REST_BINARY);
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    ck_assert_msg(run(filters, &collected, rows[i].program, rows[i].json) == rows[i].outcome, "%s", rows[i].program);
    ck_assert_str_eq(collected.last, rows[i].output);
  }
  rest_filters_free(&filters);
  event_base_free(base);
}
END_TEST

START_TEST(a_loop_is_stopped_while_others_go_on) {
  struct event_base *base = http_event_base_new();
  struct collected collected = {.base = base, .wanted = 6};
  struct rest_filters *filters = rest_filters_create(base, REST_BINARY);
  enum rest_filter_outcome outcome;
  ck_assert_ptr_nonnull(rest_filter_start(filters, "def f: f; f", "1", 1, on_done, &collected, &outcome));
  for (int i = 0; i < 5; i++)
    ck_assert_ptr_nonnull(rest_filter_start(filters, ".", "1", 1, on_done, &collected, &outcome));
  event_base_dispatch(base);
  ck_assert_uint_eq(collected.outcomes[REST_FILTER_DONE], 5);
  ck_assert_uint_eq(collected.outcomes[REST_FILTER_TIMEOUT], 1);
  rest_filters_free(&filters);
  event_base_free(base);
}
END_TEST

START_TEST(the_queue_is_bounded_and_cancelling_leaves_it) {
  struct event_base *base = http_event_base_new();
  struct collected collected = {.base = base, .wanted = 2};
  struct rest_filters *filters = rest_filters_create(base, REST_BINARY);
  struct rest_filter_job *jobs[REST_FILTER_WORKERS_MAX + REST_FILTER_QUEUE_MAX];
  enum rest_filter_outcome outcome;
  for (size_t i = 0; i < sizeof(jobs) / sizeof(jobs[0]); i++) {
    jobs[i] = rest_filter_start(filters, ".", "1", 1, on_done, &collected, &outcome);
    ck_assert_ptr_nonnull(jobs[i]);
  }
  ck_assert_ptr_null(rest_filter_start(filters, ".", "1", 1, on_done, &collected, &outcome));
  ck_assert_int_eq(outcome, REST_FILTER_BUSY);
  for (size_t i = 0; i + 2 < sizeof(jobs) / sizeof(jobs[0]); i++)
    rest_filter_cancel(jobs[i]);
  event_base_dispatch(base);
  ck_assert_uint_eq(collected.done, 2);
  rest_filters_free(&filters);
  event_base_free(base);
}
END_TEST

START_TEST(a_worker_that_is_none_fails_its_jobs) {
  struct event_base *base = http_event_base_new();
  struct collected collected = {.base = base};
  struct rest_filters *filters = rest_filters_create(base, "/nonexistent");
  ck_assert_int_eq(run(filters, &collected, ".", "1"), REST_FILTER_FAILED);
  rest_filters_free(&filters);
  filters = rest_filters_create(base, "/bin/true"); /* ends without a word */
  ck_assert_int_eq(run(filters, &collected, ".", "1"), REST_FILTER_FAILED);
  rest_filters_free(&filters);
  event_base_free(base);
}
END_TEST

/* What is written then meets no reader at all, which must not be a signal. */
START_TEST(a_worker_that_is_dead_before_its_job_is_written_fails_it) {
  struct event_base *base = http_event_base_new();
  struct collected collected = {.base = base, .wanted = 1};
  struct rest_filters *filters = rest_filters_create(base, "/bin/true");
  enum rest_filter_outcome outcome;
  siginfo_t info;
  ck_assert_ptr_nonnull(rest_filter_start(filters, ".", "1", 1, on_done, &collected, &outcome));
  ck_assert_int_eq(waitid(P_ALL, 0, &info, WEXITED | WNOWAIT), 0);
  event_base_dispatch(base);
  ck_assert_uint_eq(collected.outcomes[REST_FILTER_FAILED], 1);
  rest_filters_free(&filters);
  event_base_free(base);
}
END_TEST

static pid_t only_child(void) {
  char path[64];
  int child = 0;
  snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
  FILE *file = fopen(path, "r");
  ck_assert_ptr_nonnull(file);
  ck_assert_int_eq(fscanf(file, "%d", &child), 1);
  fclose(file);
  return child;
}

static void go_on(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  kill(*(pid_t *)arg, SIGCONT);
}

START_TEST(a_worker_that_could_not_run_was_not_slow) {
  static const struct timeval longer = {.tv_sec = REST_FILTER_TIME_MS / 1000 + 1};
  struct event_base *base = http_event_base_new();
  struct collected collected = {.base = base, .wanted = 1};
  struct rest_filters *filters = rest_filters_create(base, REST_BINARY);
  enum rest_filter_outcome outcome;
  ck_assert_ptr_nonnull(rest_filter_start(filters, ".", "1", 1, on_done, &collected, &outcome));
  pid_t worker = only_child();
  kill(worker, SIGSTOP);
  event_base_once(base, -1, EV_TIMEOUT, go_on, &worker, &longer);
  event_base_dispatch(base);
  ck_assert_uint_eq(collected.outcomes[REST_FILTER_DONE], 1);
  rest_filters_free(&filters);
  event_base_free(base);
}
END_TEST

TEST_MAIN("rest.filter", programs_end_as_they_should, a_loop_is_stopped_while_others_go_on,
          a_worker_that_could_not_run_was_not_slow, the_queue_is_bounded_and_cancelling_leaves_it,
          a_worker_that_is_none_fails_its_jobs, a_worker_that_is_dead_before_its_job_is_written_fails_it)
