/* store_test.c: the rules every back end keeps: rows, revisions, batches, events, order of callbacks, back-pressure.
 * VSL-1, VSL-2, VSL-3, VSL-4, VSL-5, VSL-6, VSL-7, VSL-8, VSL-9, VSL-16, EVT-14, EVT-15. */
#include "core/store/store_test_helper.h"
#include "sdk/base/clock.h"
#include "sdk/base/str.h"

START_TEST(rows_are_put_read_and_deleted_with_revisions) {
  FOR_BACKENDS(backend) {
    struct scratch scratch;
    scratch_open(&scratch);
    struct store_options options = test_options(backend, &scratch);
    struct store *store = test_open(&options);
    ck_assert_uint_eq(test_put(store, "a", "one", STORE_REVISION_NONE, NULL).revision, 1);
    ck_assert_uint_eq(test_put(store, "a", "two", 1, NULL).revision, 2);
    ck_assert_uint_eq(test_put(store, "a", "three", STORE_REVISION_ANY, NULL).revision, 3);
    test_put(store, "a", "late", 2, "store.conflict");
    test_put(store, "a", "again", STORE_REVISION_NONE, "store.conflict");
    test_put(store, "b", "none", 7, "store.conflict");
    test_expect(store, "a", "three");
    struct store_batch *batch = store_batch_create();
    store_batch_delete(batch, "tools", "a", 2);
    test_commit(store, batch, "store.conflict");
    batch = store_batch_create();
    store_batch_delete(batch, "tools", "a", 3);
    ck_assert_uint_eq(test_commit(store, batch, NULL).revision, 4);
    batch = store_batch_create();
    store_batch_delete(batch, "tools", "a", STORE_REVISION_ANY);
    ck_assert_uint_eq(test_commit(store, batch, NULL).revision, 4);
    test_expect(store, "a", NULL);
    ck_assert_uint_eq(store_revision(store), 4);
    store_close(&store);
    scratch_close(&scratch);
  }
}
END_TEST

START_TEST(a_batch_applies_whole_or_not_at_all) {
  FOR_BACKENDS(backend) {
    struct scratch scratch;
    scratch_open(&scratch);
    struct store_options options = test_options(backend, &scratch);
    struct store *store = test_open(&options);
    test_put(store, "b", "kept", STORE_REVISION_ANY, NULL);
    struct store_batch *batch = store_batch_create();
    test_event_add(batch, 1, NULL);
    store_batch_put(batch, "tools", "a", "x", 1, STORE_REVISION_ANY);
    store_batch_delete(batch, "tools", "b", STORE_REVISION_ANY);
    store_batch_put(batch, "tools", "b", "y", 1, 99);
    test_commit(store, batch, "store.conflict");
    test_expect(store, "a", NULL);
    test_expect(store, "b", "kept");
    ck_assert_uint_eq(test_events(store, (struct store_event_query){0}).count, 0);
    batch = store_batch_create(); /* the same operations see each other in order */
    store_batch_put(batch, "tools", "a", "x", 1, STORE_REVISION_NONE);
    store_batch_put(batch, "tools", "a", "z", 1, 2);
    test_event_add(batch, 2, NULL);
    struct store_commit_result result = test_commit(store, batch, NULL);
    ck_assert_uint_eq(result.revision, 2);
    ck_assert_uint_eq(result.first_seq, 1);
    test_expect(store, "a", "z");
    store_close(&store);
    scratch_close(&scratch);
  }
}
END_TEST

