/* replay_test.c: the graph is what its log says: after any operations, from the log alone or from a checkpoint and what
 * follows it, the same state hash; the conservation law over all events. CHK-4, PSG-12, PSG-7, VSL-10, REF-3, DRIFT-8.
 */
#include "core/psg/psg_test_support.h"

struct world {
  char contexts[8][ID_UUID_BYTES], plans[24][ID_UUID_BYTES], steps[64][ID_UUID_BYTES];
  char executions[64][ID_UUID_BYTES];
  unsigned ok, refused;
};

static void counted(void *arg, uint64_t revision, const char *event_id, const struct error *err) {
  struct world *world = arg;
  (void)revision;
  if (err) {
    world->refused++;
    ck_assert_str_eq(event_id, "");
    ck_assert_str_ne(err->code, "");
  } else {
    world->ok++;
    ck_assert(id_is_uuid_v4(event_id));
  }
}

static unsigned pick(unsigned *seed, unsigned below) {
  *seed = *seed * 1103515245u + 12345u;
  return *seed / 65536u % below;
}

/* A random step through the world; many are refused, and that is as it should be. */
static void random_operation(struct psg *psg, struct world *world, unsigned *seed) {
  static const char *const context_statuses[] = {"draft", "active", "suspended", "archived", "closed"};
  static const char *const plan_statuses[] = {"draft", "proposed", "approved", "in_progress", "completed", "failed"};
  static const char *const step_statuses[] = {"pending", "in_progress", "blocked", "completed", "failed", "skipped"};
  char object[512];
  const char *context = world->contexts[pick(seed, 8)], *plan = world->plans[pick(seed, 24)],
             *step = world->steps[pick(seed, 64)], *other = world->steps[pick(seed, 64)];
  char *execution = world->executions[pick(seed, 64)];
  unsigned number = pick(seed, 1000);
  switch (pick(seed, 11)) {
  case 0:
    snprintf(object, sizeof(object), "{\"context_id\":\"%s\",\"title\":\"t%u\",\"status\":\"%s\"}", context, number,
             context_statuses[pick(seed, 5)]);
    psg_node_put(psg, "ContextNode", context, object, strlen(object), 0, "mcp", counted, world);
    break;
  case 1:
  case 2:
    snprintf(object, sizeof(object),
             "{\"plan_id\":\"%s\",\"context_id\":\"%s\",\"title\":\"t\\u00e4%u\",\"status\":\"%s\"}", plan, context,
             number, plan_statuses[pick(seed, 6)]);
    psg_node_put(psg, "PlanNode", plan, object, strlen(object), 0, "a2a", counted, world);
    break;
  case 3:
  case 4:
  case 5:
    snprintf(object, sizeof(object), "{ \"step_id\":\"%s\",\n\"plan_id\":\"%s\",\"n\":[%u,{}],\"status\":\"%s\"}", step,
             plan, number, step_statuses[pick(seed, 6)]);
    psg_node_put(psg, "StepNode", step, object, strlen(object), 0, "mcp", counted, world);
    break;
  case 6:
    psg_edge_add(psg, "DEPENDS_ON", step, other, "mcp", counted, world);
    break;
  case 7:
    psg_edge_remove(psg, "DEPENDS_ON", step, other, "mcp", counted, world);
    break;
  case 8:
    if (pick(seed, 3) == 0)
      psg_node_delete(psg, "StepNode", step, "mcp", counted, world);
    else if (pick(seed, 3) == 0)
      psg_node_delete(psg, "PlanNode", plan, "mcp", counted, world);
    break;
  case 9:
    psg_execution_begin(psg, &(struct psg_execution_start){.executor_kind = "llm", .record_name = "x"}, execution);
    break;
  default:
    psg_execution_end(psg, execution, (enum psg_execution_status)pick(seed, 3), number, NULL, number);
  }
}

static void world_make(struct world *world) {
  *world = (struct world){0};
  for (int i = 0; i < 8; i++)
    id_uuid_v4(world->contexts[i]);
  for (int i = 0; i < 24; i++)
    id_uuid_v4(world->plans[i]);
  for (int i = 0; i < 64; i++)
    id_uuid_v4(world->steps[i]);
}

