/* observe_test.c: metrics in text form, what modules may publish, the audit chain and what it shows. SPI-16. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/observe/observe_internal.h"
#include "sdk/base/clock.h"
#include "sdk/base/io.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"
#include "sdk/base/test.h"

typedef Core__Spi__Observability__V1__Metric metric_message;
typedef Core__Spi__Observability__V1__Attribute label_message;

#define TEXT(literal) ((char *)(uintptr_t)(literal))

static struct observe *observe_start(const char *state_dir, struct store *store, uint32_t series_max) {
  struct error err = {0};
  log_level_set(LOG_FATAL);
  struct observe *observe =
      observe_open(&(struct observe_options){.state_dir = state_dir, .store = store, .series_max = series_max}, &err);
  ck_assert_msg(observe != NULL, "%s: %s", err.code, err.message);
  return observe;
}

static void renders(struct observe *observe, const char *line) {
  struct buf text = {0};
  observe_render(observe, &text);
  ck_assert_msg(strstr(text.data, line) != NULL, "%s is not in\n%s", line, text.data);
  buf_free(&text);
}

START_TEST(samples_show_in_text_form) {
  struct observe *observe = observe_start(NULL, NULL, 0);
  const char *const labels[] = {"mcp", "local", "com\"ple\\te\nd", NULL}, *const family[] = {"mcp", NULL};
  const char *const bad[] = {"\xff\xfe", NULL};
  observe_count(observe, OBSERVE_INVOCATIONS, labels, 3);
  observe_count(observe, OBSERVE_INVOCATIONS, labels, 4);
  observe_gauge_set(observe, OBSERVE_CONTEXTS, NULL, 0.1);
  observe_gauge_set(observe, OBSERVE_MODULE_STATE, bad, 1);
  observe_duration(observe, OBSERVE_INVOCATION_SECONDS, family, 50);
  observe_duration(observe, OBSERVE_INVOCATION_SECONDS, family, 51);
  observe_duration(observe, OBSERVE_INVOCATION_SECONDS, family, 60000000);
  renders(observe, "# HELP gatehouse_invocations_total Invocations by family, path and outcome.\n"
                   "# TYPE gatehouse_invocations_total counter\n"
                   "gatehouse_invocations_total{family=\"mcp\",path=\"local\",outcome=\"com\\\"ple\\\\te\\nd\"} 7\n");
  renders(observe, "\ngatehouse_contexts 0.1\n");
  renders(observe, "\ngatehouse_sessions 0\n"); /* there from the start */
  renders(observe, "{module=\"invalid\"} 1\n");
  renders(observe, "gatehouse_invocation_seconds_bucket{family=\"mcp\",le=\"0.00005\"} 1\n"
                   "gatehouse_invocation_seconds_bucket{family=\"mcp\",le=\"0.0001\"} 2\n");
  renders(observe, "gatehouse_invocation_seconds_bucket{family=\"mcp\",le=\"30\"} 2\n"
                   "gatehouse_invocation_seconds_bucket{family=\"mcp\",le=\"+Inf\"} 3\n"
                   "gatehouse_invocation_seconds_sum{family=\"mcp\"} 60.000101\n"
                   "gatehouse_invocation_seconds_count{family=\"mcp\"} 3\n");
  observe_close(&observe);
}
END_TEST

START_TEST(series_of_the_core_are_bounded) {
  struct observe *observe = observe_start(NULL, NULL, 0);
  char code[32];
  for (int i = 0; i < OBSERVE_CORE_SERIES_MAX + 5; i++) {
    snprintf(code, sizeof(code), "code-%d", i);
    observe_count(observe, OBSERVE_AUTH_DENIED, (const char *const[]){"mcp", code, NULL}, 1);
  }
  renders(observe, "gatehouse_auth_denied_total{module=\"other\",code=\"other\"} 5\n");
  observe_close(&observe);
}
END_TEST

