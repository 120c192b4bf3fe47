/* store_feed_test.c: the change feed: live, resumed, filtered, trimmed, and changed from inside its callbacks. */
#include "core/store/store_test_helper.h"

struct log {
  char text[8192];
  struct store *store;
  struct store_feed *feed;
  unsigned items;
};

static void note(void *arg, const struct store_feed_item *item) {
  struct log *log = arg;
  char *end = log->text + strlen(log->text);
  size_t room = sizeof(log->text) - (size_t)(end - log->text);
  log->items++;
  switch (item->kind) {
  case STORE_FEED_ROW_PUT:
    snprintf(end, room, "%llu:%s=%.*s ", (unsigned long long)item->row->revision, item->row->key,
             (int)item->row->length, (const char *)item->row->value);
    break;
  case STORE_FEED_ROW_DELETE:
    snprintf(end, room, "%llu:-%s ", (unsigned long long)item->row->revision, item->row->key);
    break;
  case STORE_FEED_EVENT:
    snprintf(end, room, "%llu ", (unsigned long long)item->event->seq);
    break;
  case STORE_FEED_SYNCED:
    snprintf(end, room, "synced ");
    break;
  case STORE_FEED_GONE:
    snprintf(end, room, "gone(%s) ", item->err->code);
    break;
  }
}

static void remove_row(struct store *store, const char *key) {
  struct store_batch *batch = store_batch_create();
  store_batch_delete(batch, "tools", key, STORE_REVISION_ANY);
  test_commit(store, batch, NULL);
}

static struct store_feed *subscribe(struct store *store, struct store_feed_options options, struct log *log) {
  struct error err = {0};
  struct store_feed *feed = store_feed_subscribe(store, &options, note, log, &err);
  ck_assert_msg(feed != NULL, "%s", err.code);
  return feed;
}

START_TEST(a_feed_resumes_in_the_past_and_goes_on_live) {
  FOR_BACKENDS(backend) {
    struct scratch scratch;
    scratch_open(&scratch);
    struct store_options options = test_options(backend, &scratch);
    struct store *store = test_open(&options);
    struct log all = {0}, since = {0}, now = {0}, prefix = {0}, other = {0};
    test_put(store, "a", "1", STORE_REVISION_ANY, NULL);
    test_put(store, "b", "2", STORE_REVISION_ANY, NULL);
    test_put(store, "a", "3", STORE_REVISION_ANY, NULL);
    remove_row(store, "b");
    struct store_feed *feeds[] = {
        subscribe(store, (struct store_feed_options){.kind = STORE_FEED_ROWS}, &all),
        subscribe(store, (struct store_feed_options){.kind = STORE_FEED_ROWS, .after = 3}, &since),
        subscribe(store, (struct store_feed_options){.kind = STORE_FEED_ROWS, .after = STORE_FEED_NOW}, &now),
        subscribe(store, (struct store_feed_options){.kind = STORE_FEED_ROWS, .name_space = "tools", .key_prefix = "c"},
                  &prefix),
        subscribe(store, (struct store_feed_options){.kind = STORE_FEED_ROWS, .name_space = "teams"}, &other)};
    store_dispatch(store);
    test_put(store, "c", "5", STORE_REVISION_ANY, NULL);
    remove_row(store, "nothing");
    remove_row(store, "a");
    ck_assert_str_eq(all.text, "3:a=3 4:-b synced 5:c=5 6:-a ");
    ck_assert_str_eq(since.text, "4:-b synced 5:c=5 6:-a ");
    ck_assert_str_eq(now.text, "synced 5:c=5 6:-a ");
    ck_assert_str_eq(prefix.text, "synced 5:c=5 ");
    ck_assert_str_eq(other.text, "synced ");
    for (size_t i = 0; i < sizeof(feeds) / sizeof(feeds[0]); i++)
      store_feed_unsubscribe(&feeds[i]);
    test_put(store, "d", "7", STORE_REVISION_ANY, NULL);
    ck_assert_uint_eq(now.items, 3);
    store_close(&store);
    scratch_close(&scratch);
  }
}
END_TEST

START_TEST(a_long_history_arrives_in_pages_once_and_in_order) {
  FOR_BACKENDS(backend) {
    struct scratch scratch;
    scratch_open(&scratch);
    struct store_options options = test_options(backend, &scratch);
    struct store *store = test_open(&options);
    static char expected[8192];
    expected[0] = 0;
    for (unsigned i = 1; i <= 700; i++) {
      char key[8];
      struct store_batch *batch = store_batch_create();
      snprintf(key, sizeof(key), "%u", i);
      store_batch_put(batch, "t", key, "", 0, STORE_REVISION_NONE);
      test_event_add(batch, i, NULL);
      store_commit(store, &batch, NULL, NULL);
      if (i > 100)
        sprintf(expected + strlen(expected), "%u:%u= ", i, i);
    }
    test_commit(store, store_batch_create(), NULL);
    struct log rows = {0}, events = {0}, traced = {0};
    subscribe(store, (struct store_feed_options){.kind = STORE_FEED_ROWS, .after = 100}, &rows);
    subscribe(store, (struct store_feed_options){.kind = STORE_FEED_EVENTS, .after = 690}, &events);
    subscribe(store, (struct store_feed_options){.kind = STORE_FEED_EVENTS, .after = 680, .trace_id = "trace-3"},
              &traced);
    for (unsigned i = 0; i < 3; i++)
      store_dispatch(store);
    strcat(expected, "synced ");
    ck_assert_str_eq(rows.text, expected);
    struct store_batch *batch = store_batch_create();
    test_event_add(batch, 701, NULL);
    test_event_add(batch, 703, NULL);
    test_commit(store, batch, NULL);
    ck_assert_str_eq(events.text, "691 692 693 694 695 696 697 698 699 700 synced 701 702 ");
    ck_assert_str_eq(traced.text, "682 689 696 synced 702 ");
    store_close(&store); /* ends the feeds */
    scratch_close(&scratch);
  }
}
END_TEST