/* The hash of a second graph that reads the store of the first. */
static void hash_from_store(struct bench *bench, char hash[static 65]) {
  struct error err = {0};
  bool fresh;
  struct psg second = {.magic = PSG_MAGIC, .options = {.store = bench->store}};
  ck_assert_msg(psg_genesis_load(&second, second.options.store, &fresh, &err), "%s: %s", err.code, err.message);
  ck_assert(psg_state_hash(&second, hash, NULL));
  ck_assert_uint_eq(psg_node_count(&second), psg_node_count(bench->psg));
  ck_assert_uint_eq(psg_edge_count(&second), psg_edge_count(bench->psg));
  psg_graph_clear(&second.graph);
  psg_journal_free(&second);
}

START_TEST(random_operations_replay_to_the_same_hash) {
  struct bench bench = {.execution_history = 20};
  struct world world;
  unsigned seed = (unsigned)_i * 7919u + 1;
  char live[65], replayed[65];
  world_make(&world);
  bench_open(&bench);
  for (int i = 1; i <= 3000; i++) {
    random_operation(bench.psg, &world, &seed);
    if (pick(&seed, 20) == 0)
      psg_flush(bench.psg);
    if (pick(&seed, 40) == 0)
      store_dispatch(bench.store);
    if (i % 1000 == 700) { /* a checkpoint in the middle */
      ck_assert(psg_commit_now(bench.psg, true, NULL));
    }
    if (i % 500 == 0) {
      law_holds(&bench);
      ck_assert(psg_state_hash(bench.psg, live, NULL));
      hash_from_store(&bench, replayed);
      ck_assert_str_eq(live, replayed);
    }
  }
  ck_assert_uint_gt(world.ok, 100);
  ck_assert_uint_gt(world.refused, 100);
  law_holds(&bench);
  bench_stop(&bench);
  bench_start(&bench);
  law_holds(&bench);
  bench_stop(&bench);
  bench_remove(&bench);
}
END_TEST

START_TEST(what_was_flushed_survives_a_crash_and_nothing_else) {
  struct bench bench = {0};
  struct world world;
  char kept[ID_UUID_BYTES], lost[ID_UUID_BYTES];
  world_make(&world);
  bench_open(&bench);
  psg_execution_begin(bench.psg, &(struct psg_execution_start){.executor_kind = "tool"}, kept);
  bench_settle(&bench);
  psg_execution_begin(bench.psg, &(struct psg_execution_start){.executor_kind = "tool"}, lost);
  bench_crash(&bench);
  bench_start(&bench);
  ck_assert_ptr_nonnull(psg_node_get(bench.psg, "SpanNode", kept, NULL));
  ck_assert_ptr_null(psg_node_get(bench.psg, "SpanNode", lost, NULL));
  law_holds(&bench);
  bench_stop(&bench);
  bench_remove(&bench);
}
END_TEST

static void open_fails(struct bench *bench, const char *code) {
  struct error err = {0};
  struct psg *psg = psg_open(&(struct psg_options){.store = bench->store}, &err);
  ck_assert_ptr_null(psg);
  ck_assert_str_eq(err.code, code);
}

START_TEST(a_damaged_log_is_refused) {
  static const struct {
    const char *kind; /* what is put into the store behind the graph's back */
    const char *text;
  } damages[] = {
      {"genesis", "{\"graph_id\":\"x\"}"},
      {"event", "not json"},
      {"event", "{\"graph_id\":\"GRAPH\"}"},
      {"event", "{\"graph_id\":\"GRAPH\",\"payload\":{\"operation\":\"delete\",\"node_type\":\"PlanNode\",\"node_id\":"
                "\"00000000-0000-4000-8000-000000000000\",\"edges\":0,\"node_count\":1,\"edge_count\":1}}"},
      {"event", "{\"graph_id\":\"GRAPH\",\"payload\":{\"operations\":[,],\"node_count\":1,\"edge_count\":1}}"},
      {"event", "{\"payload\":{\"operations\":[],\"node_count\":1,\"edge_count\":1}}"},
      {"event", "{\"payload\":{\"operations\":[{}]},\"graph_id\":\"GRAPH\"}"},
      {"event", "{\"graph_id\":\"GRAPH\",\"payload\":{\"operations\":["},
      {"event", "{\"graph_id\":\"GRAPH\",\"payload\":{\"operations\":[],\"node_count\":99,\"edge_count\":1}}"},
      {"event", "{\"graph_id\":\"GRAPH\",\"payload\":{\"operation\":\"create\",\"edge_type\":\"X\",\"from_id\":1}}"},
  };
  struct bench bench = {0};
  bench_open(&bench);
  char graph_id[ID_UUID_BYTES], event_id[ID_UUID_BYTES], text[512];
  str_copy(graph_id, sizeof(graph_id), psg_graph_id(bench.psg));
  psg_close(&bench.psg);
  const char *place = strstr(damages[_i].text, "GRAPH");
  snprintf(text, sizeof(text), "%.*s%s%s", place ? (int)(place - damages[_i].text) : (int)strlen(damages[_i].text),
           damages[_i].text, place ? graph_id : "", place ? place + 5 : "");
  id_uuid_v4(event_id);
  struct store_batch *batch = store_batch_create();
  if (str_equal(damages[_i].kind, "genesis"))
    store_batch_put(batch, "psg", "genesis", text, strlen(text), STORE_REVISION_ANY);
  else
    store_batch_append_event(batch, &(struct store_event){.event_id = event_id,
                                                          .family = "graph_update",
                                                          .type = "bulk",
                                                          .wall_us = store_event_time_next(bench.store),
                                                          .bytes = text,
                                                          .length = strlen(text)});
  ck_assert(store_commit_sync(bench.store, &batch, NULL, NULL));
  open_fails(&bench, "store.corrupt");
  store_close(&bench.store);
  bench_remove(&bench);
}
END_TEST

