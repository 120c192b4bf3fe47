/* event_test.c: events of modules: what is accepted, what is refused, how they are kept. EVT-1, EVT-2, EVT-3, EVT-4,
 * EVT-11, EVT-12, EVT-15, VSL-2, VSL-6, VSL-8, SCH-5, SCH-6, SCH-10. */
#include "core/psg/psg_test_support.h"

#define ID "\"event_id\":\"11111111-1111-4111-8111-111111111111\""
#define TIME "\"timestamp\":\"2026-07-28T10:00:00Z\""
#define CORE_PART ID ",\"event_type\":\"t\"," TIME
#define U "\"22222222-2222-4222-8222-222222222222\""

static const struct {
  const char *event, *field; /* NULL: valid; else what the message must begin with */
} rows[] = {
    {"{" CORE_PART ",\"event_family\":\"intent\"}", NULL},
    {"{" CORE_PART ",\"event_family\":\"intent\",\"anything\":[1],\"payload\":{}}", NULL},
    {"{" CORE_PART ",\"event_family\":\"intent\",\"payload\":[]}", "payload:"},
    {"{" CORE_PART ",\"event_family\":\"Intent\"}", "event_family:"},
    {"{" CORE_PART ",\"event_family\":\"\"}", "event_family:"},
    {"{" CORE_PART "}", "event_family:"},
    {"{" ID "," TIME ",\"event_family\":\"intent\"}", "event_type:"},
    {"{" ID ",\"event_type\":\"\"," TIME ",\"event_family\":\"intent\"}", "event_type:"},
    {"{\"event_type\":\"t\"," TIME ",\"event_family\":\"intent\"}", "event_id:"},
    {"{" CORE_PART "," ID ",\"event_family\":\"intent\"}", "event_id:"}, /* twice */
    {"{" CORE_PART ",\"event_family\":\"intent\",\"event_f\\u0061mily\":\"intent\"}", "event_family:"},
    {"{\"event_id\":\"11111111-1111-1111-8111-111111111111\",\"event_type\":\"t\"," TIME
     ",\"event_family\":\"intent\"}",
     "event_id:"},
    {"{" ID ",\"event_type\":\"t\",\"timestamp\":1,\"event_family\":\"intent\"}", "timestamp:"},
    {"{" ID ",\"event_type\":\"t\",\"timestamp\":\"yesterday\",\"event_family\":\"intent\"}", "timestamp:"},
    {"{" CORE_PART ",\"event_family\":\"intent\",\"project_id\":\"x\"}", "project_id:"},
    {"{" CORE_PART ",\"event_family\":\"graph_update\",\"graph_id\":" U
     ",\"update_kind\":\"bulk\",\"node_delta\":-1,\"edge_delta\":0}",
     NULL},
    {"{" CORE_PART ",\"event_family\":\"graph_update\",\"graph_id\":" U
     ",\"update_kind\":\"many\",\"node_delta\":-1,\"edge_delta\":0}",
     "update_kind:"},
    {"{" CORE_PART ",\"event_family\":\"graph_update\",\"graph_id\":" U
     ",\"update_kind\":\"bulk\",\"node_delta\":1.5,\"edge_delta\":0}",
     "node_delta:"},
    {"{" CORE_PART ",\"event_family\":\"graph_update\",\"graph_id\":" U ",\"update_kind\":\"bulk\",\"node_delta\":1}",
     "edge_delta:"},
    {"{" CORE_PART ",\"event_family\":\"pipeline_stage\",\"pipeline_id\":" U
     ",\"stage_id\":\"s\",\"stage_status\":\"running\",\"stage_order\":0}",
     NULL},
    {"{" CORE_PART ",\"event_family\":\"pipeline_stage\",\"pipeline_id\":" U
     ",\"stage_id\":\"s\",\"stage_status\":\"running\",\"stage_order\":-1}",
     "stage_order:"},
    {"{" CORE_PART ",\"event_family\":\"pipeline_stage\",\"pipeline_id\":" U
     ",\"stage_id\":\"\",\"stage_status\":\"running\"}",
     "stage_id:"},
    {"{" CORE_PART ",\"event_family\":\"runtime_execution\",\"execution_id\":" U
     ",\"executor_kind\":\"worker\",\"status\":\"pending\"}",
     NULL},
    {"{" CORE_PART ",\"event_family\":\"runtime_execution\",\"execution_id\":" U
     ",\"executor_kind\":\"human\",\"status\":\"pending\"}",
     "executor_kind:"},
    {"{" ID ",\"event_type\":\"SAInitialized\"," TIME ",\"sa_id\":" U "}", NULL},
    {"{" ID ",\"event_type\":\"SAInitialized\"," TIME ",\"sa_id\":" U ",\"extra\":1}", "extra:"},
    {"{" ID ",\"event_type\":\"SAOther\"," TIME ",\"sa_id\":" U "}", "event_type:"},
    {"{" ID ",\"event_type\":\"MAPRolesAssigned\"," TIME ",\"session_id\":" U ",\"target_roles\":[\"a\"]}", NULL},
    {"{" ID ",\"event_type\":\"MAPRolesAssigned\"," TIME ",\"session_id\":" U ",\"target_roles\":[1]}",
     "target_roles:"},
    {"[]", "An event"},
    {"{", ""},
    {"", ""},
};