START_TEST(a_duplicate_event_id_is_refused_and_its_batch_with_it) {
  FOR_BACKENDS(backend) {
    static const char id[] = "0b5e8f0e-3f5f-4c55-9d0a-6a3c1a2b4c5d", upper[] = "0B5E8F0E-3F5F-4C55-9D0A-6A3C1A2B4C5D";
    struct scratch scratch;
    scratch_open(&scratch);
    struct store_options options = test_options(backend, &scratch);
    struct store *store = test_open(&options);
    struct store_batch *batch = store_batch_create();
    test_event_add(batch, 1, id);
    test_commit(store, batch, NULL);
    batch = store_batch_create();
    test_event_add(batch, 2, upper);
    test_commit(store, batch, "store.duplicate");
    batch = store_batch_create(); /* within one batch, too */
    store_batch_put(batch, "tools", "a", "x", 1, STORE_REVISION_ANY);
    test_event_add(batch, 3, "5d3f4c55-0000-4000-8000-000000000001");
    test_event_add(batch, 4, "5d3f4c55-0000-4000-8000-000000000001");
    test_commit(store, batch, "store.duplicate");
    test_expect(store, "a", NULL);
    batch = store_batch_create(); /* what was refused is free */
    test_event_add(batch, 5, "5d3f4c55-0000-4000-8000-000000000001");
    ck_assert_uint_eq(test_commit(store, batch, NULL).first_seq, 2);
    ck_assert_uint_eq(test_events(store, (struct store_event_query){0}).count, 2);
    store_close(&store);
    scratch_close(&scratch);
  }
}
END_TEST

START_TEST(events_are_found_by_every_condition) {
  FOR_BACKENDS(backend) {
    static const struct {
      struct store_event_query query;
      uint64_t count, first_seq, last_seq;
    } table[] = {
        {{0}, 210, 1, 210},
        {{.after_seq = 200}, 10, 201, 210},
        {{.after_seq = 10, .limit = 5}, 5, 11, 15},
        {{.through_seq = 4}, 4, 1, 4},
        {{.trace_id = "trace-3"}, 30, 3, 206},
        {{.context_id = "context-1"}, 70, 1, 208},
        {{.trace_id = "trace-3", .context_id = "context-0"}, 10, 3, 192},
        {{.trace_id = "trace-3", .after_seq = 3, .limit = 2}, 2, 10, 17},
        {{.family = "graph_update"}, 105, 1, 209},
        {{.type = "node_add", .since_wall_us = 209}, 2, 209, 210},
        {{.type = "other"}, 0, 0, 0},
        {{.trace_id = "trace-none"}, 0, 0, 0},
        {{.after_seq = 210}, 0, 0, 0},
    };
    struct scratch scratch;
    scratch_open(&scratch);
    struct store_options options = test_options(backend, &scratch);
    struct store *store = test_open(&options);
    for (uint64_t n = 1; n <= 210; n += 10) {
      struct store_batch *batch = store_batch_create();
      for (uint64_t i = n; i < n + 10; i++)
        test_event_add(batch, i, NULL);
      struct store_commit_result result = test_commit(store, batch, NULL);
      ck_assert_uint_eq(result.first_seq, n);
      ck_assert_uint_eq(result.last_seq, n + 9);
    }
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
      struct seen seen = test_events(store, table[i].query);
      ck_assert_msg(seen.count == table[i].count && seen.first_seq == table[i].first_seq &&
                        seen.last_seq == table[i].last_seq,
                    "row %zu: %llu events, %llu..%llu", i, (unsigned long long)seen.count,
                    (unsigned long long)seen.first_seq, (unsigned long long)seen.last_seq);
    }
    store_close(&store);
    scratch_close(&scratch);
  }
}
END_TEST

static bool check_bytes(void *arg, const struct store_event *event) {
  ck_assert_uint_eq(event->length, 256);
  for (unsigned i = 0; i < 256; i++)
    ck_assert_uint_eq(((const uint8_t *)event->bytes)[i], i);
  ck_assert_str_eq(event->project_id, "project");
  ck_assert_str_eq(event->trace_id, "");
  (*(unsigned *)arg)++;
  return true;
}