struct kept_checkpoint {
  uint64_t seq;
  char *data; /* owned; NULL: there is none */
  size_t length;
};

static void checkpoint_keep(void *arg, uint64_t seq, const void *data, size_t length) {
  *(struct kept_checkpoint *)arg = (struct kept_checkpoint){seq, base_memdup(data, length), length};
}

static struct kept_checkpoint checkpoint_of(struct bench *bench) {
  struct kept_checkpoint kept = {0};
  store_checkpoint_read(bench->store, "psg.graph", checkpoint_keep, &kept, NULL);
  return kept;
}

static void checkpoint_replace(struct bench *bench, uint64_t seq, const void *data, size_t length) {
  struct store_batch *batch = store_batch_create();
  store_checkpoint_put(batch, "psg.graph", seq, data, length);
  ck_assert(store_commit_sync(bench->store, &batch, NULL, NULL));
}

START_TEST(a_checkpoint_that_cannot_be_read_is_passed_over) {
  static const char *const foreign[] = {"", "{}", "{\"version\":1,\"nodes\":[],\"edges\":[]}"};
  struct bench bench = {.execution_history = 20};
  struct world world;
  unsigned seed = 77;
  char live[65], replayed[65];
  world_make(&world);
  bench_open(&bench);
  for (int i = 0; i < 500; i++)
    random_operation(bench.psg, &world, &seed);
  ck_assert(psg_commit_now(bench.psg, true, NULL));
  ck_assert(psg_state_hash(bench.psg, live, NULL));
  hash_from_store(&bench, replayed);
  ck_assert_str_eq(live, replayed);
  for (size_t i = 0; i < sizeof(foreign) / sizeof(foreign[0]); i++) {
    checkpoint_replace(&bench, store_last_seq(bench.store), foreign[i], strlen(foreign[i]));
    hash_from_store(&bench, replayed);
    ck_assert_str_eq(live, replayed);
  }
  ck_assert(psg_commit_now(bench.psg, true, NULL));
  struct kept_checkpoint value = checkpoint_of(&bench);
  ck_assert_ptr_nonnull(value.data);
  for (size_t length = 0; length < value.length; length += 1 + length / 20) { /* cut off anywhere */
    checkpoint_replace(&bench, value.seq, value.data, length);
    hash_from_store(&bench, replayed);
    ck_assert_str_eq(live, replayed);
  }
  char *bytes = value.data; /* numbers that lead nowhere: an edge to a node that is not there, a type, a length */
  static const size_t from_end[] = {12, 8, 4};
  for (size_t i = 0; i < sizeof(from_end) / sizeof(from_end[0]); i++) {
    char *copy = base_memdup(bytes, value.length);
    memset(copy + value.length - from_end[i], 0xff, 4);
    checkpoint_replace(&bench, value.seq, copy, value.length);
    hash_from_store(&bench, replayed);
    ck_assert_str_eq(live, replayed);
    base_free(copy);
  }
  for (size_t at = 0; at < 168 + 32; at++) { /* header and first node: read or not, never beyond its bytes */
    char *copy = base_memdup(bytes, value.length), skip[ID_UUID_BYTES];
    struct psg second = {.magic = PSG_MAGIC};
    memcpy(second.graph_id, bench.psg->graph_id, sizeof(second.graph_id));
    copy[at] = (char)~copy[at];
    if (!psg_checkpoint_read(&second, copy, value.length, skip))
      ck_assert_uint_eq(psg_node_count(&second) + psg_edge_count(&second), 0);
    psg_graph_clear(&second.graph);
    base_free(copy);
  }
  base_free(value.data);
  bench_stop(&bench);
  bench_remove(&bench);
}
END_TEST

