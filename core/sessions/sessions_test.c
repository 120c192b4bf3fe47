/* sessions_test.c: who gets which session, how long, and what is replayed. SPI-SES, MCP-2. */
#include <string.h>

#include "core/sessions/sessions_internal.h"
#include "sdk/base/clock.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"
#include "sdk/base/test.h"

static const struct policy_context alice = {.user_email = "alice@x", .token_id = "token-1"};
static const struct policy_context others[] = {
    {.user_email = "bob@x", .token_id = "token-1"},
    {.user_email = "alice@x", .token_id = "token-2"},
    {.user_email = "", .token_id = ""},
};

struct bench {
  struct store *store;
  struct sessions *sessions;
};

static void sessions_start(struct bench *bench, struct sessions_options options) {
  struct error err = {0};
  options.store = bench->store;
  bench->sessions = sessions_open(&options, &err);
  ck_assert_msg(bench->sessions != NULL, "%s", err.code);
}

static struct bench bench_open(struct sessions_options options) {
  struct bench bench = {0};
  log_level_set(LOG_FATAL);
  bench.store = store_open(&(struct store_options){.backend = "memory"}, NULL);
  ck_assert_ptr_nonnull(bench.store);
  sessions_start(&bench, options);
  return bench;
}

static void bench_close(struct bench *bench) {
  sessions_close(&bench->sessions);
  store_close(&bench->store);
}

static void settle(struct bench *bench) { /* an empty batch: what was committed before it is answered */
  struct store_batch *batch = store_batch_create();
  ck_assert(store_commit_sync(bench->store, &batch, NULL, NULL));
}

struct answer {
  int calls;
  char id[64], code[ERROR_CODE_MAX], state[64];
  int64_t expires_at_ms;
};

static void answered(void *arg, const struct session_record *record, const struct error *err) {
  struct answer *answer = arg;
  answer->calls++;
  str_copy(answer->code, sizeof(answer->code), err ? err->code : "");
  if (record) {
    str_copy(answer->id, sizeof(answer->id), record->session_id);
    answer->expires_at_ms = record->expires_at_ms;
    snprintf(answer->state, sizeof(answer->state), "%.*s", (int)record->state_length,
             record->state_json ? (const char *)record->state_json : "");
  }
}

static struct answer create(struct bench *bench, const struct policy_context *context, const char *state) {
  struct answer answer = {0};
  session_create(bench->sessions, context, "mcp", "2025-11-25", "server-1", state, strlen(state), 60000, answered,
                 &answer);
  settle(bench);
  ck_assert_int_eq(answer.calls, 1);
  return answer;
}

START_TEST(a_session_has_an_unguessable_visible_id_and_survives_a_restart) {
  struct bench bench = bench_open((struct sessions_options){0});
  struct answer first = create(&bench, &alice, "{ \"a\" : 1 }"), second = create(&bench, &alice, "");
  ck_assert_uint_eq(strlen(first.id), SESSION_ID_LENGTH);
  ck_assert(str_is_visible_ascii(first.id));
  ck_assert_str_ne(first.id, second.id);
  sessions_close(&bench.sessions);
  sessions_start(&bench, (struct sessions_options){0});
  ck_assert_uint_eq(sessions_count(bench.sessions), 2);
  const struct session_record *record = session_find(bench.sessions, &alice, first.id, "server-1", NULL);
  ck_assert_ptr_nonnull(record);
  ck_assert_str_eq(record->protocol_family, "mcp");
  ck_assert_str_eq(record->protocol_version, "2025-11-25");
  ck_assert_mem_eq(record->state_json, "{ \"a\" : 1 }", record->state_length); /* byte for byte */
  ck_assert_uint_eq(record->state_length, 11);
  ck_assert_uint_eq(session_find(bench.sessions, &alice, second.id, NULL, NULL)->state_length, 0);
  bench_close(&bench);
}
END_TEST

static bool no_visit(void *arg, uint64_t event_id, const char *stream_id, const void *data, size_t length) {
  (void)arg, (void)event_id, (void)stream_id, (void)data, (void)length;
  ck_abort_msg("an event of somebody else was shown");
  return false;
}