START_TEST(bytes_come_back_exactly_and_nothing_is_added) {
  FOR_BACKENDS(backend) {
    struct scratch scratch;
    scratch_open(&scratch);
    struct store_options options = test_options(backend, &scratch);
    struct store *store = test_open(&options);
    uint8_t bytes[256];
    unsigned visits = 0;
    char id[ID_UUID_BYTES];
    struct store_value value;
    for (unsigned i = 0; i < 256; i++)
      bytes[i] = (uint8_t)i;
    id_uuid_v4(id);
    struct store_batch *batch = store_batch_create();
    store_batch_append_event(
        batch, &(struct store_event){
                   .event_id = id, .project_id = "project", .family = "f", .type = "t", .bytes = bytes, .length = 256});
    store_batch_put(batch, "tools", "raw", bytes, 256, STORE_REVISION_NONE);
    store_batch_put(batch, "tools", "empty", NULL, 0, STORE_REVISION_NONE);
    test_commit(store, batch, NULL);
    ck_assert(store_events_read(store, &(struct store_event_query){0}, check_bytes, &visits, NULL));
    ck_assert_uint_eq(visits, 1);
    ck_assert(store_get(store, "tools", "raw", &value, NULL));
    ck_assert_mem_eq(value.data, bytes, 256);
    store_value_free(&value);
    ck_assert(store_get(store, "tools", "empty", &value, NULL));
    ck_assert_uint_eq(value.length, 0);
    store_value_free(&value);
    store_close(&store);
    scratch_close(&scratch);
  }
}
END_TEST

static bool stop_at_once(void *arg, const struct store_row *row) {
  (void)row;
  ++*(unsigned *)arg;
  return false;
}

START_TEST(scans_are_ordered_bounded_by_prefix_and_can_stop) {
  FOR_BACKENDS(backend) {
    static const struct {
      const char *name_space, *prefix, *expected;
    } table[] = {
        {"tools", NULL, "a=1;a/x=2;a/y=3;b=4;é=5;"},
        {"tools", "a/", "a/x=2;a/y=3;"},
        {"tools", "é", "é=5;"},
        {"tools", "zz", ""},
        {"nothing", NULL, ""},
        {"teams", "", "a=6;"},
        {NULL, NULL, "a=6;a=1;a/x=2;a/y=3;b=4;é=5;"},
    };
    struct scratch scratch;
    scratch_open(&scratch);
    struct store_options options = test_options(backend, &scratch);
    struct store *store = test_open(&options);
    struct store_batch *batch = store_batch_create();
    store_batch_put(batch, "tools", "b", "4", 1, 0);
    store_batch_put(batch, "tools", "a/y", "3", 1, 0);
    store_batch_put(batch, "tools", "é", "5", 1, 0);
    store_batch_put(batch, "teams", "a", "6", 1, 0);
    store_batch_put(batch, "tools", "a", "1", 1, 0);
    store_batch_put(batch, "tools", "a/x", "2", 1, 0);
    test_commit(store, batch, NULL);
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
      struct seen seen = {0};
      ck_assert(store_scan(store, table[i].name_space, table[i].prefix, seen_row, &seen, NULL));
      ck_assert_str_eq(seen.text, table[i].expected);
    }
    unsigned visits = 0;
    ck_assert(store_scan(store, "tools", NULL, stop_at_once, &visits, NULL));
    ck_assert_uint_eq(visits, 1);
    store_close(&store);
    scratch_close(&scratch);
  }
}
END_TEST

