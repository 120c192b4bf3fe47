/* psg_test.c: what the core records: executions, modules, runs; bounds; restarts. AEL-3, GLUE-2, GLUE-3, GLUE-7, LIF-1,
 * EVT-5, EVT-10, EVT-14, PSG-12, PSG-13, PSG-16, SPI-9. */
#include "core/psg/psg_test_support.h"

static const struct psg_execution_start a_start = {
    .executor_kind = "tool",
    .record_id = "b6a3a1c6-0000-4000-8000-000000000001",
    .record_name = "echo \"quoted\"",
    .module_id = "mcp",
    .owner_family = "rest",
    .subject = "dev@example.com",
    .trace_id = "0af7651916cd43dd8448eb211c80319c",
    .request_id = "42",
};

static void transition(struct bench *bench, const char *module, uint64_t generation, const char *from, const char *to) {
  psg_module_transition_record(bench->psg, &(struct psg_module_transition){.module_id = module,
                                                                           .protocol_family = "mcp",
                                                                           .module_version = "1.2.3-rc.1",
                                                                           .generation = generation,
                                                                           .from_state = from,
                                                                           .to_state = to,
                                                                           .cause = "test"});
}

static const char *span_of(struct bench *bench, const char *id) {
  const char *object = psg_node_get(bench->psg, "SpanNode", id, NULL);
  ck_assert_ptr_nonnull(object);
  return object;
}

START_TEST(a_new_store_gets_a_graph_that_stays_the_same) {
  struct bench bench = {0};
  bench_open(&bench);
  char graph_id[ID_UUID_BYTES];
  str_copy(graph_id, sizeof(graph_id), psg_graph_id(bench.psg));
  ck_assert(id_is_uuid_v4(graph_id));
  ck_assert_uint_eq(psg_node_count(bench.psg), 2); /* context, run */
  ck_assert_uint_eq(psg_edge_count(bench.psg), 1); /* TRACES */
  law_holds(&bench);
  bench_stop(&bench);
  bench_start(&bench);
  ck_assert_str_eq(psg_graph_id(bench.psg), graph_id);
  ck_assert_uint_eq(psg_node_count(bench.psg), 3);
  law_holds(&bench);
  bench_stop(&bench);
  bench_remove(&bench);
}
END_TEST

START_TEST(an_execution_is_an_event_at_start_and_end_and_a_node) {
  struct bench bench = {0};
  char id[ID_UUID_BYTES];
  bench_open(&bench);
  struct tally before = bench_tally(&bench);
  psg_execution_begin(bench.psg, &a_start, id);
  ck_assert(id_is_uuid_v4(id));
  ck_assert_ptr_nonnull(strstr(span_of(&bench, id), "\"status\":\"running\"}"));
  bench_settle(&bench);
  psg_execution_end(bench.psg, id, PSG_EXECUTION_FAILED, 1234, "invoke.upstream.failed", 99);
  psg_execution_end(bench.psg, id, PSG_EXECUTION_COMPLETED, 1, NULL, 0); /* ended: ignored */
  psg_execution_end(bench.psg, "no such id", PSG_EXECUTION_COMPLETED, 1, NULL, 0);
  law_holds(&bench);
  struct tally after = bench_tally(&bench);
  ck_assert_uint_eq(after.executions - before.executions, 2);
  ck_assert_uint_eq(after.updates - before.updates, 2);
  ck_assert_ptr_nonnull(strstr(span_of(&bench, id), "\"status\":\"failed\",\"duration_us\":1234,\"result_bytes\":99,"
                                                    "\"error_code\":\"invoke.upstream.failed\",\"finished_at\":"));
  struct store_event_query by_trace = {.trace_id = a_start.trace_id};
  struct tally traced = {0};
  ck_assert(store_events_read(bench.store, &by_trace, tally_event, &traced, NULL));
  ck_assert_uint_eq(traced.executions, 2);
  bench_stop(&bench);
  bench_remove(&bench);
}
END_TEST

