/* write_test.c: what modules may write and how they read it. PSG-1, PSG-3, PSG-4, PSG-5, PSG-6, PSG-8, PSG-9, PSG-10,
 * PSG-11, PSG-14, REF-1, REF-2, CTX-1, CTX-2, CTX-6, EVT-6, EVT-7, OBJ-2, OBJ-3, OBJ-5. */
#include "core/psg/psg_test_support.h"

#define CONTEXT "11111111-1111-4111-8111-111111111111"
#define PLAN "22222222-2222-4222-8222-222222222222"
#define STEP_A "33333333-3333-4333-8333-333333333333"
#define STEP_B "44444444-4444-4444-8444-444444444444"
#define TRACE "55555555-5555-4555-8555-555555555555"

struct answer {
  bool called;
  char code[ERROR_CODE_MAX];
  uint64_t revision;
};

static void answered(void *arg, uint64_t revision, const char *event_id, const struct error *err) {
  struct answer *answer = arg;
  (void)event_id;
  answer->called = true;
  answer->revision = revision;
  str_copy(answer->code, sizeof(answer->code), err ? err->code : "");
}

static struct answer put(struct bench *bench, const char *type, const char *id, const char *object, uint64_t revision) {
  struct answer answer = {0};
  psg_node_put(bench->psg, type, id, object, strlen(object), revision, "mcp", answered, &answer);
  bench_settle(bench);
  ck_assert(answer.called);
  return answer;
}

static void put_is(struct bench *bench, const char *type, const char *id, const char *object, const char *code) {
  struct answer answer = put(bench, type, id, object, 0);
  ck_assert_msg(str_equal(answer.code, code), "%s: %s instead of %s", object, answer.code, code);
}

static void other_is(struct bench *bench, int what, const char *type, const char *a, const char *b, const char *code) {
  struct answer answer = {0};
  if (what == 'd')
    psg_node_delete(bench->psg, type, a, "mcp", answered, &answer);
  else if (what == '+')
    psg_edge_add(bench->psg, type, a, b, "mcp", answered, &answer);
  else
    psg_edge_remove(bench->psg, type, a, b, "mcp", answered, &answer);
  bench_settle(bench);
  ck_assert(answer.called);
  ck_assert_msg(str_equal(answer.code, code), "%s %s %s: %s instead of %s", type, a, b, answer.code, code);
}

static void world_open(struct bench *bench) {
  bench_open(bench);
  put_is(bench, "ContextNode", CONTEXT, "{\"context_id\":\"" CONTEXT "\",\"status\":\"draft\"}", "");
  put_is(bench, "PlanNode", PLAN, "{\"plan_id\":\"" PLAN "\",\"context_id\":\"" CONTEXT "\",\"status\":\"draft\"}", "");
  put_is(bench, "StepNode", STEP_A,
         "{\"step_id\":\"" STEP_A "\",\"plan_id\":\"" PLAN "\",\"n\":1,\"status\":\"pending\"}", "");
  put_is(bench, "StepNode", STEP_B,
         "{\"step_id\":\"" STEP_B "\",\"plan_id\":\"" PLAN "\",\"n\":2,\"status\":\"pending\"}", "");
}

static void world_close(struct bench *bench) {
  law_holds(bench);
  bench_stop(bench);
  bench_remove(bench);
}

