/* header_test.c: which bytes a field name, a field value and a host may hold: every byte, at every place of a word. */
#include "sdk/base/test.h"

#include <string.h>

#include "sdk/base/arena.h"
#include "sdk/http/http_internal.h"

#define PLACES 20 /* more than two words of the scan */

/* The only byte that is not 'a' is `byte`, at `place`. */
static void text_make(char text[static PLACES + 1], size_t place, int byte) {
  memset(text, 'a', PLACES);
  text[PLACES] = '\0';
  text[place] = (char)byte;
}

START_TEST(values_hold_no_control_character_but_tab) {
  char text[PLACES + 1];
  for (int byte = 0; byte < 256; byte++) {
    bool expected = byte == '\t' || (byte >= 0x20 && byte != 0x7f);
    for (size_t place = 0; place < PLACES; place++) {
      text_make(text, place, byte);
      ck_assert_msg(http_value_is_valid(text, PLACES) == expected, "%02x at %zu", (unsigned)byte, place);
    }
  }
  ck_assert(http_value_is_valid("", 0));
  ck_assert(http_value_is_valid("\xff\xff\xff\xff\x80\x80\x80\x80\t", 9));
  ck_assert(!http_value_is_valid("\t\t\t\t\t\t\t\x01", 8));
}
END_TEST

START_TEST(tokens_hold_the_characters_of_the_standard) {
  char text[PLACES + 1];
  for (int byte = 1; byte < 256; byte++) {
    bool expected = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') ||
                    strchr("!#$%&'*+-.^_`|~", byte) != NULL;
    text_make(text, 7, byte);
    ck_assert_msg(http_token_is_valid(text, PLACES) == expected, "%02x", (unsigned)byte);
  }
  text_make(text, 7, 0);
  ck_assert(!http_token_is_valid(text, PLACES));
  ck_assert(!http_token_is_valid("", 0));
}
END_TEST

START_TEST(hosts_hold_no_delimiter) {
  char text[PLACES + 1];
  for (int byte = 1; byte < 256; byte++) {
    bool expected = byte > 0x20 && byte < 0x7f && strchr("/?#@\\<>\"{}|^`,;", byte) == NULL;
    text_make(text, 7, byte);
    ck_assert_msg(target_host_is_valid(text) == expected, "%02x", (unsigned)byte);
  }
}
END_TEST

START_TEST(fields_are_found_by_name_in_any_case) {
  struct http_request request = {.magic = HTTP_REQUEST_MAGIC, .arena = arena_create(0)};
  size_t index = 0;
  for (int i = 0; i < 30; i++) /* more than the first room */
    request_header_push(&request, i % 2 ? "X-Other" : "x-Name", i % 2 ? "other" : "name");
  request_header_push(&request, "Accept", "1");
  request_header_push(&request, "aCCepT", "2");
  request_header_push(&request, "Bccept", "3");
  request_header_push(&request, "AccepT2", "4");
  ck_assert_str_eq(http_request_header(&request, "ACCEPT"), "1");
  ck_assert_str_eq(http_request_header_next(&request, "accept", &index), "1");
  ck_assert_str_eq(http_request_header_next(&request, "accept", &index), "2");
  ck_assert_ptr_null(http_request_header_next(&request, "accept", &index));
  ck_assert_ptr_null(http_request_header(&request, ""));
  ck_assert_ptr_null(http_request_header(&request, "x-Namf"));
  ck_assert_str_eq(http_request_header_at(&request, 1).value, "other");
  arena_free(&request.arena);
}
END_TEST

TEST_MAIN("http.header", values_hold_no_control_character_but_tab, tokens_hold_the_characters_of_the_standard,
          hosts_hold_no_delimiter, fields_are_found_by_name_in_any_case)