static uint32_t publish(struct observe *observe, metric_message *metric) {
  metric_message *metrics[] = {metric};
  Core__Spi__Observability__V1__PublishMetricsRequest request =
      CORE__SPI__OBSERVABILITY__V1__PUBLISH_METRICS_REQUEST__INIT;
  request.n_metrics = 1;
  request.metrics = metrics;
  return observe_module_publish(observe, "mcp", &request);
}

static metric_message metric_of(const char *name, int kind, double value) {
  metric_message metric = CORE__SPI__OBSERVABILITY__V1__METRIC__INIT;
  metric.name = TEXT(name);
  metric.kind = (Core__Spi__Observability__V1__MetricKind)kind;
  metric.value = value;
  metric.help = TEXT("help \\ and\nmore");
  return metric;
}

START_TEST(modules_publish_under_their_own_name) {
  struct observe *observe = observe_start(NULL, NULL, 0);
  label_message labels[2] = {CORE__SPI__OBSERVABILITY__V1__ATTRIBUTE__INIT,
                             CORE__SPI__OBSERVABILITY__V1__ATTRIBUTE__INIT};
  label_message *in_order[] = {&labels[0], &labels[1]}, *reversed[] = {&labels[1], &labels[0]};
  double bounds[] = {0.5, 1};
  uint64_t counts[] = {1, 2, 3};
  labels[0].key = TEXT("a");
  labels[0].value = TEXT("1");
  labels[1].key = TEXT("b");
  labels[1].value = TEXT("2");
  metric_message counter = metric_of("requests_total", 1, 2), gauge = metric_of("depth", 2, -1.5),
                 histogram = metric_of("seconds", 3, 4.5);
  counter.n_labels = 2;
  counter.labels = in_order;
  ck_assert_uint_eq(publish(observe, &counter), 0);
  counter.labels = reversed; /* the same series */
  ck_assert_uint_eq(publish(observe, &counter), 0);
  ck_assert_uint_eq(publish(observe, &gauge), 0);
  histogram.n_bucket_bounds = 2;
  histogram.bucket_bounds = bounds;
  histogram.n_bucket_counts = 3;
  histogram.bucket_counts = counts;
  ck_assert_uint_eq(publish(observe, &histogram), 0);
  ck_assert_uint_eq(publish(observe, &histogram), 0);
  renders(observe, "# HELP gatehouse_module_requests_total help \\\\ and\\nmore\n"
                   "# TYPE gatehouse_module_requests_total counter\n"
                   "gatehouse_module_requests_total{module=\"mcp\",a=\"1\",b=\"2\"} 4\n");
  renders(observe, "gatehouse_module_depth{module=\"mcp\"} -1.5\n");
  renders(observe, "gatehouse_module_seconds_bucket{module=\"mcp\",le=\"0.5\"} 2\n"
                   "gatehouse_module_seconds_bucket{module=\"mcp\",le=\"1\"} 6\n"
                   "gatehouse_module_seconds_bucket{module=\"mcp\",le=\"+Inf\"} 12\n"
                   "gatehouse_module_seconds_sum{module=\"mcp\"} 9\n"
                   "gatehouse_module_seconds_count{module=\"mcp\"} 12\n");
  observe_close(&observe);
}
END_TEST