START_TEST(the_operations_behind_a_checkpoint_are_bounded) {
  struct bench bench = {.execution_history = 100};
  char id[ID_UUID_BYTES];
  uint64_t most = 0;
  bench_open(&bench);
  for (unsigned i = 0; i < PSG_CHECKPOINT_OPERATIONS / 2; i++) { /* three operations each */
    psg_execution_begin(bench.psg, &(struct psg_execution_start){.executor_kind = "tool"}, id);
    psg_execution_end(bench.psg, id, PSG_EXECUTION_COMPLETED, 1, NULL, 1);
    if (i % 10)
      continue;
    psg_flush(bench.psg);
    bench_settle(&bench);
    most = bench.psg->operations > most ? bench.psg->operations : most;
  }
  ck_assert_uint_ge(most, PSG_CHECKPOINT_OPERATIONS - 100);
  ck_assert_uint_le(most, PSG_CHECKPOINT_OPERATIONS + 100);
  uint64_t behind = bench.psg->operations;
  ck_assert_uint_gt(behind, 0);
  bench_crash(&bench);
  bench_start(&bench); /* what was replayed counts on: kill upon kill does not lengthen the replay */
  ck_assert_uint_ge(bench.psg->operations, behind);
  law_holds(&bench);
  bench_stop(&bench);
  bench_remove(&bench);
}
END_TEST

START_TEST(a_checkpoint_that_the_store_refused_is_made_up_for) {
  static char large[8u << 20];
  struct bench bench = {0};
  char id[ID_UUID_BYTES];
  bench_open(&bench);
  bench_stop(&bench);
  bench.store = store_open(
      &(struct store_options){
          .backend = "sqlite", .path = bench.path, .durability = STORE_EPHEMERAL, .queue_limit_bytes = 1u << 20},
      NULL);
  bench.psg = psg_open(&(struct psg_options){.store = bench.store}, NULL);
  ck_assert(bench.store && bench.psg);
  bool refused = false;
  for (int attempt = 0; attempt < 20 && !refused; attempt++) {
    for (int i = 0; i < 2; i++) {
      struct store_batch *batch = store_batch_create();
      store_batch_put(batch, "test", "large", large, sizeof(large), STORE_REVISION_ANY);
      store_commit(bench.store, &batch, NULL, NULL);
    }
    bench.psg->operations = 2 * PSG_CHECKPOINT_OPERATIONS; /* as if so many had been */
    psg_execution_begin(bench.psg, &(struct psg_execution_start){.executor_kind = "tool"}, id);
    psg_flush(bench.psg);
    ck_assert_uint_eq(bench.psg->operations, 0);
    struct store_batch *empty = store_batch_create();
    while (!store_commit_sync(bench.store, &empty, NULL, NULL))
      empty = store_batch_create();
    refused = bench.psg->failing;
  }
  ck_assert_msg(refused, "the store never refused");
  ck_assert_uint_ge(bench.psg->operations, 2 * PSG_CHECKPOINT_OPERATIONS);
  law_holds(&bench); /* tried again */
  bench_crash(&bench);
  bench_start(&bench);
  ck_assert_ptr_nonnull(psg_node_get(bench.psg, "SpanNode", id, NULL));
  law_holds(&bench);
  bench_stop(&bench);
  bench_remove(&bench);
}
END_TEST

/* ---- loading on a thread of its own ---- */

static void loaded(void *arg) { /* the loader's thread */
  atomic_store((atomic_bool *)arg, true);
}

static struct psg *open_behind(struct bench *bench, struct core_rpc_loop *loop, atomic_bool *told) {
  struct error err = {0};
  struct psg *psg =
      psg_open(&(struct psg_options){.store = bench->store, .loop = loop, .wake = loaded, .wake_arg = told}, &err);
  ck_assert_msg(psg != NULL, "%s", err.code);
  ck_assert(psg->load.running);
  return psg;
}

static void transition(struct psg *psg, const char *from, const char *to) {
  char module[] = "rest", cause[] = "because"; /* gone when it is recorded */
  psg_module_transition_record(psg, &(struct psg_module_transition){.module_id = module,
                                                                    .protocol_family = "rest-grpc",
                                                                    .generation = 7,
                                                                    .from_state = from,
                                                                    .to_state = to,
                                                                    .cause = cause});
  memset(module, 0, sizeof(module));
}

