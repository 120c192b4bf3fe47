/* store_feed.c: the change feed. A feed is live (it gets each finished batch straight from memory) or catching up (it
 * reads a page of history per dispatch, never beyond what has been dispatched, and turns live when it is there). That
 * bound is what makes each change arrive once and in order. Core thread only.
 *
 * Feeds may come and go inside callbacks: a feed that ends is only marked, and reaped when no callback runs. A feed
 * that begins sits at the head of the list with its cursor at what has been dispatched, so the batch at hand passes it
 * by. */
#include <string.h>

#include "core/store/store_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/str.h"

#define CATCH_UP_PAGE 256

struct store_feed {
  uint32_t magic;
  bool live, ended;
  bool gone_said; /* STORE_FEED_GONE was delivered: silent until unsubscribed */
  struct store *store;
  struct store_feed *next;
  enum store_feed_kind kind;
  uint64_t cursor; /* last revision or seq delivered or passed by */
  char *name_space, *key_prefix, *trace_id, *context_id, *family;
  store_feed_visit *visit;
  void *arg;
};

static void say(struct store_feed *feed, const struct store_feed_item *item) {
  if (!feed->ended && !feed->gone_said)
    feed->visit(feed->arg, item);
}

static void feed_free(struct store_feed *feed) {
  base_free(feed->name_space);
  base_free(feed->key_prefix);
  base_free(feed->trace_id);
  base_free(feed->context_id);
  base_free(feed->family);
  feed->magic = 0;
  base_free(feed);
}

static void reap(struct store *store) {
  if (store->callback_depth)
    return;
  for (struct store_feed **link = &store->feeds; *link;) {
    struct store_feed *feed = *link;
    if (!feed->ended) {
      link = &feed->next;
      continue;
    }
    *link = feed->next;
    feed_free(feed);
  }
}

static uint64_t dispatched(const struct store_feed *feed) {
  return feed->kind == STORE_FEED_ROWS ? feed->store->revision : feed->store->seq;
}

static char *copy(const char *text) {
  return text ? base_strdup(text) : NULL;
}

struct store_feed *store_feed_subscribe(struct store *store, const struct store_feed_options *options,
                                        store_feed_visit *visit, void *arg, struct error *err) {
  BASE_CHECK_MAGIC(store, STORE_MAGIC);
  uint64_t trimmed = 0, now = options->kind == STORE_FEED_ROWS ? store->revision : store->seq;
  uint64_t after = options->after == STORE_FEED_NOW ? now : options->after;
  if (after > now) {
    error_set(err, ERR_OUT_OF_RANGE, "The feed cannot start in the future.");
    return NULL;
  }
  if (options->kind == STORE_FEED_ROWS) {
    if (!store->backend->trimmed(store->self, &trimmed, err))
      return NULL;
    if (after < trimmed && after != now) {
      error_set(err, ERR_STORE_REVISION_GONE, NULL);
      return NULL;
    }
  }
  struct store_feed *feed = BASE_NEW(struct store_feed);
  *feed = (struct store_feed){.magic = STORE_FEED_MAGIC,
                              .store = store,
                              .next = store->feeds,
                              .kind = options->kind,
                              .cursor = after,
                              .name_space = copy(options->name_space),
                              .key_prefix = copy(options->key_prefix),
                              .trace_id = copy(options->trace_id),
                              .context_id = copy(options->context_id),
                              .family = copy(options->family),
                              .visit = visit,
                              .arg = arg};
  store->feeds = feed;
  if (store->options.wake)
    store->options.wake(store->options.wake_arg);
  return feed;
}

void store_feed_unsubscribe(struct store_feed **feed_pointer) {
  struct store_feed *feed = BASE_TAKE(*feed_pointer);
  if (!feed)
    return;
  BASE_CHECK_MAGIC(feed, STORE_FEED_MAGIC);
  feed->ended = true;
  reap(feed->store);
}

void store_feed_end_all(struct store *store) {
  for (struct store_feed *feed = store->feeds; feed; feed = feed->next)
    feed->ended = true;
  reap(store);
}

static bool wants_row(const struct store_feed *feed, const struct store_row *row) {
  if (feed->name_space ? strcmp(feed->name_space, row->name_space) != 0 : row->name_space[0] == '_')
    return false;
  return !feed->key_prefix || str_starts_with(row->key, feed->key_prefix);
}