START_TEST(events_are_checked_against_their_schema) {
  struct error err = {0};
  bool good = psg_event_check(rows[_i].event, strlen(rows[_i].event), &err);
  ck_assert_msg(good == (rows[_i].field == NULL), "%s: %s", rows[_i].event, err.message);
  if (rows[_i].field)
    ck_assert_msg(str_starts_with(err.message, rows[_i].field), "%s: %s", rows[_i].event, err.message);
}
END_TEST

struct answer {
  bool called;
  uint64_t sequence;
  char code[ERROR_CODE_MAX];
};

static void answered(void *arg, uint64_t sequence, const struct error *err) {
  struct answer *answer = arg;
  answer->called = true;
  answer->sequence = sequence;
  str_copy(answer->code, sizeof(answer->code), err ? err->code : "");
}

static struct answer emit(struct bench *bench, const char *event, const char *trace_id) {
  struct answer answer = {0};
  struct store_batch *batch = store_batch_create();
  psg_event_emit(bench->psg, event, strlen(event), trace_id, "", answered, &answer);
  ck_assert(store_commit_sync(bench->store, &batch, NULL, NULL)); /* comes after it */
  ck_assert(answer.called);
  return answer;
}

static bool same_bytes(void *arg, const struct store_event *event) {
  ck_assert_uint_eq(event->length, strlen(arg));
  ck_assert_mem_eq(event->bytes, arg, event->length);
  return true;
}

START_TEST(an_event_is_kept_byte_for_byte_once) {
  struct bench bench = {0};
  static char event[] = "{ " CORE_PART ",\"event_family\":\"intent\",  \"payload\":{\"a\":1.50} }";
  bench_open(&bench);
  uint64_t nodes = psg_node_count(bench.psg);
  struct answer answer = emit(&bench, event, "trace-7");
  ck_assert_str_eq(answer.code, "");
  ck_assert_uint_gt(answer.sequence, 0);
  ck_assert_str_eq(emit(&bench, event, "trace-7").code, "store.duplicate");
  struct store_event_query query = {.trace_id = "trace-7"};
  ck_assert(store_events_read(bench.store, &query, same_bytes, event, NULL));
  ck_assert_uint_eq(psg_node_count(bench.psg), nodes); /* EVT-15 */
  bench_stop(&bench);
  bench_remove(&bench);
}
END_TEST

START_TEST(events_that_would_lie_about_the_graph_are_refused) {
  struct bench bench = {0};
  char event[512], long_trace[400];
  bench_open(&bench);
  snprintf(event, sizeof(event),
           "{" CORE_PART ",\"event_family\":\"graph_update\",\"graph_id\":\"%s\",\"update_kind\":\"bulk\","
           "\"node_delta\":5,\"edge_delta\":0}",
           psg_graph_id(bench.psg));
  ck_assert_str_eq(emit(&bench, event, "").code, "psg.event.invalid");
  memset(long_trace, 'x', sizeof(long_trace) - 1);
  long_trace[sizeof(long_trace) - 1] = 0;
  ck_assert_str_eq(emit(&bench, "{" CORE_PART ",\"event_family\":\"intent\"}", long_trace).code, "argument.invalid");
  snprintf(event, sizeof(event),
           "{" CORE_PART ",\"event_family\":\"graph_update\",\"graph_id\":" U ",\"update_kind\":\"bulk\","
           "\"node_delta\":5,\"edge_delta\":0}");
  ck_assert_str_eq(emit(&bench, event, "").code, ""); /* a graph of its own */
  bench_stop(&bench);
  bench_start(&bench); /* which replay passes over */
  bench_stop(&bench);
  bench_remove(&bench);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("psg.event");
  TCase *tcase = tcase_create("psg.event");
  tcase_add_loop_test(tcase, events_are_checked_against_their_schema, 0, (int)(sizeof(rows) / sizeof(rows[0])));
  tcase_add_test(tcase, an_event_is_kept_byte_for_byte_once);
  tcase_add_test(tcase, events_that_would_lie_about_the_graph_are_refused);
  suite_add_tcase(suite, tcase);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
