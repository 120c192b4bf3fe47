/* machine_test.c: walks every cell of the state machine (LIF-1): what may happen, what may not, and that no state is a
 * trap or out of reach. */
#include <stdio.h>
#include <string.h>

#include "core/lifecycle/lifecycle_internal.h"
#include "sdk/base/test.h"

#define NONE LIFECYCLE_STATE_COUNT /* forbidden */

/* Every cell, written out a second time on purpose, by the order of events.def: described, initialize sent,
 * initialized, healthy, unhealthy, refused, timed out, connection lost, drain ordered, drained, exited, restart waits,
 * held, released, rollback ordered, rolled back. Letters are states: r registered, i initializing, w warming, R ready,
 * D degraded, d draining, p stopping, S stopped, F failed, B backoff, Q quarantined, b rolling-back, . forbidden. */
static const struct {
  enum lifecycle_state from;
  const char *cells;
} cells[] = {
    {LIFECYCLE_DISCOVERED, "r....FFF..S...b."},   {LIFECYCLE_REGISTERED, ".i...FFF..S...b."},
    {LIFECYCLE_INITIALIZING, "..w..FFF..S...b."}, {LIFECYCLE_WARMING, "...R.FFFd.S...b."},
    {LIFECYCLE_READY, "....DF.Fd.S...b."},        {LIFECYCLE_DEGRADED, "...R.F.Fd.S...b."},
    {LIFECYCLE_DRAINING, ".....S.S.pS...b."},     {LIFECYCLE_STOPPING, ".......S..S....."},
    {LIFECYCLE_STOPPED, "...........BQ.b."},      {LIFECYCLE_FAILED, "..........SBQ.b."},
    {LIFECYCLE_BACKOFF, "............Q.b."},      {LIFECYCLE_QUARANTINED, ".............Sb."},
    {LIFECYCLE_ROLLING_BACK, ".....SSS..S.Q..S"},
};

static enum lifecycle_state expected(size_t row, unsigned event) {
  static const char letters[] = "?riwRDdpSFBQb";
  const char *at = strchr(letters, cells[row].cells[event]);
  return at ? (enum lifecycle_state)(at - letters) : NONE;
}

START_TEST(every_cell_is_as_written_lif_1) {
  ck_assert_uint_eq(sizeof(cells) / sizeof(cells[0]), LIFECYCLE_STATE_COUNT);
  for (size_t row = 0; row < LIFECYCLE_STATE_COUNT; row++) {
    ck_assert_uint_eq(cells[row].from, row);
    ck_assert_uint_eq(strlen(cells[row].cells), LIFECYCLE_EVENT_COUNT);
    for (unsigned event = 0; event < LIFECYCLE_EVENT_COUNT; event++) {
      enum lifecycle_state to = NONE;
      bool allowed = lifecycle_transition_lookup(cells[row].from, (enum lifecycle_event)event, &to);
      ck_assert_msg(allowed == (expected(row, event) != NONE) && to == expected(row, event), "%s, event %u",
                    lifecycle_state_name(cells[row].from), event);
    }
  }
}
END_TEST

/* The room's parts that a transition touches, real, over a store in memory. */
struct bench {
  struct store *store;
  struct psg *psg;
  struct observe *observe;
  struct lifecycle lifecycle;
  struct lifecycle_module module;
  struct lifecycle_versions versions;
  struct lifecycle_instance instance;
  unsigned served, unserved;
};

static void on_serving(void *arg, const struct lifecycle_instance *instance, bool serving) {
  struct bench *bench = arg;
  (void)instance;
  bench->served += serving;
  bench->unserved += !serving;
}

static void bench_open(struct bench *bench) {
  static char id[] = "probe";
  struct error err = {0};
  const struct store_options options = {.backend = "memory", .durability = STORE_EPHEMERAL};
  bench->store = store_open(&options, &err);
  ck_assert_ptr_nonnull(bench->store);
  bench->psg = psg_open(&(struct psg_options){.store = bench->store}, &err);
  bench->observe = observe_open(&(struct observe_options){.store = bench->store}, &err);
  ck_assert(bench->psg && bench->observe);
  bench->lifecycle = (struct lifecycle){
      .magic = LIFECYCLE_MAGIC,
      .options = {.psg = bench->psg, .observe = bench->observe, .on_serving = on_serving, .arg = bench}};
  bench->module =
      (struct lifecycle_module){.lifecycle = &bench->lifecycle, .id = id, .name = id, .versions = &bench->versions};
  bench->versions.first = &bench->module;
  bench->instance = (struct lifecycle_instance){.magic = LIFECYCLE_INSTANCE_MAGIC, .module = &bench->module};
}

static void bench_close(struct bench *bench) {
  psg_close(&bench->psg);
  observe_close(&bench->observe);
  store_close(&bench->store);
}

struct search {
  const char *text;
  bool found;
};

static bool event_holds(void *arg, const struct store_event *event) {
  struct search *search = arg;
  search->found = search->found || memmem(event->bytes, event->length, search->text, strlen(search->text));
  return !search->found;
}

static bool graph_knows(struct bench *bench, const char *text) {
  struct search search = {.text = text};
  struct error err = {0};
  psg_flush(bench->psg);
  ck_assert(store_commit_sync(bench->store, &(struct store_batch *){store_batch_create()}, NULL, &err));
  ck_assert(store_events_read(bench->store, &(struct store_event_query){0}, event_holds, &search, &err));
  return search.found;
}

/* Walks every cell of the machine itself, not of its table: what is allowed changes the state, is in the history and in
 * the state graph with its cause; what is forbidden leaves no trace. */