START_TEST(a_refused_execution_is_one_valid_event_and_nothing_in_the_graph) {
  struct bench bench = {0};
  bench_open(&bench);
  struct tally before = bench_tally(&bench);
  psg_execution_denied(bench.psg, &a_start, "rate_limit.exceeded");
  bench_settle(&bench);
  struct tally after = bench_tally(&bench); /* which checks every event against its schema */
  ck_assert_uint_eq(after.executions - before.executions, 1);
  ck_assert_uint_eq(after.updates - before.updates, 0);
  ck_assert_int_eq(after.nodes - before.nodes, 0);
  law_holds(&bench);
  bench_stop(&bench);
  bench_remove(&bench);
}
END_TEST

START_TEST(what_happens_within_one_flush_is_one_update_with_net_deltas) {
  struct bench bench = {0};
  char id[ID_UUID_BYTES];
  bench_open(&bench);
  struct tally before = bench_tally(&bench);
  for (int i = 0; i < 10; i++) {
    psg_execution_begin(bench.psg, &a_start, id);
    psg_execution_end(bench.psg, id, PSG_EXECUTION_COMPLETED, 5, NULL, 0);
  }
  bench_settle(&bench);
  struct tally after = bench_tally(&bench);
  ck_assert_uint_eq(after.updates - before.updates, 1);
  ck_assert_int_eq(after.nodes - before.nodes, 10);
  ck_assert_uint_eq(after.executions - before.executions, 20);
  law_holds(&bench);
  bench_stop(&bench);
  bench_remove(&bench);
}
END_TEST

START_TEST(ended_executions_are_kept_up_to_a_bound) {
  struct bench bench = {.execution_history = 5};
  char first[ID_UUID_BYTES], id[ID_UUID_BYTES];
  bench_open(&bench);
  psg_execution_begin(bench.psg, &a_start, first);
  psg_execution_end(bench.psg, first, PSG_EXECUTION_COMPLETED, 5, NULL, 0);
  for (int i = 0; i < 20; i++) {
    psg_execution_begin(bench.psg, &a_start, id);
    psg_execution_end(bench.psg, id, PSG_EXECUTION_COMPLETED, 5, NULL, 0);
    if (i % 3 == 0)
      bench_settle(&bench);
  }
  ck_assert_ptr_null(psg_node_get(bench.psg, "SpanNode", first, NULL));
  span_of(&bench, id);
  ck_assert_uint_eq(psg_node_count(bench.psg), 2 + 5);
  law_holds(&bench);
  bench_stop(&bench);
  bench_remove(&bench);
}
END_TEST

START_TEST(a_crash_leaves_executions_and_run_to_be_closed_as_failed) {
  struct bench bench = {0};
  char id[ID_UUID_BYTES], run[ID_UUID_BYTES];
  bench_open(&bench);
  str_copy(run, sizeof(run), bench.psg->run_id);
  psg_execution_begin(bench.psg, &a_start, id);
  transition(&bench, "mcp", 7, "discovered", "registered");
  bench_settle(&bench);
  bench_crash(&bench);
  bench_start(&bench);
  ck_assert_ptr_nonnull(strstr(span_of(&bench, id), "\"status\":\"failed\""));
  ck_assert_ptr_nonnull(strstr(span_of(&bench, id), "\"error_code\":\"core.restarted\""));
  ck_assert_ptr_nonnull(strstr(psg_node_get(bench.psg, "TraceNode", run, NULL), "\"status\":\"failed\""));
  psg_execution_end(bench.psg, id, PSG_EXECUTION_COMPLETED, 5, NULL, 0); /* of the run before: ignored */
  ck_assert_ptr_nonnull(strstr(span_of(&bench, id), "\"status\":\"failed\""));
  for (const struct psg_node *node = bench.psg->graph.nodes; node; node = node->hh.next)
    ck_assert(node->type != PSG_TYPE_StageNode || !node->live);
  law_holds(&bench);
  bench_stop(&bench);
  bench_remove(&bench);
}
END_TEST

START_TEST(a_stop_in_order_completes_the_run) {
  struct bench bench = {0};
  char run[ID_UUID_BYTES], id[ID_UUID_BYTES];
  bench_open(&bench);
  str_copy(run, sizeof(run), bench.psg->run_id);
  psg_execution_begin(bench.psg, &a_start, id);
  bench_stop(&bench);
  bench_start(&bench);
  ck_assert_ptr_nonnull(strstr(psg_node_get(bench.psg, "TraceNode", run, NULL), "\"status\":\"completed\""));
  ck_assert_ptr_nonnull(strstr(span_of(&bench, id), "\"status\":\"cancelled\""));
  bench_stop(&bench);
  bench_remove(&bench);
}
END_TEST