static void deliver_row(void *arg, const struct store_row *row, bool deleted) {
  struct store_feed *feed = arg;
  if (wants_row(feed, row))
    say(feed, &(struct store_feed_item){.kind = deleted ? STORE_FEED_ROW_DELETE : STORE_FEED_ROW_PUT, .row = row});
}

static struct store_event_query feed_query(const struct store_feed *feed) {
  return (struct store_event_query){.trace_id = feed->trace_id, .context_id = feed->context_id, .family = feed->family};
}

static void deliver_op(struct store_feed *feed, const struct store_op *op, const struct store_event_query *query) {
  if (op->kind == STORE_OP_EVENT) {
    if (feed->kind == STORE_FEED_EVENTS && op->event.seq > feed->cursor && store_event_matches(query, &op->event))
      say(feed, &(struct store_feed_item){.kind = STORE_FEED_EVENT, .event = &op->event});
    return;
  }
  if ((op->kind == STORE_OP_PUT || op->kind == STORE_OP_DELETE) && feed->kind == STORE_FEED_ROWS && op->applied &&
      op->row.revision > feed->cursor)
    deliver_row(feed, &op->row, op->kind == STORE_OP_DELETE);
}

void store_feed_deliver(struct store *store, const struct store_batch *batch) {
  if (batch->import)
    return; /* the store was empty: whoever imports starts feeds afterwards */
  for (struct store_feed *feed = store->feeds; feed; feed = feed->next) {
    if (!feed->live || feed->ended)
      continue;
    struct store_event_query query = feed_query(feed);
    for (size_t i = 0; i < batch->op_count && !feed->ended; i++)
      deliver_op(feed, &batch->ops[i], &query);
    feed->cursor = dispatched(feed);
  }
}

struct event_page {
  struct store_feed *feed;
  uint64_t count, last_seq;
};

static bool deliver_event(void *arg, const struct store_event *event) {
  struct event_page *page = arg;
  say(page->feed, &(struct store_feed_item){.kind = STORE_FEED_EVENT, .event = event});
  page->count++;
  page->last_seq = event->seq;
  return !page->feed->ended;
}

static bool read_page(struct store_feed *feed, uint64_t through, uint64_t *reached, struct error *err) {
  struct store *store = feed->store;
  if (feed->kind == STORE_FEED_ROWS) {
    uint64_t trimmed;
    if (!store->backend->trimmed(store->self, &trimmed, err))
      return false;
    if (feed->cursor < trimmed)
      return error_set(err, ERR_STORE_REVISION_GONE, NULL);
    return store->backend->changes(store->self, feed->cursor, through, CATCH_UP_PAGE, deliver_row, feed, reached, err);
  }
  struct store_event_query query = feed_query(feed);
  query.after_seq = feed->cursor;
  query.through_seq = through;
  query.limit = CATCH_UP_PAGE;
  struct event_page page = {.feed = feed};
  if (!store_events_read(store, &query, deliver_event, &page, err))
    return false;
  *reached = page.count < CATCH_UP_PAGE ? through : page.last_seq;
  return true;
}

static void catch_up_one(struct store_feed *feed) {
  struct error err = {0};
  uint64_t through = dispatched(feed), reached = through;
  if (feed->cursor < through && !read_page(feed, through, &reached, &err)) {
    say(feed, &(struct store_feed_item){.kind = STORE_FEED_GONE, .err = &err});
    feed->gone_said = true;
    return;
  }
  feed->cursor = reached;
  if (reached < through)
    return;
  feed->live = true;
  say(feed, &(struct store_feed_item){.kind = STORE_FEED_SYNCED});
}

void store_feed_catch_up(struct store *store) {
  bool more = false;
  store->callback_depth++;
  for (struct store_feed *feed = store->feeds; feed; feed = feed->next) {
    if (feed->live || feed->ended || feed->gone_said)
      continue;
    catch_up_one(feed);
    more = more || !(feed->live || feed->ended || feed->gone_said);
  }
  store->callback_depth--;
  reap(store);
  if (more && store->options.wake)
    store->options.wake(store->options.wake_arg);
}

void store_feed_trim(struct store *store, uint64_t through_revision, store_done *done, void *arg) {
  struct store_batch *batch = store_batch_create();
  store_batch_add(batch, STORE_OP_TRIM)->trim_revision = through_revision;
  store_commit(store, &batch, done, arg);
}