START_TEST(a_graph_that_loads_behind_the_start_answers_who_waits_and_keeps_what_came_before) {
  struct core_rpc_loop *loop = core_rpc_loop_create(NULL);
  for (int round = 0; round < 8; round++) { /* from a log, from a checkpoint */
    struct bench bench = {0};
    char id[ID_UUID_BYTES], live[65], replayed[65];
    atomic_bool told = false;
    uint64_t spans = 0;
    bench_open(&bench);
    for (; round && spans < 200; spans++)
      psg_execution_begin(bench.psg, &(struct psg_execution_start){.executor_kind = "tool"}, id);
    if (round % 3 == 1) {
      bench_stop(&bench);
    } else {
      psg_flush(bench.psg);
      bench_crash(&bench);
    }
    bench.store = store_open(&(struct store_options){.backend = "sqlite", .path = bench.path, .idle_ms = 20}, NULL);
    bench.psg = open_behind(&bench, loop, &told);
    transition(bench.psg, "discovered", "registered");
    transition(bench.psg, "registered", "initializing");
    if (round % 2) { /* after the thread has ended by itself */
      while (!atomic_load(&told))
        usleep(100);
      transition(bench.psg, "initializing", "ready");
      ck_assert(bench.psg->load.running); /* nobody has asked */
    }
    if (spans) {
      const char *object = psg_node_get(bench.psg, "SpanNode", id, NULL); /* waits */
      ck_assert_ptr_nonnull(object);
      ck_assert_ptr_nonnull(strstr(object, round % 3 == 1 ? "\"cancelled\"" : "\"core.restarted\""));
    }
    ck_assert(psg_wait(bench.psg, NULL) && !bench.psg->load.running && atomic_load(&told));
    ck_assert_ptr_null(bench.psg->load.deferred);
    unsigned stages = 0, last = 0;
    for (const struct psg_node *node = bench.psg->graph.nodes; node; node = node->hh.next)
      if (node->type == PSG_TYPE_StageNode) {
        char *stage = psg_object_text(node->object, node->length, "module");
        ck_assert_str_eq(stage, "rest");
        stages++;
        last += node->live;
        base_free(stage);
      }
    ck_assert_uint_eq(stages, round % 2 ? 4 : 3);
    ck_assert_uint_le(last, 1);
    psg_execution_begin(bench.psg, &(struct psg_execution_start){.executor_kind = "tool"}, id);
    bench_settle(&bench);
    ck_assert(psg_state_hash(bench.psg, live, NULL));
    hash_from_store(&bench, replayed);
    ck_assert_str_eq(live, replayed);
    law_holds(&bench);
    bench_stop(&bench);
    bench_remove(&bench);
  }
  core_rpc_loop_free(&loop);
}
END_TEST

static void refused(void *arg, uint64_t revision, const char *event_id, const struct error *err) {
  (void)revision, (void)event_id;
  str_copy(arg, ERROR_CODE_MAX, err ? err->code : "");
}

START_TEST(nothing_is_recorded_on_a_log_that_turns_out_damaged_behind_the_start) {
  struct core_rpc_loop *loop = core_rpc_loop_create(NULL);
  struct bench bench = {0};
  atomic_bool told = false;
  char id[ID_UUID_BYTES], code[ERROR_CODE_MAX] = "", hash[65];
  struct error err = {0};
  bench_open(&bench);
  psg_execution_begin(bench.psg, &(struct psg_execution_start){.executor_kind = "tool"}, id);
  psg_flush(bench.psg);
  char event_id[ID_UUID_BYTES];
  struct store_batch *batch = store_batch_create();
  id_uuid_v4(event_id);
  store_batch_append_event(
      batch, &(struct store_event){
                 .event_id = event_id, .family = PSG_FAMILY_UPDATE, .type = "bulk", .bytes = "not json", .length = 8});
  ck_assert(store_commit_sync(bench.store, &batch, NULL, NULL));
  bench_crash(&bench);
  bench.store = store_open(&(struct store_options){.backend = "sqlite", .path = bench.path}, NULL);
  uint64_t seq = store_last_seq(bench.store);
  bench.psg = open_behind(&bench, loop, &told);
  transition(bench.psg, "discovered", "registered");
  ck_assert(!psg_wait(bench.psg, &err));
  ck_assert_str_eq(err.code, "store.corrupt");
  ck_assert(!psg_wait(bench.psg, NULL)); /* and it stays so */
  psg_node_put(bench.psg, "PlanNode", id, "{}", 2, 0, "mcp", refused, code);
  ck_assert_str_eq(code, "store.corrupt");
  transition(bench.psg, "registered", "initializing");
  psg_execution_end(bench.psg, id, PSG_EXECUTION_COMPLETED, 1, NULL, 0);
  ck_assert_ptr_null(psg_node_get(bench.psg, "SpanNode", id, NULL));
  ck_assert_uint_eq(psg_node_count(bench.psg), 0);
  err = (struct error){0};
  ck_assert(!psg_state_hash(bench.psg, hash, &err));
  ck_assert_str_eq(err.code, "store.corrupt");
  psg_flush(bench.psg);
  psg_close(&bench.psg);
  ck_assert_uint_eq(store_last_seq(bench.store), seq);
  store_close(&bench.store);
  core_rpc_loop_free(&loop);
  bench_remove(&bench);
}
END_TEST