START_TEST(old_runs_are_forgotten) {
  struct bench bench = {0};
  bench_open(&bench);
  for (int i = 0; i < PSG_RUNS_MAX + 5; i++) {
    bench_stop(&bench);
    bench_start(&bench);
  }
  ck_assert_uint_le(bench.psg->run_count, PSG_RUNS_MAX + 1);
  law_holds(&bench);
  bench_stop(&bench);
  bench_remove(&bench);
}
END_TEST

static const char *extension_of(struct bench *bench, const char *module) {
  for (const struct psg_node *node = bench->psg->graph.nodes; node; node = node->hh.next) {
    char *name = node->type == PSG_TYPE_ExtensionNode ? psg_object_text(node->object, node->length, "name") : NULL;
    bool found = str_equal(name, module);
    base_free(name);
    if (found)
      return node->object;
  }
  return "";
}

START_TEST(a_module_is_an_extension_with_a_stage_for_each_state) {
  static const struct {
    uint64_t generation;
    const char *from, *to, *status; /* of the extension afterwards */
    uint64_t stage_events;
  } steps[] = {
      {1, "discovered", "registered", "registered", 3}, /* first begins and ends, second begins */
      {1, "registered", "initializing", "registered", 2},
      {1, "initializing", "warming", "registered", 2},
      {1, "warming", "ready", "active", 2},
      {1, "ready", "degraded", "active", 2},
      {1, "degraded", "ready", "active", 2},
      {2, "discovered", "registered", "active", 3}, /* the next version comes beside it */
      {2, "registered", "ready", "active", 2},
      {1, "ready", "draining", "active", 2},
      {1, "draining", "stopped", "active", 2}, /* the old one's end is not the module's */
      {2, "ready", "failed", "inactive", 2},
      {2, "failed", "backoff", "inactive", 1}, /* failed is over by itself */
      {2, "backoff", "a-state-of-tomorrow", "inactive", 2},
  };
  struct bench bench = {0};
  bench_open(&bench);
  uint64_t stages = bench_tally(&bench).stages;
  for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
    char status[40];
    transition(&bench, "mcp", steps[i].generation, steps[i].from, steps[i].to);
    law_holds(&bench);
    snprintf(status, sizeof(status), "\"status\":\"%s\"", steps[i].status);
    ck_assert_msg(strstr(extension_of(&bench, "mcp"), status) != NULL, "step %zu: %s", i, extension_of(&bench, "mcp"));
    uint64_t now = bench_tally(&bench).stages;
    ck_assert_msg(now - stages == steps[i].stage_events, "step %zu: %" PRIu64, i, now - stages);
    stages = now;
  }
  ck_assert_ptr_nonnull(strstr(extension_of(&bench, "mcp"), "\"version\":\"1.2.3\""));
  bench_stop(&bench);
  bench_remove(&bench);
}
END_TEST

START_TEST(stages_of_a_module_that_flaps_are_bounded) {
  struct bench bench = {0};
  bench_open(&bench);
  for (uint64_t generation = 1; generation < 60; generation++) {
    transition(&bench, "mcp", generation, "discovered", "registered");
    transition(&bench, "mcp", generation, "registered", "failed");
    if (generation % 7 == 0)
      bench_settle(&bench);
  }
  ck_assert_uint_le(psg_node_count(bench.psg), 3 + PSG_STAGES_MAX);
  law_holds(&bench);
  bench_stop(&bench);
  bench_start(&bench);
  transition(&bench, "mcp", 100, "discovered", "registered");
  ck_assert_uint_le(psg_node_count(bench.psg), 4 + PSG_STAGES_MAX);
  law_holds(&bench);
  bench_stop(&bench);
  bench_remove(&bench);
}
END_TEST