START_TEST(what_a_module_publishes_is_checked) {
  struct observe *observe = observe_start(NULL, NULL, 3);
  static const struct {
    const char *name;
    int kind;
    double value;
    const char *key, *label;
    uint32_t refused;
  } rows[] = {
      {"good_total", 1, 1, NULL, NULL, 0},
      {"good_total", 2, 1, NULL, NULL, 1}, /* another kind */
      {"good_total", 1, -1, NULL, NULL, 1},
      {"good_total", 1, 1.0 / 0.0, NULL, NULL, 1},
      {"", 1, 1, NULL, NULL, 1},
      {"1st", 1, 1, NULL, NULL, 1},
      {"a b", 1, 1, NULL, NULL, 1},
      {"a\n# TYPE x", 1, 1, NULL, NULL, 1},
      {"x_bucket", 2, 1, NULL, NULL, 1},
      {"kind", 0, 1, NULL, NULL, 1},
      {"kind", 9, 1, NULL, NULL, 1},
      {"histogram", 3, 1, NULL, NULL, 1}, /* no buckets */
      {"labelled", 2, 1, "module", "x", 1},
      {"labelled", 2, 1, "le", "x", 1},
      {"labelled", 2, 1, "__name__", "x", 1},
      {"labelled", 2, 1, "a", "\xff", 1},
      {"labelled", 2, 1, "a-b", "x", 1},
      {"labelled", 2, 1, "a", "x", 0},
      {"labelled", 2, 1, "a", "y", 0},
      {"labelled", 2, 1, "a", "z", 1}, /* three series are there */
      {"labelled", 2, 2, "a", "y", 0},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    metric_message metric = metric_of(rows[i].name, rows[i].kind, rows[i].value);
    label_message label = CORE__SPI__OBSERVABILITY__V1__ATTRIBUTE__INIT, *labels[] = {&label};
    label.key = TEXT(rows[i].key);
    label.value = TEXT(rows[i].label);
    metric.labels = labels;
    metric.n_labels = rows[i].key != NULL;
    ck_assert_msg(publish(observe, &metric) == rows[i].refused, "row %zu", i);
  }
  observe_close(&observe);
}
END_TEST

START_TEST(a_sample_is_cheap) {
  enum { ROUNDS = 1000000 };
  struct observe *observe = observe_start(NULL, NULL, 0);
  const char *const labels[] = {"mcp", "local", "completed", NULL};
  int64_t begin_us = clock_monotonic_us();
  for (int i = 0; i < ROUNDS; i++)
    observe_count(observe, OBSERVE_INVOCATIONS, labels, 1);
  int64_t middle_us = clock_monotonic_us();
  for (int i = 0; i < ROUNDS; i++)
    observe_duration(observe, OBSERVE_INVOCATION_SECONDS, labels + 2, (uint64_t)i % 5000);
  printf("observe_count %.0f ns, observe_duration %.0f ns\n", (double)(middle_us - begin_us) * 1000 / ROUNDS,
         (double)(clock_monotonic_us() - middle_us) * 1000 / ROUNDS);
  renders(observe, "outcome=\"completed\"} 1000000\n");
  observe_close(&observe);
}
END_TEST

/* ---- audit ---- */

struct place {
  char folder[64], file[96];
  struct store *store;
};

static struct place place_open(void) {
  struct place place = {.store = store_open(&(struct store_options){.backend = "memory"}, NULL)};
  const char *root = getenv("TMPDIR");
  snprintf(place.folder, sizeof(place.folder), "%.40s/observe-XXXXXX", root ? root : "/tmp");
  ck_assert_ptr_nonnull(mkdtemp(place.folder));
  snprintf(place.file, sizeof(place.file), "%s/audit.jsonl", place.folder);
  return place;
}

static void place_close(struct place *place) {
  store_close(&place->store);
  unlink(place->file);
  rmdir(place->folder);
}

static void lines_append(struct place *place, int count) {
  struct observe *observe = observe_start(place->folder, place->store, 0);
  for (int i = 0; i < count; i++)
    observe_audit_append(observe, &(struct observe_audit){.action = "token.created",
                                                          .actor = "operator \"x\"\n",
                                                          .target = "t",
                                                          .outcome = "done",
                                                          .trace_id = "0af7",
                                                          .details_json = "{\"a\":\n[1]}"});
  observe_close(&observe);
  struct store_batch *batch = store_batch_create();
  ck_assert(store_commit_sync(place->store, &batch, NULL, NULL)); /* the anchor is in */
}

static struct buf file_read(const struct place *place) {
  struct buf content = {0};
  ck_assert(io_read_file(place->file, 1u << 20, &content, NULL));
  return content;
}

static void file_write(const struct place *place, const char *data, size_t length) {
  ck_assert(io_write_file_atomic(place->file, data, length, 0600, NULL));
}