struct quiet {
  struct core_rpc_loop *loop;
  struct bench *bench;
  unsigned looks;
};

static void wake_post(void *arg) {
  store_dispatch(((struct quiet *)arg)->bench->store);
}

static void wake(void *arg) { /* the writer's thread */
  struct quiet *quiet = arg;
  core_rpc_post(quiet->loop, wake_post, quiet);
}

static void look(void *arg) {
  struct quiet *quiet = arg;
  if (quiet->bench->psg->operations && quiet->looks++ < 500)
    core_rpc_timer_start(quiet->loop, 20, look, quiet);
  else
    core_rpc_loop_stop(quiet->loop, 0);
}

START_TEST(a_quiet_moment_makes_a_checkpoint) {
  struct bench bench = {0};
  struct quiet quiet = {.loop = core_rpc_loop_create(NULL), .bench = &bench};
  char id[ID_UUID_BYTES], live[65], replayed[65];
  bench_open(&bench);
  bench_stop(&bench);
  bench.store = store_open(&(struct store_options){.backend = "memory", .wake = wake, .wake_arg = &quiet}, NULL);
  bench.psg = psg_open(&(struct psg_options){.store = bench.store, .loop = quiet.loop}, NULL);
  ck_assert(bench.store && bench.psg);
  for (unsigned i = 0; i < PSG_CHECKPOINT_OPERATIONS / PSG_CHECKPOINT_IDLE_SHARE; i++)
    psg_execution_begin(bench.psg, &(struct psg_execution_start){.executor_kind = "tool"}, id);
  ck_assert_ptr_null(checkpoint_of(&bench).data);
  psg_flush(bench.psg);
  ck_assert_uint_ge(bench.psg->operations, PSG_CHECKPOINT_OPERATIONS / PSG_CHECKPOINT_IDLE_SHARE);
  look(&quiet);
  core_rpc_loop_run(quiet.loop);
  ck_assert_uint_eq(bench.psg->operations, 0);
  bench_settle(&bench);
  struct kept_checkpoint value = checkpoint_of(&bench);
  ck_assert_ptr_nonnull(value.data);
  base_free(value.data);
  ck_assert(psg_state_hash(bench.psg, live, NULL));
  hash_from_store(&bench, replayed);
  ck_assert_str_eq(live, replayed);
  bench_stop(&bench);
  core_rpc_loop_free(&quiet.loop);
  bench_remove(&bench);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("psg.replay");
  TCase *tcase = tcase_create("psg.replay");
  tcase_set_timeout(tcase, 110);
  tcase_add_loop_test(tcase, random_operations_replay_to_the_same_hash, 0, 3);
  tcase_add_test(tcase, what_was_flushed_survives_a_crash_and_nothing_else);
  tcase_add_loop_test(tcase, a_damaged_log_is_refused, 0, 10);
  tcase_add_test(tcase, a_checkpoint_that_cannot_be_read_is_passed_over);
  tcase_add_test(tcase, the_operations_behind_a_checkpoint_are_bounded);
  tcase_add_test(tcase, a_checkpoint_that_the_store_refused_is_made_up_for);
  tcase_add_test(tcase, a_graph_that_loads_behind_the_start_answers_who_waits_and_keeps_what_came_before);
  tcase_add_test(tcase, nothing_is_recorded_on_a_log_that_turns_out_damaged_behind_the_start);
  tcase_add_test(tcase, a_quiet_moment_makes_a_checkpoint);
  suite_add_tcase(suite, tcase);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