START_TEST(a_node_is_refused_for_its_form) {
  static const struct {
    const char *type, *id, *object, *code;
  } rows[] = {
      {"NoNode", TRACE, "{}", "argument.invalid"},
      {"ContextNode", "no uuid", "{}", "psg.node.invalid"},
      {"ContextNode", "66666666-6666-1666-8666-666666666666", "{}", "psg.node.invalid"}, /* version 1 */
      {"ContextNode", TRACE, "", "argument.missing"},
      {"ContextNode", TRACE, "[]", "psg.node.invalid"},
      {"ContextNode", TRACE, "{\"context_id\":", "json.malformed"},
      {"ContextNode", TRACE, "{\"context_id\":\"" PLAN "\",\"status\":\"draft\"}", "psg.node.invalid"},
      {"ContextNode", TRACE, "{\"context_id\":\"" TRACE "\"}", "psg.node.invalid"}, /* no status */
      {"ContextNode", TRACE, "{\"context_id\":\"" TRACE "\",\"status\":\"running\"}", "psg.node.invalid"},
      {"ContextNode", TRACE, "{\"context_id\":\"" TRACE "\",\"status\":\"active\"}", "psg.transition.forbidden"},
      {"ContextNode", TRACE, "{\"context_id\":\"" TRACE "\",\"status\":\"draft\",\"status\":\"closed\"}",
       "psg.node.invalid"},
      {"ContextNode", TRACE, "{\"context_id\":\"" TRACE "\",\"status\":\"draft\",\"st\\u0061tus\":\"closed\"}",
       "psg.node.invalid"},
      {"PlanNode", CONTEXT, "{\"plan_id\":\"" CONTEXT "\",\"status\":\"draft\"}", "psg.node.exists"},
      {"PlanNode", TRACE, "{\"plan_id\":\"" TRACE "\",\"status\":\"draft\"}", "psg.parent.missing"},
      {"PlanNode", TRACE, "{\"plan_id\":\"" TRACE "\",\"context_id\":\"" PLAN "\",\"status\":\"draft\"}",
       "psg.parent.missing"},
      {"TraceNode", TRACE,
       "{\"trace_id\":\"" TRACE "\",\"context_id\":\"" CONTEXT "\",\"plan_id\":\"" STEP_A "\",\"status\":\"pending\"}",
       "psg.parent.missing"},
      {"SpanNode", TRACE, "{\"span_id\":\"" TRACE "\",\"status\":\"pending\"}", "psg.owner.other"},
      {"StageNode", TRACE, "{\"stage_id\":\"" TRACE "\",\"status\":\"pending\"}", "psg.owner.other"},
  };
  struct bench bench = {0};
  world_open(&bench);
  uint64_t count = psg_node_count(bench.psg);
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
    put_is(&bench, rows[i].type, rows[i].id, rows[i].object, rows[i].code);
  ck_assert_uint_eq(psg_node_count(bench.psg), count);
  world_close(&bench);
}
END_TEST

START_TEST(statuses_follow_their_table_and_final_ones_stay) {
  static const struct {
    const char *status, *code;
  } rows[] = {{"completed", "psg.transition.forbidden"}, /* pending does not complete */
              {"blocked", ""},
              {"in_progress", "psg.transition.forbidden"},
              {"pending", ""},
              {"in_progress", ""},
              {"in_progress", ""}, /* other fields may change */
              {"completed", ""},
              {"completed", "psg.transition.forbidden"},
              {"pending", "psg.transition.forbidden"}};
  struct bench bench = {0};
  char object[256];
  world_open(&bench);
  uint64_t stages = bench_tally(&bench).stages;
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    snprintf(object, sizeof(object),
             "{\"step_id\":\"" STEP_A "\",\"plan_id\":\"" PLAN "\",\"n\":%zu,\"status\":\"%s\"}", i, rows[i].status);
    put_is(&bench, "StepNode", STEP_A, object, rows[i].code);
  }
  ck_assert_uint_eq(bench_tally(&bench).stages - stages, 4); /* one for each change of the status (EVT-6) */
  world_close(&bench);
}
END_TEST

START_TEST(an_archived_context_is_frozen_but_can_be_closed) {
  static const struct {
    const char *object, *code;
  } rows[] = {{"{\"context_id\":\"" CONTEXT "\",\"status\":\"active\"}", ""},
              {"{\"context_id\":\"" CONTEXT "\",\"status\":\"archived\"}", ""},
              {"{\"context_id\":\"" CONTEXT "\",\"status\":\"archived\",\"title\":\"x\"}", "psg.transition.forbidden"},
              {"{\"context_id\":\"" CONTEXT "\",\"status\":\"closed\"}", ""}};
  struct bench bench = {0};
  world_open(&bench);
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
    put_is(&bench, "ContextNode", CONTEXT, rows[i].object, rows[i].code);
  world_close(&bench);
}
END_TEST