START_TEST(the_chain_goes_on_over_restarts_and_verifies) {
  struct place place = place_open();
  struct error err = {0};
  uint64_t lines = 0;
  lines_append(&place, 3);
  lines_append(&place, 2);
  ck_assert_msg(observe_audit_verify(place.file, &lines, &err), "%s", err.message);
  ck_assert_uint_eq(lines, 5);
  struct buf content = file_read(&place);
  ck_assert_ptr_nonnull(strstr(content.data, "{\"sequence\":5,\"at\":\""));
  ck_assert_ptr_nonnull(strstr(content.data, "\"details\":{\"a\": [1]},\"previous\":\""));
  buf_free(&content);
  ck_assert(!observe_audit_verify("/nonexistent/audit", &lines, &err));
  ck_assert_str_eq(err.code, "not_found");
  place_close(&place);
}
END_TEST

/* How a file of five lines is harmed, and which line verification names. */
static void edit(struct buf *content) {
  *strstr(content->data, "operator") = 'O';
}
static void cut_first(struct buf *content) {
  buf_consume(content, (size_t)(strchr(content->data, '\n') + 1 - content->data));
}
static void cut_middle(struct buf *content) {
  char *second = strchr(content->data, '\n') + 1, *third = strchr(second, '\n') + 1;
  memmove(second, third, strlen(third) + 1);
  content->length = strlen(content->data);
}
static void cut_last(struct buf *content) {
  content->data[content->length - 1] = 0;
  content->length = (size_t)(strrchr(content->data, '\n') + 1 - content->data);
}
static void add_line(struct buf *content) {
  buf_append_text(content, "{\"sequence\":6}\n");
}
static void tear(struct buf *content) {
  buf_append_text(content, "{\"sequence\":6,\"at");
}

START_TEST(harm_shows) {
  static const struct {
    void (*harm)(struct buf *content);
    const char *verify; /* in the message; NULL: the file alone does not tell */
    bool opens;
  } rows[] = {{edit, "line 1", false}, {cut_first, NULL, true},     {cut_middle, "line 2", false},
              {cut_last, NULL, false}, {add_line, "line 6", false}, {tear, "line 6", true}};
  struct place place = place_open();
  struct error err = {0};
  lines_append(&place, 5);
  struct buf content = file_read(&place);
  rows[_i].harm(&content);
  file_write(&place, content.data, content.length);
  buf_free(&content);
  bool verified = observe_audit_verify(place.file, NULL, &err);
  ck_assert(verified == (rows[_i].verify == NULL));
  if (!verified)
    ck_assert_msg(strstr(err.message, rows[_i].verify) != NULL, "%s", err.message);
  struct observe *observe =
      observe_open(&(struct observe_options){.state_dir = place.folder, .store = place.store}, &err);
  ck_assert_msg((observe != NULL) == rows[_i].opens, "%s", err.message);
  if (observe && rows[_i].harm == tear) { /* the torn line is taken back, and said so */
    observe_close(&observe);
    content = file_read(&place);
    ck_assert_ptr_nonnull(strstr(content.data, "{\"sequence\":6,"));
    ck_assert_ptr_nonnull(strstr(content.data, "\"action\":\"audit.recovered\""));
    buf_free(&content);
    ck_assert(observe_audit_verify(place.file, NULL, NULL));
  }
  observe_close(&observe);
  place_close(&place);
}
END_TEST

START_TEST(a_file_that_was_put_aside_is_continued) {
  struct place place = place_open();
  lines_append(&place, 3);
  unlink(place.file);
  lines_append(&place, 1);
  struct buf content = file_read(&place);
  ck_assert(str_starts_with(content.data, "{\"sequence\":4,"));
  buf_free(&content);
  ck_assert(observe_audit_verify(place.file, NULL, NULL));
  place_close(&place);
}
END_TEST

