/* memory_test.c: allocation, arenas, buffers and secrets keep what they are given and end as one. */
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>

#include "sdk/base/alloc.h"
#include "sdk/base/arena.h"
#include "sdk/base/buf.h"
#include "sdk/base/check.h"
#include "sdk/base/secret.h"
#include "sdk/base/test.h"

START_TEST(allocation_gives_zero_length_and_copies) {
  void *nothing = base_alloc(0);
  ck_assert_ptr_nonnull(nothing);
  base_free(nothing);
  char *text = base_strndup("abcdef", 3);
  ck_assert_str_eq(text, "abc");
  char *taken = BASE_TAKE(text);
  ck_assert_ptr_null(text);
  base_free(taken);
  char *printed = base_asprintf("%d-%s", 7, "x");
  ck_assert_str_eq(printed, "7-x");
  base_free(printed);
}
END_TEST

START_TEST(arena_pieces_are_aligned_zeroed_and_apart) {
  struct arena *arena = arena_create(128);
  unsigned char *before = NULL;
  for (size_t size = 1; size < 3000; size += 37) {
    unsigned char *piece = arena_alloc(arena, size);
    ck_assert_uint_eq((uintptr_t)piece % 16, 0);
    for (size_t i = 0; i < size; i++)
      ck_assert_uint_eq(piece[i], 0);
    memset(piece, 0xee, size);
    ck_assert_ptr_ne(piece, before);
    before = piece;
  }
  char *text = arena_printf(arena, "%s:%d", "port", 4444);
  ck_assert_str_eq(text, "port:4444");
  ck_assert_str_eq(arena_strdup(arena, "copy"), "copy");
  arena_free(&arena);
  ck_assert_ptr_null(arena);
  arena_free(&arena);
}
END_TEST

START_TEST(arena_reset_returns_to_the_first_block) {
  struct arena *arena = arena_create(256);
  size_t at_first = arena_size_bytes(arena);
  arena_alloc(arena, 100000);
  ck_assert_uint_gt(arena_size_bytes(arena), 100000);
  arena_reset(arena);
  ck_assert_uint_eq(arena_size_bytes(arena), at_first);
  arena_free(&arena);
}
END_TEST

START_TEST(buffer_grows_prints_consumes_and_gives_away) {
  struct buf buf = {0};
  for (int i = 0; i < 1000; i++)
    buf_printf(&buf, "%03d", i);
  ck_assert_uint_eq(buf.length, 3000);
  ck_assert_int_eq(buf.data[3000], 0);
  buf_consume(&buf, 2997);
  ck_assert_str_eq(buf.data, "999");
  buf_append_char(&buf, '!');
  buf_append(&buf, NULL, 0);
  buf_append_text(&buf, " end");
  char *text = buf_take(&buf);
  ck_assert_str_eq(text, "999! end");
  ck_assert_ptr_null(buf.data);
  base_free(text);
  char *empty = buf_take(&buf);
  ck_assert_str_eq(empty, "");
  base_free(empty);
  buf_consume(&buf, 0);
  buf_free(&buf);
}
END_TEST

START_TEST(buffer_writes_numbers_in_decimal) {
  static const uint64_t numbers[] = {0, 9, 10, 99, 100, 1234567890, UINT64_MAX};
  struct buf buf = {0};
  for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
    buf_append_u64(&buf, numbers[i]);
    buf_append_char(&buf, ' ');
  }
  ck_assert_str_eq(buf.data, "0 9 10 99 100 1234567890 18446744073709551615 ");
  buf_free(&buf);
}
END_TEST

START_TEST(secrets_compare_exactly_and_vanish) {
  struct secret *secret = secret_from_text("s3cret");
  ck_assert_uint_eq(secret_length(secret), 6);
  ck_assert_str_eq(secret_reveal(secret), "s3cret");
  ck_assert(secret_equal(secret, "s3cret", 6));
  ck_assert(!secret_equal(secret, "s3creT", 6));
  ck_assert(!secret_equal(secret, "s3cre", 5));
  ck_assert(!secret_equal(secret, "s3cret!", 7));
  ck_assert(!secret_equal(secret, "", 0));
  ck_assert(!secret_equal(NULL, "", 0));
  secret_free(&secret);
  ck_assert_ptr_null(secret);
  secret_free(&secret);
  char copy[] = "wipe me";
  secret_wipe(copy, sizeof copy);
  for (size_t i = 0; i < sizeof copy; i++)
    ck_assert_int_eq(copy[i], 0);
}
END_TEST

START_TEST(empty_secrets_are_fine) {
  struct secret *secret = secret_create(NULL, 0);
  ck_assert_str_eq(secret_reveal(secret), "");
  ck_assert(secret_equal(secret, "", 0));
  secret_free(&secret);
}
END_TEST

START_TEST(a_hardened_process_is_not_dumpable) {
  secret_harden_process();
#ifndef __SANITIZE_ADDRESS__
  ck_assert_int_eq(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), 0);
#endif
}
END_TEST

TEST_MAIN("base.memory", allocation_gives_zero_length_and_copies, arena_pieces_are_aligned_zeroed_and_apart,
          arena_reset_returns_to_the_first_block, buffer_grows_prints_consumes_and_gives_away,
          buffer_writes_numbers_in_decimal, secrets_compare_exactly_and_vanish, empty_secrets_are_fine,
          a_hardened_process_is_not_dumpable)