static void trimmed_done(void *arg, const struct store_commit_result *result, const struct error *err) {
  (void)result;
  ck_assert_ptr_null(err);
  ++*(unsigned *)arg;
}

START_TEST(trimmed_history_is_gone_and_the_future_is_refused) {
  FOR_BACKENDS(backend) {
    struct scratch scratch;
    scratch_open(&scratch);
    struct store_options options = test_options(backend, &scratch);
    struct store *store = test_open(&options);
    struct log late = {0}, log = {0};
    struct error err = {0};
    unsigned done = 0;
    for (unsigned i = 0; i < 10; i++)
      test_put(store, i % 2 ? "a" : "b", "x", STORE_REVISION_ANY, NULL);
    subscribe(store, (struct store_feed_options){.kind = STORE_FEED_ROWS, .after = 2}, &late);
    store_feed_trim(store, 6, trimmed_done, &done);
    test_commit(store, store_batch_create(), NULL);
    ck_assert_uint_eq(done, 1);
    ck_assert_str_eq(late.text, "gone(store.revision.gone) ");
    ck_assert_ptr_null(store_feed_subscribe(store, &(struct store_feed_options){.kind = STORE_FEED_ROWS, .after = 5},
                                            note, &log, &err));
    ck_assert_str_eq(err.code, "store.revision.gone");
    ck_assert_ptr_null(store_feed_subscribe(store, &(struct store_feed_options){.kind = STORE_FEED_ROWS, .after = 11},
                                            note, &log, &err));
    ck_assert_str_eq(err.code, "argument.out_of_range");
    subscribe(store, (struct store_feed_options){.kind = STORE_FEED_ROWS, .after = 6}, &log);
    store_dispatch(store);
    ck_assert_str_eq(log.text, "9:b=x 10:a=x synced ");
    if (strcmp(backend, "sqlite") == 0) { /* the revision survives even when all history is trimmed */
      store_feed_trim(store, 10, NULL, NULL);
      store_close(&store);
      store = test_open(&options);
      ck_assert_uint_eq(store_revision(store), 10);
    }
    store_close(&store);
    scratch_close(&scratch);
  }
}
END_TEST

static void meddle(void *arg, const struct store_feed_item *item) {
  struct log *log = arg;
  log->items++;
  if (item->kind != STORE_FEED_ROW_PUT)
    return;
  struct store_value value;
  ck_assert(store_get(log->store, "tools", item->row->key, &value, NULL));
  store_value_free(&value);
  struct store_batch *batch = store_batch_create();
  store_batch_put(batch, "other", item->row->key, "1", 1, STORE_REVISION_ANY);
  store_commit(log->store, &batch, NULL, NULL);
  store_feed_unsubscribe(&log->feed);
  ck_assert_ptr_nonnull(store_feed_subscribe(
      log->store, &(struct store_feed_options){.kind = STORE_FEED_ROWS, .after = STORE_FEED_NOW}, note, log, NULL));
}

START_TEST(callbacks_may_read_commit_subscribe_and_end_their_feed) {
  FOR_BACKENDS(backend) {
    struct scratch scratch;
    scratch_open(&scratch);
    struct store_options options = test_options(backend, &scratch);
    struct store *store = test_open(&options);
    struct log log = {.store = store};
    log.feed = store_feed_subscribe(store, &(struct store_feed_options){.kind = STORE_FEED_ROWS}, meddle, &log, NULL);
    store_dispatch(store);
    test_put(store, "a", "1", STORE_REVISION_ANY, NULL);
    test_commit(store, store_batch_create(), NULL);
    store_dispatch(store);
    ck_assert_ptr_null(log.feed);
    ck_assert_str_eq(log.text, "synced 2:a=1 ");
    ck_assert_uint_eq(log.items, 4);
    store_close(&store);
    scratch_close(&scratch);
  }
}
END_TEST

START_TEST(checkpoints_do_not_show_in_feeds) {
  FOR_BACKENDS(backend) {
    struct scratch scratch;
    scratch_open(&scratch);
    struct store_options options = test_options(backend, &scratch);
    struct store *store = test_open(&options);
    struct log log = {0};
    subscribe(store, (struct store_feed_options){.kind = STORE_FEED_ROWS}, &log);
    store_dispatch(store);
    struct store_batch *batch = store_batch_create();
    store_checkpoint_put(batch, "psg", 1, "x", 1);
    test_commit(store, batch, NULL);
    ck_assert_str_eq(log.text, "synced ");
    store_close(&store);
    scratch_close(&scratch);
  }
}
END_TEST

TEST_MAIN("store.feed", a_feed_resumes_in_the_past_and_goes_on_live, a_long_history_arrives_in_pages_once_and_in_order,
          trimmed_history_is_gone_and_the_future_is_refused, callbacks_may_read_commit_subscribe_and_end_their_feed,
          checkpoints_do_not_show_in_feeds)