START_TEST(anybody_else_gets_not_found_whatever_they_ask) {
  struct bench bench = bench_open((struct sessions_options){0});
  struct answer session = create(&bench, &alice, "");
  uint64_t event_id = 0;
  ck_assert(session_event_append(bench.sessions, &alice, session.id, "s", "x", 1, &event_id, NULL));
  for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
    struct error errs[4] = {0};
    struct answer touch = {0}, delete = {0};
    ck_assert_ptr_null(session_find(bench.sessions, &others[i], session.id, NULL, &errs[0]));
    ck_assert(!session_event_append(bench.sessions, &others[i], session.id, "s", "x", 1, &event_id, &errs[1]));
    ck_assert(!session_events_replay(bench.sessions, &others[i], session.id, event_id, no_visit, NULL, &errs[2]));
    ck_assert_ptr_null(session_find(bench.sessions, &others[i], "no such session", NULL, &errs[3]));
    session_touch(bench.sessions, &others[i], session.id, "{}", 2, answered, &touch);
    session_delete(bench.sessions, &others[i], session.id, answered, &delete);
    for (size_t j = 0; j < 4; j++) {
      ck_assert_str_eq(errs[j].code, "session.not_found");
      ck_assert_str_eq(errs[j].message, errs[3].message); /* the same answer for "not yours" and "not there" */
    }
    ck_assert_str_eq(touch.code, "session.not_found");
    ck_assert_str_eq(delete.code, "session.not_found");
  }
  struct error err = {0};
  ck_assert_ptr_null(session_find(bench.sessions, &alice, session.id, "server-2", &err));
  ck_assert_str_eq(err.code, "session.not_found");
  ck_assert_ptr_nonnull(session_find(bench.sessions, &alice, session.id, "server-1", NULL));
  bench_close(&bench);
}
END_TEST

START_TEST(touching_changes_state_and_end_and_deleting_ends) {
  struct bench bench = bench_open((struct sessions_options){0});
  struct answer session = create(&bench, &alice, "{}"), touch = {0}, delete = {0}, bad = {0};
  session_touch(bench.sessions, &alice, session.id, "{\"b\":2}", 7, answered, &touch);
  ck_assert_int_eq(touch.calls, 0); /* not before it is durable */
  settle(&bench);
  ck_assert_str_eq(touch.state, "{\"b\":2}");
  session_touch(bench.sessions, &alice, session.id, NULL, 0, answered, &touch);
  ck_assert_int_eq(touch.calls, 2);
  session_touch(bench.sessions, &alice, session.id, "{", 1, answered, &bad);
  ck_assert_str_eq(bad.code, "json.malformed");
  session_delete(bench.sessions, &alice, session.id, answered, &delete);
  ck_assert_ptr_null(session_find(bench.sessions, &alice, session.id, NULL, NULL));
  settle(&bench);
  ck_assert_int_eq(delete.calls, 1);
  ck_assert_str_eq(delete.code, "");
  sessions_close(&bench.sessions);
  sessions_start(&bench, (struct sessions_options){0});
  ck_assert_uint_eq(sessions_count(bench.sessions), 0);
  bench_close(&bench);
}
END_TEST

START_TEST(what_is_too_much_is_refused) {
  static char large[SESSION_STATE_MAX_BYTES + 1], text[SESSION_TEXT_MAX_BYTES + 2];
  struct bench bench = bench_open((struct sessions_options){.per_subject_max = 2, .event_bytes_max = 1000});
  struct error err = {0};
  uint64_t event_id;
  memset(large, ' ', sizeof(large));
  memset(text, 'x', sizeof(text) - 1);
  create(&bench, &alice, "");
  struct answer session = create(&bench, &alice, "");
  ck_assert_str_eq(create(&bench, &alice, "").code, "rate_limit.exceeded");
  ck_assert_str_eq(create(&bench, &others[0], "").code, "");
  struct answer answer = {0};
  session_create(bench.sessions, &others[0], "mcp", text, "s", NULL, 0, 0, answered, &answer);
  ck_assert_str_eq(answer.code, "argument.too_large");
  session_touch(bench.sessions, &alice, session.id, large, sizeof(large), answered, &answer);
  ck_assert_str_eq(answer.code, "argument.too_large");
  ck_assert(!session_event_append(bench.sessions, &alice, session.id, "s", large, 1001, &event_id, &err));
  ck_assert_str_eq(err.code, "argument.too_large");
  ck_assert(!session_event_append(bench.sessions, &alice, session.id, text, "", 0, &event_id, &err));
  bench_close(&bench);
}
END_TEST

struct seen {
  char text[256];
};

static bool see(void *arg, uint64_t event_id, const char *stream_id, const void *data, size_t length) {
  struct seen *seen = arg;
  size_t at = strlen(seen->text);
  snprintf(seen->text + at, sizeof(seen->text) - at, "%llu:%s:%.*s;", (unsigned long long)event_id, stream_id,
           (int)length, (const char *)data);
  return true;
}