START_TEST(details_that_are_no_object_are_left_out) {
  static const char *const details[] = {"[]", "{", "\"x\"", "{\"a\":1} ,\"hash\":\"y\""};
  struct place place = place_open();
  struct observe *observe = observe_start(place.folder, place.store, 0);
  for (size_t i = 0; i < sizeof(details) / sizeof(details[0]); i++)
    observe_audit_append(observe, &(struct observe_audit){.action = "x", .details_json = details[i]});
  observe_audit_append(observe,
                       &(struct observe_audit){.action = "x", .details_json = "{}garbage", .details_length = 2});
  observe_close(&observe);
  struct buf content = file_read(&place);
  size_t refused = 0;
  for (const char *at = content.data; (at = strstr(at, "\"details_refused\":true")); at++)
    refused++;
  ck_assert_uint_eq(refused, sizeof(details) / sizeof(details[0]));
  ck_assert_ptr_nonnull(strstr(content.data, "\"details\":{},"));
  buf_free(&content);
  ck_assert(observe_audit_verify(place.file, NULL, NULL));
  place_close(&place);
}
END_TEST

START_TEST(lines_of_modules_cannot_forge_ours) {
  Core__Spi__Observability__V1__LogRecord record = CORE__SPI__OBSERVABILITY__V1__LOG_RECORD__INIT,
                                          *records[] = {&record};
  Core__Spi__Observability__V1__EmitLogsRequest request = CORE__SPI__OBSERVABILITY__V1__EMIT_LOGS_REQUEST__INIT;
  label_message labels[3] = {CORE__SPI__OBSERVABILITY__V1__ATTRIBUTE__INIT,
                             CORE__SPI__OBSERVABILITY__V1__ATTRIBUTE__INIT,
                             CORE__SPI__OBSERVABILITY__V1__ATTRIBUTE__INIT};
  label_message *attributes[] = {&labels[0], &labels[1], &labels[2]};
  static const char *const keys[] = {"good.key", "room", "bad\",\"room\":\"core"};
  struct observe *observe = observe_start(NULL, NULL, 0);
  char text[4096] = "", name[] = "/tmp/observe-log-XXXXXX";
  int file = mkstemp(name), saved = dup(STDERR_FILENO);
  ck_assert_int_ge(file, 0);
  for (size_t i = 0; i < 3; i++) {
    labels[i].key = TEXT(keys[i]);
    labels[i].value = TEXT("value");
  }
  record.message = TEXT("hello");
  record.level = CORE__SPI__OBSERVABILITY__V1__LOG_LEVEL__LOG_LEVEL_ERROR;
  record.n_attributes = 3;
  record.attributes = attributes;
  request.n_records = 1;
  request.records = records;
  log_level_set(LOG_INFO);
  dup2(file, STDERR_FILENO);
  observe_logs_emit(observe, "mcp", &request);
  dup2(saved, STDERR_FILENO);
  ck_assert_int_gt(pread(file, text, sizeof(text) - 1, 0), 0);
  close(file);
  close(saved);
  unlink(name);
  ck_assert_ptr_nonnull(strstr(text, "\"message\":\"hello\",\"module\":\"mcp\",\"good.key\":\"value\"}\n"));
  ck_assert_ptr_nonnull(strstr(text, "\"level\":\"error\""));
  observe_close(&observe);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {samples_show_in_text_form,
                                series_of_the_core_are_bounded,
                                modules_publish_under_their_own_name,
                                what_a_module_publishes_is_checked,
                                a_sample_is_cheap,
                                the_chain_goes_on_over_restarts_and_verifies,
                                a_file_that_was_put_aside_is_continued,
                                details_that_are_no_object_are_left_out,
                                lines_of_modules_cannot_forge_ours};
  Suite *suite = suite_create("observe");
  TCase *tcase = tcase_create("observe");
  tcase_set_timeout(tcase, 60);
  for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
    tcase_add_test(tcase, tests[i]);
  tcase_add_loop_test(tcase, harm_shows, 0, 6);
  suite_add_tcase(suite, tcase);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
