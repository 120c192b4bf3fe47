/* event_index_test.c: the hashes of the index, which are stored: they are the same for ever. */
#include "core/store/store_internal.h"
#include "sdk/base/test.h"

START_TEST(what_was_stored_is_found_by_the_hashes_of_today) {
  static const char text[] = "0123456789abcdef0123456789abcdef0123";
  static const struct {
    enum event_index_kind kind;
    size_t length;
    uint64_t hash;
  } rows[] = {
      {EVENT_INDEX_ID, 0, 0x7b52fb2fac02910d},       {EVENT_INDEX_ID, 15, 0x7af0e3a3f29cd13c},
      {EVENT_INDEX_ID, 16, 0x2b839e3b895ef683},      {EVENT_INDEX_ID, 36, 0x3b93cdd893a837a3},
      {EVENT_INDEX_TRACE, 0, 0x539ea6206cdee92f},    {EVENT_INDEX_TRACE, 15, 0x53d8a0e0e75a9eb0},
      {EVENT_INDEX_TRACE, 16, 0xefe32dd60a72962a},   {EVENT_INDEX_TRACE, 36, 0x54c961088b89751f},
      {EVENT_INDEX_CONTEXT, 0, 0x43c1246b54c65127},  {EVENT_INDEX_CONTEXT, 15, 0xe63315d509e2327d},
      {EVENT_INDEX_CONTEXT, 16, 0x2d4eb90b7f55fee0}, {EVENT_INDEX_CONTEXT, 36, 0x1077357ff6842bd9},
  };
  uint8_t salt[EVENT_INDEX_SALT_BYTES];
  for (size_t i = 0; i < sizeof(salt); i++)
    salt[i] = (uint8_t)i;
  struct event_index *index = event_index_create(salt);
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
    ck_assert_uint_eq(event_index_hash(index, rows[i].kind, text, rows[i].length), rows[i].hash);
  event_index_free(&index);
}
END_TEST

TEST_MAIN("store.event_index", what_was_stored_is_found_by_the_hashes_of_today)