START_TEST(replay_gives_what_followed_on_the_same_stream) {
  struct bench bench = bench_open((struct sessions_options){.events_per_session = 5});
  struct answer session = create(&bench, &alice, "");
  struct error err = {0};
  uint64_t id = 0;
  static const char *const streams[] = {"a", "b", "a", "a", "b", "a"};
  for (size_t i = 0; i < 6; i++) {
    char data = (char)('0' + i);
    ck_assert(session_event_append(bench.sessions, &alice, session.id, streams[i], &data, 1, &id, NULL));
    ck_assert_uint_eq(id, i + 1);
  }
  struct seen seen = {0};
  ck_assert(session_events_replay(bench.sessions, &alice, session.id, 3, see, &seen, NULL));
  ck_assert_str_eq(seen.text, "4:a:3;6:a:5;");
  memset(&seen, 0, sizeof(seen));
  ck_assert(session_events_replay(bench.sessions, &alice, session.id, 5, see, &seen, NULL));
  ck_assert_str_eq(seen.text, "");
  ck_assert(!session_events_replay(bench.sessions, &alice, session.id, 1, see, &seen, &err)); /* dropped: five kept */
  ck_assert_str_eq(err.code, "not_found");
  sessions_close(&bench.sessions);
  sessions_start(&bench, (struct sessions_options){0});
  ck_assert(session_event_append(bench.sessions, &alice, session.id, "a", "x", 1, &id, NULL));
  ck_assert_uint_gt(id, 6); /* an id is never given twice */
  bench_close(&bench);
}
END_TEST

START_TEST(an_idle_session_ends) {
  struct bench bench = bench_open((struct sessions_options){0});
  struct answer session = create(&bench, &alice, "");
  struct session *inside;
  HASH_FIND(hh, bench.sessions->by_id, session.id, SESSION_ID_LENGTH, inside);
  sessions_expire(bench.sessions);
  ck_assert_uint_eq(sessions_count(bench.sessions), 1);
  inside->stored_expires_at_ms = clock_wall_ms() + 1; /* a use brings the row up to date */
  ck_assert_ptr_nonnull(session_find(bench.sessions, &alice, session.id, NULL, NULL));
  ck_assert_int_gt(inside->stored_expires_at_ms, clock_wall_ms() + 50000);
  inside->expires_at_ms = clock_wall_ms() - 1;
  ck_assert_ptr_null(
      session_find(bench.sessions, &alice, session.id, NULL, NULL)); /* over, even before it is cleared */
  sessions_expire(bench.sessions);
  ck_assert_uint_eq(sessions_count(bench.sessions), 0);
  settle(&bench);
  sessions_close(&bench.sessions);
  sessions_start(&bench, (struct sessions_options){0});
  ck_assert_uint_eq(sessions_count(bench.sessions), 0);
  bench_close(&bench);
}
END_TEST

START_TEST(a_commit_that_outlives_the_room_is_answered) {
  struct bench bench = bench_open((struct sessions_options){0});
  struct answer answer = {0};
  session_create(bench.sessions, &alice, "mcp", "1", "s", NULL, 0, 0, answered, &answer);
  sessions_close(&bench.sessions);
  store_close(&bench.store);
  ck_assert_int_eq(answer.calls, 1);
  ck_assert_str_eq(answer.code, "unavailable");
}
END_TEST

START_TEST(a_damaged_row_is_refused_at_start) {
  static const char *const rows[] = {"", "[]", "{}", "{\"created_at_ms\":1,\"expires_at_ms\":2,\"idle_ms\":-5}"};
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    struct error err = {0};
    struct store *store = store_open(&(struct store_options){.backend = "memory"}, NULL);
    struct store_batch *batch = store_batch_create();
    store_batch_put(batch, SESSIONS_NAMESPACE, "0123456789012345678901234567890123456789012", rows[i], strlen(rows[i]),
                    STORE_REVISION_ANY);
    ck_assert(store_commit_sync(store, &batch, NULL, NULL));
    ck_assert_ptr_null(sessions_open(&(struct sessions_options){.store = store}, &err));
    ck_assert_str_eq(err.code, "store.corrupt");
    store_close(&store);
  }
}
END_TEST

TEST_MAIN("sessions", a_session_has_an_unguessable_visible_id_and_survives_a_restart,
          anybody_else_gets_not_found_whatever_they_ask, touching_changes_state_and_end_and_deleting_ends,
          what_is_too_much_is_refused, replay_gives_what_followed_on_the_same_stream, an_idle_session_ends,
          a_commit_that_outlives_the_room_is_answered, a_damaged_row_is_refused_at_start)
