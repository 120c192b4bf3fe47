/* message_test.c: the bounded queue in front of a stream: what it refuses, and that "not writable" and "becomes
 * writable" are told in turns. */
#include "core/rpc/core_rpc_internal.h"
#include "sdk/base/test.h"

enum { BOUND = 1000 };

static bool push(struct message_queue *queue, size_t length) {
  uint8_t *data;
  return message_queue_push(queue, message_reserve(length, &data));
}

START_TEST(a_writable_queue_takes_one_message_of_any_size) {
  static const struct {
    size_t first, second;
    bool second_fits, writable_after_first, writable_in_the_end;
  } rows[] = {
      {0, 0, true, true, true},       {1, BOUND - 2, true, true, true},     {1, BOUND - 1, true, true, false},
      {700, 700, true, true, false},  {BOUND - 1, 5000, true, true, false}, {BOUND, 0, false, false, false},
      {5000, 1, false, false, false},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    struct message_queue queue = {.max_bytes = BOUND};
    ck_assert(push(&queue, rows[i].first));
    ck_assert_msg(message_queue_is_writable(&queue) == rows[i].writable_after_first, "row %zu", i);
    ck_assert_msg(push(&queue, rows[i].second) == rows[i].second_fits, "row %zu", i);
    ck_assert_msg(message_queue_is_writable(&queue) == rows[i].writable_in_the_end, "row %zu", i);
    message_queue_clear(&queue, false);
  }
}
END_TEST

START_TEST(a_full_queue_stays_full_until_it_has_told_that_it_is_not) {
  struct message_queue queue = {.max_bytes = BOUND};
  for (unsigned i = 0; i < 4; i++)
    ck_assert(push(&queue, 300));
  ck_assert(!push(&queue, 1));
  message_queue_pop(&queue); /* 900: under the bound, above half of it */
  ck_assert(!message_queue_take_writable(&queue));
  ck_assert(!message_queue_is_writable(&queue));
  ck_assert(!push(&queue, 1));
  message_queue_pop(&queue);
  ck_assert(!message_queue_take_writable(&queue));
  message_queue_pop(&queue);
  ck_assert(message_queue_take_writable(&queue));
  ck_assert(message_queue_is_writable(&queue));
  ck_assert(!message_queue_take_writable(&queue));
  message_queue_clear(&queue, false);
}
END_TEST

TEST_MAIN("core_rpc.message", a_writable_queue_takes_one_message_of_any_size,
          a_full_queue_stays_full_until_it_has_told_that_it_is_not)