START_TEST(a_write_names_the_revision_it_saw) {
  struct bench bench = {0};
  static const char object[] = "{\"plan_id\":\"" PLAN "\",\"context_id\":\"" CONTEXT "\",\"status\":\"draft\",\"v\":2}";
  uint64_t revision = 0;
  world_open(&bench);
  ck_assert_ptr_nonnull(psg_node_get(bench.psg, "PlanNode", PLAN, &revision));
  ck_assert_uint_eq(revision, 1);
  ck_assert_str_eq(put(&bench, "PlanNode", PLAN, object, 7).code, "psg.revision.conflict");
  ck_assert_uint_eq(put(&bench, "PlanNode", PLAN, object, 1).revision, 2);
  ck_assert_str_eq(psg_node_get(bench.psg, "PlanNode", PLAN, NULL), object); /* byte for byte */
  ck_assert_str_eq(put(&bench, "PlanNode", TRACE, object, 1).code, "psg.node.not_found");
  ck_assert_ptr_null(psg_node_get(bench.psg, "StepNode", PLAN, NULL));
  world_close(&bench);
}
END_TEST

START_TEST(parents_stay_and_are_not_deleted_under_their_children) {
  struct bench bench = {0};
  world_open(&bench);
  put_is(&bench, "ContextNode", TRACE, "{\"context_id\":\"" TRACE "\",\"status\":\"draft\"}", "");
  put_is(&bench, "PlanNode", PLAN, "{\"plan_id\":\"" PLAN "\",\"context_id\":\"" TRACE "\",\"status\":\"draft\"}",
         "psg.parent.missing"); /* another parent */
  other_is(&bench, 'd', "ContextNode", CONTEXT, "", "psg.node.referenced");
  other_is(&bench, 'd', "PlanNode", PLAN, "", "psg.node.referenced");
  other_is(&bench, 'd', "StepNode", PLAN, "", "psg.node.not_found");
  other_is(&bench, 'd', "TraceNode", bench.psg->run_id, "", "psg.owner.other");
  other_is(&bench, '-', "CONTAINS", PLAN, STEP_A, "psg.node.invalid");
  other_is(&bench, 'd', "StepNode", STEP_A, "", "");
  other_is(&bench, 'd', "StepNode", STEP_B, "", "");
  other_is(&bench, 'd', "PlanNode", PLAN, "", "");
  other_is(&bench, 'd', "ContextNode", CONTEXT, "", "");
  world_close(&bench);
}
END_TEST

START_TEST(dependencies_form_no_cycle) {
  struct bench bench = {0};
  world_open(&bench);
  other_is(&bench, '+', "DEPENDS_ON", STEP_A, STEP_A, "psg.edge.cycle");
  other_is(&bench, '+', "DEPENDS_ON", STEP_A, STEP_B, "");
  other_is(&bench, '+', "DEPENDS_ON", STEP_A, STEP_B, "psg.edge.exists");
  other_is(&bench, '+', "DEPENDS_ON", STEP_B, STEP_A, "psg.edge.cycle");
  other_is(&bench, '+', "DEPENDS_ON", STEP_A, PLAN, "psg.node.invalid");
  other_is(&bench, '+', "LIKES", STEP_A, STEP_B, "argument.invalid");
  other_is(&bench, '+', "DEPENDS_ON", STEP_A, TRACE, "psg.node.not_found");
  other_is(&bench, '+', "CONTAINS", bench.psg->run_id, STEP_B, "psg.owner.other");
  other_is(&bench, 'd', "StepNode", STEP_B, "", "psg.node.referenced");
  other_is(&bench, '-', "DEPENDS_ON", STEP_B, STEP_A, "psg.edge.not_found");
  other_is(&bench, '-', "DEPENDS_ON", STEP_A, STEP_B, "");
  other_is(&bench, 'd', "StepNode", STEP_B, "", "");
  world_close(&bench);
}
END_TEST

static size_t query_count(struct bench *bench, const char *type, const char *field, int operator_, const char *value,
                          uint64_t *total) {
  Core__Spi__Psg__V1__Filter filter = CORE__SPI__PSG__V1__FILTER__INIT;
  Core__Spi__Psg__V1__Filter *filters[] = {&filter};
  Core__Spi__Psg__V1__QueryRequest request = CORE__SPI__PSG__V1__QUERY_REQUEST__INIT;
  struct error err = {0};
  request.type = (char *)(uintptr_t)type;
  request.limit = 1;
  filter.field = (char *)(uintptr_t)field;
  filter.operator_ = (Core__Spi__Psg__V1__FilterOperator)operator_;
  filter.value_json.data = (uint8_t *)(uintptr_t)value;
  filter.value_json.len = strlen(value);
  request.n_filters = *field ? 1 : 0;
  request.filters = filters;
  Core__Spi__Psg__V1__QueryResponse *response = psg_query(bench->psg, &request, &err);
  if (!response)
    return SIZE_MAX;
  size_t count = response->n_nodes;
  *total = response->total;
  core__spi__psg__v1__query_response__free_unpacked(response, NULL);
  return count;
}

