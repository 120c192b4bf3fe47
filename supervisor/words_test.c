/* words_test.c: lines of children: kept, cut, cleaned, forwarded whole. */
#include "supervisor/words.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sdk/base/test.h"

static struct words words;

static void feed(const char *text) {
  words_feed(&words, "m", -1, text, strlen(text));
}

START_TEST(the_last_sixteen_lines_are_kept_in_order) {
  char line[32];
  for (int i = 0; i < 40; i++) {
    snprintf(line, sizeof(line), "line %d\n", i);
    feed(line);
  }
  ck_assert_str_eq(words_line(&words.kept, 0), "line 24");
  ck_assert_str_eq(words_line(&words.kept, 15), "line 39");
  ck_assert_ptr_null(words_line(&words.kept, 16));
  words_reset(&words);
  ck_assert_ptr_null(words_line(&words.kept, 0));
}
END_TEST

START_TEST(a_line_in_pieces_is_one_line) {
  feed("ab");
  feed("cd\n\n\nef");
  ck_assert_str_eq(words_line(&words.kept, 0), "abcd");
  ck_assert_ptr_null(words_line(&words.kept, 1));
  words_finish(&words, "m", -1);
  ck_assert_str_eq(words_line(&words.kept, 1), "ef");
}
END_TEST

static const struct {
  const char *line, *kept;
} unclean[] = {{"a\tb\x1b[31mc\x7f\n", "a b [31mc \0"},
               {"caf\xc3\xa9\n", "caf\xc3\xa9"},
               {"caf\xe9 x\n", "caf? x"},
               {"\xc0\x80\n", "??"}};

START_TEST(unclean_lines_become_clean_text) {
  for (size_t i = 0; i < sizeof(unclean) / sizeof(unclean[0]); i++) {
    words_reset(&words);
    feed(unclean[i].line);
    ck_assert_str_eq(words_line(&words.kept, 0), unclean[i].kept);
  }
}
END_TEST

START_TEST(a_cut_line_ends_with_a_whole_character) {
  for (int i = 0; i < 254; i++)
    feed("x");
  feed("\xc3\xa9 and more\n");
  ck_assert_uint_eq(strlen(words_line(&words.kept, 0)), 254);
}
END_TEST

START_TEST(an_endless_line_goes_on_in_parts) {
  char block[3000];
  memset(block, 'y', sizeof(block));
  for (int i = 0; i < 100; i++)
    words_feed(&words, "m", -1, block, sizeof(block));
  ck_assert_uint_eq(words.kept.count, WORDS_LINES);
  ck_assert_uint_lt(words.partial_length, WORDS_PARTIAL_BYTES);
}
END_TEST

START_TEST(a_full_output_drops_and_never_blocks) {
  int ends[2];
  ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
  for (int i = 0; i < 100000; i++)
    words_feed(&words, "m", ends[1], "{\"a\":1}\n", 8);
  ck_assert_uint_gt(words.dropped, 0);
  char got[9] = "";
  ck_assert_int_eq(read(ends[0], got, 8), 8);
  ck_assert_str_eq(got, "{\"a\":1}\n");
}
END_TEST

TEST_MAIN("supervisor.words", the_last_sixteen_lines_are_kept_in_order, a_line_in_pieces_is_one_line,
          unclean_lines_become_clean_text, a_cut_line_ends_with_a_whole_character, an_endless_line_goes_on_in_parts,
          a_full_output_drops_and_never_blocks)