START_TEST(bad_arguments_fail_the_batch_with_their_code) {
  FOR_BACKENDS(backend) {
    char long_key[STORE_KEY_MAX_BYTES + 2], long_field[STORE_EVENT_FIELD_MAX_BYTES + 2], id[ID_UUID_BYTES];
    memset(long_key, 'k', sizeof(long_key) - 1);
    long_key[sizeof(long_key) - 1] = 0;
    memset(long_field, 'f', sizeof(long_field) - 1);
    long_field[sizeof(long_field) - 1] = 0;
    id_uuid_v4(id);
    const struct {
      const char *name_space, *key, *code;
    } rows[] = {{"", "k", "argument.missing"},        {NULL, "k", "argument.missing"},
                {"n", "", "argument.missing"},        {"n", long_key, "argument.too_large"},
                {"n", "\xff", "argument.invalid"},    {long_key, "k", "argument.too_large"},
                {"n", "\xc0\x80", "argument.invalid"}};
    const struct {
      struct store_event event;
      const char *code;
    } events[] = {
        {{.event_id = "no-uuid", .family = "f", .type = "t"}, "argument.invalid"},
        {{.event_id = NULL, .family = "f", .type = "t"}, "argument.invalid"},
        {{.event_id = "0b5e8f0e03f5f-4c55-9d0a-6a3c1a2b4c5d", .family = "f", .type = "t"}, "argument.invalid"},
        {{.event_id = "0b5e8f0g-3f5f-4c55-9d0a-6a3c1a2b4c5d", .family = "f", .type = "t"}, "argument.invalid"},
        {{.event_id = id, .family = "", .type = "t"}, "argument.missing"},
        {{.event_id = id, .family = "f"}, "argument.missing"},
        {{.event_id = id, .family = "f", .type = "t", .trace_id = long_field}, "argument.too_large"},
        {{.event_id = id, .family = "f", .type = "t", .length = STORE_EVENT_MAX_BYTES + 1}, "argument.too_large"},
    };
    struct scratch scratch;
    scratch_open(&scratch);
    struct store_options options = test_options(backend, &scratch);
    struct store *store = test_open(&options);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
      struct store_batch *batch = store_batch_create();
      store_batch_put(batch, "tools", "good", "1", 1, STORE_REVISION_ANY);
      store_batch_put(batch, rows[i].name_space, rows[i].key, "1", 1, STORE_REVISION_ANY);
      test_commit(store, batch, rows[i].code);
    }
    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
      struct store_batch *batch = store_batch_create();
      store_batch_append_event(batch, &events[i].event);
      test_commit(store, batch, events[i].code);
    }
    struct store_batch *batch = store_batch_create();
    store_batch_delete(batch, "tools", "good", STORE_REVISION_NONE);
    test_commit(store, batch, "argument.invalid");
    test_expect(store, "good", NULL);
    store_close(&store);
    scratch_close(&scratch);
  }
}
END_TEST

struct order {
  struct store *store;
  unsigned next, again;
};
struct order_item {
  struct order *order;
  unsigned number;
};

static void check_order(void *arg, const struct store_commit_result *result, const struct error *err) {
  struct order_item *item = arg;
  ck_assert_uint_eq(item->number, item->order->next++);
  ck_assert_int_eq(err != NULL, item->number % 10 == 9);
  ck_assert_int_eq(result->revision == 0, err != NULL);
  if (item->number == 500) { /* callbacks may commit */
    struct store_batch *batch = store_batch_create();
    store_batch_put(batch, "tools", "nested", "1", 1, STORE_REVISION_ANY);
    store_commit(item->order->store, &batch, NULL, NULL);
  }
}

static void wake_flag(void *arg) {
  __atomic_store_n((bool *)arg, true, __ATOMIC_RELEASE);
}

START_TEST(callbacks_run_in_commit_order_and_closing_loses_nothing) {
  FOR_BACKENDS(backend) {
    struct scratch scratch;
    scratch_open(&scratch);
    struct store_options options = test_options(backend, &scratch);
    bool woken = false;
    options.wake = wake_flag;
    options.wake_arg = &woken;
    struct store *store = test_open(&options);
    struct order order = {.store = store};
    static struct order_item items[1000];
    for (unsigned i = 0; i < 1000; i++) {
      struct store_batch *batch = store_batch_create();
      items[i] = (struct order_item){.order = &order, .number = i};
      char key[16];
      snprintf(key, sizeof(key), "key-%u", i);
      store_batch_put(batch, "tools", key, "1", 1, i % 10 == 9 ? 77777u : STORE_REVISION_NONE);
      store_commit(store, &batch, check_order, &items[i]);
      if (i % 100 == 0)
        store_dispatch(store);
    }
    test_put(store, "last", "1", STORE_REVISION_ANY, NULL);
    ck_assert_uint_eq(order.next, 1000);
    ck_assert(__atomic_load_n(&woken, __ATOMIC_ACQUIRE));
    struct store_metrics metrics;
    struct store_batch *barrier = store_batch_create();
    test_commit(store, barrier, NULL);
    store_metrics_get(store, &metrics);
    ck_assert_uint_eq(metrics.commits, 903);
    ck_assert_uint_eq(metrics.commits_failed, 100);
    ck_assert_uint_eq(metrics.queue_bytes, 0);
    ck_assert_uint_le(metrics.groups, metrics.commits);
    order.next = 0;
    items[0].number = 0;
    struct store_batch *batch = store_batch_create();
    store_batch_put(batch, "tools", "closing", "1", 1, STORE_REVISION_ANY);
    store_commit(store, &batch, check_order, &items[0]);
    store_close(&store);
    ck_assert_uint_eq(order.next, 1);
    scratch_close(&scratch);
  }
}
END_TEST