START_TEST(queries_filter_by_fields) {
  static const struct {
    const char *type, *field;
    int operator_;
    const char *value;
    uint64_t total;
  } rows[] = {
      {"StepNode", "", 0, "", 2},
      {"StepNode", "n", 1, "1", 1},
      {"StepNode", "n", 1, " 1.0 ", 1},
      {"StepNode", "n", 2, "1", 1},
      {"StepNode", "n", 3, "1", 1},
      {"StepNode", "n", 4, "1", 0},
      {"StepNode", "status", 0, "\"pending\"", 2},
      {"StepNode", "status", 3, "1", 0}, /* not comparable */
      {"StepNode", "nothing", 1, "1", 0},
      {"StepNode", "nothing", 2, "1", 2},
      {"", "root.domain", 1, "\"gateway\"", 1},
  };
  struct bench bench = {0};
  uint64_t total = 0;
  world_open(&bench);
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    size_t count = query_count(&bench, rows[i].type, rows[i].field, rows[i].operator_, rows[i].value, &total);
    ck_assert_msg(total == rows[i].total && count == (total ? 1 : 0), "row %zu: %" PRIu64, i, total);
  }
  ck_assert_uint_eq(query_count(&bench, "NoNode", "", 0, "", &total), SIZE_MAX);
  ck_assert_uint_eq(query_count(&bench, "", "n", 0, "{", &total), SIZE_MAX);
  world_close(&bench);
}
END_TEST

START_TEST(traversal_goes_by_distance_and_edge_type) {
  static const struct {
    uint32_t depth;
    const char *type;
    size_t nodes, edges;
  } rows[] = {{1, NULL, 2, 1}, {2, NULL, 4, 3}, {2, "HAS_CONTEXT", 2, 1}, {1, "CONTAINS", 1, 0}, {32, NULL, 4, 3}};
  struct bench bench = {0};
  struct error err = {0};
  world_open(&bench);
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    Core__Spi__Psg__V1__TraverseRequest request = CORE__SPI__PSG__V1__TRAVERSE_REQUEST__INIT;
    char *types[] = {(char *)(uintptr_t)rows[i].type};
    request.start_id = (char *)(uintptr_t)CONTEXT;
    request.depth = rows[i].depth;
    request.edge_types = types;
    request.n_edge_types = rows[i].type != NULL;
    Core__Spi__Psg__V1__TraverseResponse *response = psg_traverse(bench.psg, &request, &err);
    ck_assert_ptr_nonnull(response);
    ck_assert_msg(response->n_nodes == rows[i].nodes && response->n_edges == rows[i].edges, "row %zu: %zu %zu", i,
                  response->n_nodes, response->n_edges);
    core__spi__psg__v1__traverse_response__free_unpacked(response, NULL);
  }
  Core__Spi__Psg__V1__GetEdgesRequest request = CORE__SPI__PSG__V1__GET_EDGES_REQUEST__INIT;
  request.node_id = (char *)(uintptr_t)PLAN;
  request.direction = CORE__SPI__PSG__V1__EDGE_DIRECTION__EDGE_DIRECTION_OUT;
  Core__Spi__Psg__V1__GetEdgesResponse *edges = psg_edges(bench.psg, &request, &err);
  ck_assert_ptr_nonnull(edges);
  ck_assert_uint_eq(edges->n_edges, 3);
  core__spi__psg__v1__get_edges_response__free_unpacked(edges, NULL);
  request.node_id = (char *)(uintptr_t)TRACE;
  ck_assert_ptr_null(psg_edges(bench.psg, &request, &err));
  ck_assert_str_eq(err.code, "psg.node.not_found");
  world_close(&bench);
}
END_TEST

TEST_MAIN("psg.write", a_node_is_refused_for_its_form, statuses_follow_their_table_and_final_ones_stay,
          an_archived_context_is_frozen_but_can_be_closed, a_write_names_the_revision_it_saw,
          parents_stay_and_are_not_deleted_under_their_children, dependencies_form_no_cycle, queries_filter_by_fields,
          traversal_goes_by_distance_and_edge_type)