START_TEST(every_transition_is_recorded_with_its_cause_and_a_forbidden_one_changes_nothing_lif_1) {
  struct bench bench = {0};
  uint64_t generation = 0;
  bench_open(&bench);
  for (size_t row = 0; row < LIFECYCLE_STATE_COUNT; row++)
    for (unsigned event = 0; event < LIFECYCLE_EVENT_COUNT; event++) {
      char cause[32];
      snprintf(cause, sizeof(cause), "cause-%zu-%u.", row, event);
      bench.instance.state = cells[row].from;
      bench.instance.generation = ++generation;
      bench.instance.reason[0] = '\0';
      size_t history = bench.module.history_count;
      bool done = lifecycle_instance_event(&bench.instance, (enum lifecycle_event)event, cause);
      bool allowed = expected(row, event) != NONE;
      ck_assert_msg(done == allowed, "%s, event %u", lifecycle_state_name(cells[row].from), event);
      ck_assert_int_eq(bench.instance.state, allowed ? expected(row, event) : cells[row].from);
      ck_assert_uint_eq(bench.module.history_count, history + allowed);
      ck_assert_str_eq(bench.instance.reason, allowed ? cause : "");
      ck_assert_msg(graph_knows(&bench, cause) == allowed, "%s, event %u: the graph",
                    lifecycle_state_name(cells[row].from), event);
      if (allowed) {
        const struct lifecycle_transition *last = &bench.module.history[history % LIFECYCLE_HISTORY_MAX];
        ck_assert_str_eq(last->cause, cause);
        ck_assert_int_eq(last->from, cells[row].from);
        ck_assert_int_eq(last->to, bench.instance.state);
        ck_assert_uint_eq(last->generation, generation);
      }
    }
  ck_assert_uint_gt(bench.served, 0);
  bench_close(&bench);
}
END_TEST

START_TEST(nothing_but_proven_health_leads_to_ready) {
  for (unsigned from = 0; from < LIFECYCLE_STATE_COUNT; from++)
    for (unsigned event = 0; event < LIFECYCLE_EVENT_COUNT; event++) {
      enum lifecycle_state to;
      if (!lifecycle_transition_lookup((enum lifecycle_state)from, (enum lifecycle_event)event, &to) ||
          to != LIFECYCLE_READY)
        continue;
      ck_assert_int_eq(event, LIFECYCLE_ON_HEALTHY);
      ck_assert(from == LIFECYCLE_WARMING || from == LIFECYCLE_DEGRADED);
    }
}
END_TEST

START_TEST(an_instance_that_ended_never_serves_again) {
  static const enum lifecycle_state ended[] = {LIFECYCLE_FAILED, LIFECYCLE_STOPPED, LIFECYCLE_BACKOFF,
                                               LIFECYCLE_QUARANTINED, LIFECYCLE_ROLLING_BACK};
  for (size_t i = 0; i < sizeof(ended) / sizeof(ended[0]); i++)
    for (unsigned event = 0; event < LIFECYCLE_EVENT_COUNT; event++) {
      enum lifecycle_state to;
      if (!lifecycle_transition_lookup(ended[i], (enum lifecycle_event)event, &to))
        continue;
      ck_assert(to == LIFECYCLE_STOPPED || to == LIFECYCLE_BACKOFF || to == LIFECYCLE_QUARANTINED ||
                to == LIFECYCLE_ROLLING_BACK);
    }
}
END_TEST

/* What an instance says can be unusable at any time; then its connection ends, and the state must not say otherwise. */
START_TEST(every_connected_state_can_be_refused) {
  for (unsigned from = LIFECYCLE_DISCOVERED; from <= LIFECYCLE_DRAINING; from++) {
    enum lifecycle_state to;
    ck_assert(lifecycle_transition_lookup((enum lifecycle_state)from, LIFECYCLE_ON_REFUSED, &to));
    ck_assert(to == LIFECYCLE_FAILED || to == LIFECYCLE_STOPPED);
  }
}
END_TEST

START_TEST(every_living_state_can_lose_its_process) {
  for (unsigned from = LIFECYCLE_DISCOVERED; from <= LIFECYCLE_STOPPING; from++) {
    enum lifecycle_state to;
    ck_assert(lifecycle_transition_lookup((enum lifecycle_state)from, LIFECYCLE_ON_EXITED, &to));
    ck_assert_int_eq(to, LIFECYCLE_STOPPED);
    ck_assert(lifecycle_transition_lookup((enum lifecycle_state)from, LIFECYCLE_ON_LOST, &to));
    ck_assert(to == LIFECYCLE_FAILED || to == LIFECYCLE_STOPPED);
  }
}
END_TEST

START_TEST(every_state_can_be_reached) {
  bool reached[LIFECYCLE_STATE_COUNT] = {[LIFECYCLE_DISCOVERED] = true};
  for (unsigned round = 0; round < LIFECYCLE_STATE_COUNT; round++)
    for (unsigned from = 0; from < LIFECYCLE_STATE_COUNT; from++)
      for (unsigned event = 0; event < LIFECYCLE_EVENT_COUNT; event++) {
        enum lifecycle_state to;
        if (reached[from] && lifecycle_transition_lookup((enum lifecycle_state)from, (enum lifecycle_event)event, &to))
          reached[to] = true;
      }
  for (unsigned state = 0; state < LIFECYCLE_STATE_COUNT; state++)
    ck_assert_msg(reached[state], "%s is out of reach", lifecycle_state_name((enum lifecycle_state)state));
}
END_TEST

TEST_MAIN("lifecycle machine", every_cell_is_as_written_lif_1,
          every_transition_is_recorded_with_its_cause_and_a_forbidden_one_changes_nothing_lif_1,
          nothing_but_proven_health_leads_to_ready, an_instance_that_ended_never_serves_again,
          every_connected_state_can_be_refused, every_living_state_can_lose_its_process, every_state_can_be_reached)