static void expect_busy(void *arg, const struct store_commit_result *result, const struct error *err) {
  (void)result;
  if (err) {
    ck_assert_str_eq(err->code, "store.busy");
    ++*(unsigned *)arg;
  }
}

START_TEST(a_full_queue_says_so_and_refuses_beyond_its_bound) {
  FOR_BACKENDS(backend) {
    struct scratch scratch;
    scratch_open(&scratch);
    struct store_options options = test_options(backend, &scratch);
    options.queue_limit_bytes = 6 << 10; /* small: a batch is made faster than the writer wakes up */
    options.group_limit_batches = 1;
    struct store *store = test_open(&options);
    static char value[4 << 10];
    unsigned busy = 0, full = 0;
    for (unsigned i = 0; i < 2000; i++) {
      struct store_batch *batch = store_batch_create();
      store_batch_put(batch, "tools", "big", value, sizeof(value), STORE_REVISION_ANY);
      store_commit(store, &batch, expect_busy, &busy);
      full += store_queue_full(store);
      struct store_metrics metrics;
      store_metrics_get(store, &metrics);
      ck_assert_uint_le(metrics.queue_bytes, 3 * options.queue_limit_bytes);
    }
    while (store_queue_full(store))
      usleep(100);
    test_commit(store, store_batch_create(), NULL);
    ck_assert_uint_gt(full, 0);
    ck_assert_uint_gt(busy, 0);
    ck_assert(!store_queue_full(store));
    test_put(store, "after", "1", STORE_REVISION_ANY, NULL);
    store_close(&store);
    scratch_close(&scratch);
  }
}
END_TEST

struct seen_checkpoint {
  unsigned count;
  uint64_t seq;
  char data[8];
};

static void checkpoint_see(void *arg, uint64_t seq, const void *data, size_t length) {
  struct seen_checkpoint *seen = arg;
  ck_assert_uint_lt(length, sizeof(seen->data));
  seen->count++;
  seen->seq = seq;
  memcpy(seen->data, data, length);
  seen->data[length] = 0;
}

START_TEST(checkpoints_keep_their_seq) {
  FOR_BACKENDS(backend) {
    struct scratch scratch;
    scratch_open(&scratch);
    struct store_options options = test_options(backend, &scratch);
    struct store *store = test_open(&options);
    struct seen_checkpoint seen = {0};
    struct error err;
    ck_assert(!store_checkpoint_read(store, "psg", checkpoint_see, &seen, &err));
    ck_assert_str_eq(err.code, "not_found");
    struct store_batch *batch = store_batch_create();
    store_checkpoint_put(batch, "psg", 41, "graph", 5);
    store_checkpoint_put(batch, "psg", 42, "graphs", 6);
    test_commit(store, batch, NULL);
    ck_assert(!store_checkpoint_read(store, "ps", checkpoint_see, &seen, &err));
    ck_assert_str_eq(err.code, "not_found");
    ck_assert_uint_eq(seen.count, 0);
    ck_assert(store_checkpoint_read(store, "psg", checkpoint_see, &seen, NULL));
    ck_assert_uint_eq(seen.count, 1);
    ck_assert_uint_eq(seen.seq, 42);
    ck_assert_str_eq(seen.data, "graphs");
    store_close(&store);
    scratch_close(&scratch);
  }
}
END_TEST