START_TEST(a_batch_that_the_store_refuses_is_tried_again) {
  static char large[8u << 20];
  struct bench bench = {0};
  char id[ID_UUID_BYTES], other[ID_UUID_BYTES];
  bench_open(&bench);
  bench_stop(&bench);
  /* A queue this small is full with one large batch. */
  bench.store = store_open(
      &(struct store_options){
          .backend = "sqlite", .path = bench.path, .durability = STORE_EPHEMERAL, .queue_limit_bytes = 1u << 20},
      NULL);
  ck_assert_ptr_nonnull(bench.store);
  bench.psg = psg_open(&(struct psg_options){.store = bench.store}, NULL);
  ck_assert_ptr_nonnull(bench.psg);
  bool refused = false;
  for (int attempt = 0; attempt < 20 && !refused; attempt++) {
    for (int i = 0; i < 2; i++) {
      struct store_batch *batch = store_batch_create();
      store_batch_put(batch, "test", "large", large, sizeof(large), STORE_REVISION_ANY);
      store_commit(bench.store, &batch, NULL, NULL);
    }
    psg_execution_begin(bench.psg, &a_start, id);
    psg_flush(bench.psg);
    struct store_batch *empty = store_batch_create();
    while (!store_commit_sync(bench.store, &empty, NULL, NULL)) /* refused as well, until the queue is empty */
      empty = store_batch_create();
    refused = bench.psg->failing;
  }
  ck_assert_msg(refused, "the store never refused");
  ck_assert(bench.psg->in_flight);
  psg_execution_begin(bench.psg, &a_start, other); /* goes on meanwhile */
  psg_flush(bench.psg);                            /* the same bytes again */
  law_holds(&bench);
  ck_assert(!bench.psg->in_flight && !bench.psg->failing);
  span_of(&bench, id);
  bench_crash(&bench);
  bench_start(&bench); /* both are in the log */
  span_of(&bench, id);
  span_of(&bench, other);
  law_holds(&bench);
  bench_stop(&bench);
  bench_remove(&bench);
}
END_TEST

START_TEST(begin_and_end_are_cheap) {
  enum { ROUNDS = 200, BATCH = 100 };
  struct bench bench = {0};
  char ids[BATCH][ID_UUID_BYTES];
  int64_t begin_ns = 0, end_ns = 0, flush_ns = 0;
  bench_open(&bench);
  for (int round = 0; round < ROUNDS; round++) {
    int64_t start_us = clock_monotonic_us();
    for (int i = 0; i < BATCH; i++)
      psg_execution_begin(bench.psg, &a_start, ids[i]);
    int64_t middle_us = clock_monotonic_us();
    for (int i = 0; i < BATCH; i++)
      psg_execution_end(bench.psg, ids[i], PSG_EXECUTION_COMPLETED, 100, NULL, 1000);
    int64_t ended_us = clock_monotonic_us();
    psg_flush(bench.psg);
    int64_t flushed_us = clock_monotonic_us();
    bench_settle(&bench);
    begin_ns += (middle_us - start_us) * 1000;
    end_ns += (ended_us - middle_us) * 1000;
    flush_ns += (flushed_us - ended_us) * 1000;
  }
  printf("psg_execution_begin %lld ns, psg_execution_end %lld ns, its share of a flush %lld ns\n",
         (long long)(begin_ns / (ROUNDS * BATCH)), (long long)(end_ns / (ROUNDS * BATCH)),
         (long long)(flush_ns / (ROUNDS * BATCH)));
  int64_t hash_us = clock_monotonic_us();
  char hash[65];
  ck_assert(psg_state_hash(bench.psg, hash, NULL));
  printf("psg_state_hash of %" PRIu64 " nodes: %lld us\n", psg_node_count(bench.psg),
         (long long)(clock_monotonic_us() - hash_us));
  ck_assert_uint_eq(psg_node_count(bench.psg), 2 + 4096);
  law_holds(&bench);
  bench_stop(&bench);
  bench_remove(&bench);
}
END_TEST

TEST_MAIN("psg", a_new_store_gets_a_graph_that_stays_the_same, an_execution_is_an_event_at_start_and_end_and_a_node,
          a_refused_execution_is_one_valid_event_and_nothing_in_the_graph,
          what_happens_within_one_flush_is_one_update_with_net_deltas, ended_executions_are_kept_up_to_a_bound,
          a_crash_leaves_executions_and_run_to_be_closed_as_failed, a_stop_in_order_completes_the_run,
          old_runs_are_forgotten, a_module_is_an_extension_with_a_stage_for_each_state,
          stages_of_a_module_that_flaps_are_bounded, a_batch_that_the_store_refuses_is_tried_again,
          begin_and_end_are_cheap)