START_TEST(event_times_never_repeat_or_go_back) {
  FOR_BACKENDS(backend) {
    struct scratch scratch;
    scratch_open(&scratch);
    struct store_options options = test_options(backend, &scratch);
    struct store *store = test_open(&options);
    int64_t before = 0, future_us = clock_wall_us() + 3600000000LL;
    for (int i = 0; i < 1000; i++) {
      int64_t now = store_event_time_next(store);
      ck_assert_int_gt(now, before);
      before = now;
    }
    struct store_batch *batch = store_batch_create();
    test_event_add(batch, (uint64_t)future_us, NULL);
    test_commit(store, batch, NULL);
    ck_assert_int_gt(store_event_time_next(store), future_us);
    store_close(&store);
    if (strcmp(backend, "sqlite") == 0) {
      store = test_open(&options);
      ck_assert_int_gt(store_event_time_next(store), future_us);
      store_close(&store);
    }
    scratch_close(&scratch);
  }
}
END_TEST

START_TEST(a_full_disk_fails_that_commit_only) {
  FOR_BACKENDS(backend) {
    struct scratch scratch;
    scratch_open(&scratch);
    struct store_options options = test_options(backend, &scratch);
    options.size_limit_bytes = 1 << 20;
    struct store *store = test_open(&options);
    static char value[2 << 20];
    memset(value, 'v', sizeof(value) - 1);
    test_put(store, "small", "1", STORE_REVISION_ANY, NULL);
    test_put(store, "big", value, STORE_REVISION_ANY, "store.full");
    test_expect(store, "big", NULL);
    ck_assert_uint_eq(test_put(store, "small", "2", STORE_REVISION_ANY, NULL).revision, 2);
    test_expect(store, "small", "2");
    store_close(&store);
    scratch_close(&scratch);
  }
}
END_TEST

START_TEST(bad_options_are_refused_with_their_code) {
  static const struct {
    struct store_options options;
    const char *code;
  } table[] = {
      {{.backend = "etcd"}, "argument.invalid"},
      {{.backend = NULL}, "argument.invalid"},
      {{.backend = "memory", .durability = STORE_DURABLE}, "unsupported"},
      {{.backend = "memory", .durability = STORE_REPLICATED}, "unsupported"},
      {{.backend = "sqlite", .path = "/tmp/x", .durability = STORE_REPLICATED}, "unsupported"},
      {{.backend = "sqlite", .path = NULL, .durability = STORE_DURABLE}, "argument.invalid"},
      {{.backend = "sqlite", .path = ":memory:", .durability = STORE_DURABLE}, "argument.invalid"},
      {{.backend = "sqlite", .path = "/nonexistent/folder/x", .durability = STORE_DURABLE}, "store.failed"},

  };
  for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
    struct error err = {0};
    ck_assert_ptr_null(store_open(&table[i].options, &err));
    ck_assert_str_eq(err.code, table[i].code);
  }
}
END_TEST

TEST_MAIN("store", rows_are_put_read_and_deleted_with_revisions, a_batch_applies_whole_or_not_at_all,
          a_duplicate_event_id_is_refused_and_its_batch_with_it, events_are_found_by_every_condition,
          bytes_come_back_exactly_and_nothing_is_added, scans_are_ordered_bounded_by_prefix_and_can_stop,
          bad_arguments_fail_the_batch_with_their_code, callbacks_run_in_commit_order_and_closing_loses_nothing,
          a_full_queue_says_so_and_refuses_beyond_its_bound, checkpoints_keep_their_seq,
          event_times_never_repeat_or_go_back, a_full_disk_fails_that_commit_only,
          bad_options_are_refused_with_their_code)
