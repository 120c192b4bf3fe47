/* json_test.c: what json_check takes and refuses, and that members are found without being fooled. */
#include "sdk/base/json.h"

#include <string.h>

#include "sdk/base/alloc.h"
#include "sdk/base/buf.h"
#include "sdk/base/test.h"

START_TEST(valid_texts_pass) {
  static const char *const texts[] = {
      "null",
      " true ",
      "0",
      "-0",
      "1.5e-3",
      "1E+9",
      "\"\"",
      "[]",
      "{}",
      "[1,2]",
      "{\"a\":[{}]}",
      "[[],{\"b\":null}]",
      "\"\\u0041\\ud83d\\ude00\\n\\/\"",
      "\"\xc3\xa9\xf0\x9f\x98\x80\"",
      "\t\r\n[ 1 , 2 ]\n",
      "{\"a\":1,\"a\":2}",
      "\"0123456789abcdef0123456789\"",
  };
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
    ck_assert_msg(json_check(texts[i], strlen(texts[i]), 8, NULL), "%s", texts[i]);
}
END_TEST

START_TEST(invalid_texts_are_refused) {
  static const char *const texts[] = {
      "",
      " ",
      "nul",
      "nulll",
      "01",
      "-",
      "+1",
      "1.",
      ".5",
      "1e",
      "1e+",
      "0x1",
      "NaN",
      "Infinity",
      "[",
      "]",
      "[1",
      "[1,",
      "[1,]",
      "[,1]",
      "[1 2]",
      "{",
      "{\"a\"",
      "{\"a\":",
      "{\"a\":1",
      "{\"a\":1,",
      "{\"a\":1,}",
      "{a:1}",
      "{1:1}",
      "{\"a\" 1}",
      "[}",
      "{]",
      "[1}",
      "{\"a\":1]",
      "\"",
      "\"a",
      "\"\\\"",
      "\"\\x\"",
      "\"\\u12\"",
      "\"\\u12g4\"",
      "\"\\ud800\"",
      "\"\\ud800\\u0041\"",
      "\"\\udc00\"",
      "\"\\ud800\\ud800\"",
      "\"a\nb\"",
      "\"\x01\"",
      "\"\x80\"",
      "\"\xc3\"",
      "\"\xc0\xaf\"",
      "\"\xed\xa0\x80\"",
      "\"\xf4\x90\x80\x80\"",
      "\"\xf8\x88\x80\x80\x80\"",
      "1 2",
      "[] []",
      "\xef\xbb\xbf{}",
      "'a'",
      "[1]x",
      "true1",
      "// x\n1",
      "[1/**/]",
      "\"12345678\x1f\"",
  };
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    struct error err;
    ck_assert_msg(!json_check(texts[i], strlen(texts[i]), 8, &err), "%s", texts[i]);
    ck_assert(error_is(&err, ERR_JSON_MALFORMED));
  }
  ck_assert(!json_check("1\0", 2, 8, NULL));
  ck_assert(!json_check("\"a\0b\"", 5, 8, NULL));
}
END_TEST

START_TEST(depth_is_bounded_exactly) {
  struct error err;
  ck_assert(json_check("1", 1, 0, &err));
  ck_assert(json_check("[[{}]]", 6, 3, &err));
  ck_assert(!json_check("[[{}]]", 6, 2, &err));
  ck_assert(error_is(&err, ERR_JSON_TOO_DEEP));
  enum { LEVELS = 1000000 };
  char *deep = base_alloc(LEVELS);
  memset(deep, '[', LEVELS);
  ck_assert(!json_check(deep, LEVELS, 5000, &err) && error_is(&err, ERR_JSON_TOO_DEEP));
  base_free(deep);
}
END_TEST

START_TEST(every_level_remembers_its_bracket) {
  struct buf text = {0};
  for (int i = 0; i < 100; i++)
    buf_append_text(&text, i % 3 ? "{\"k\":" : "[");
  buf_append_text(&text, "0");
  for (int i = 99; i >= 0; i--)
    buf_append_text(&text, i % 3 ? "}" : "]");
  ck_assert(json_check(text.data, text.length, 100, NULL));
  for (size_t i = text.length - 100; i < text.length; i++) {
    char saved = text.data[i];
    text.data[i] = saved == '}' ? ']' : '}';
    ck_assert(!json_check(text.data, text.length, 100, NULL));
    text.data[i] = saved;
  }
  buf_free(&text);
}
END_TEST

START_TEST(members_are_found_by_their_decoded_key) {
  static const struct {
    const char *json, *key, *expected;
  } rows[] = {
      {"{\"a\":1}", "a", "1"},
      {" { \"b\" : [1, {\"a\":2}] , \"a\" : {\"x\":\"}\"} } ", "a", "{\"x\":\"}\"}"},
      {"{\"s\":\"\\\"a\\\":7\",\"a\":3}", "a", "3"},
      {"{\"\\u0061\":4}", "a", "4"},
      {"{\"a\":1,\"a\":2}", "a", "1"},
      {"{\"\":5}", "", "5"},
      {"{\"ab\":1}", "a", NULL},
      {"{\"a\":1}", "ab", NULL},
      {"[\"a\",1]", "a", NULL},
      {"{}", "a", NULL},
      {"", "a", NULL},
      {"{\"a\":", "a", NULL},
      {"{\"a\"", "a", NULL},
      {"{\"b\":[,\"a\":1}", "a", NULL},
      {"{\"b\":1 \"a\":1}", "a", NULL},
  };
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    const char *value;
    size_t length;
    bool found = json_member(rows[i].json, strlen(rows[i].json), rows[i].key, &value, &length);
    ck_assert_msg(found == (rows[i].expected != NULL), "%s", rows[i].json);
    if (found) {
      ck_assert_uint_eq(length, strlen(rows[i].expected));
      ck_assert_mem_eq(value, rows[i].expected, length);
    }
  }
}
END_TEST

START_TEST(walking_meets_every_item_in_order) {
  static const char text[] = " [1, \"a,]\" ,[2,3],{} ] ";
  static const char *const items[] = {"1", "\"a,]\"", "[2,3]", "{}"};
  struct json_cursor cursor;
  const char *key, *value;
  size_t key_length, length, count = 0;
  ck_assert(!json_walk(NULL, 0, '{', &cursor)); /* an absent member */
  ck_assert(!json_walk(text, strlen(text), '{', &cursor));
  ck_assert(json_walk(text, strlen(text), '[', &cursor));
  for (; json_next(&cursor, &key, &key_length, &value, &length); count++) {
    ck_assert_ptr_null(key);
    ck_assert_uint_eq(length, strlen(items[count]));
    ck_assert_mem_eq(value, items[count], length);
  }
  ck_assert_uint_eq(count, 4);
}
END_TEST

START_TEST(strings_decode_or_answer_null) {
  static const struct {
    const char *token, *text;
  } rows[] = {
      {"\"\"", ""},          {"\"a\\n\\u00e9\\ud83d\\ude00\"", "a\n\xc3\xa9\xf0\x9f\x98\x80"},
      {"\"\\u0000\"", NULL}, {"\"a", NULL},
      {"a\"", NULL},         {"\"", NULL},
      {"1", NULL},           {"\"a\"b\"", NULL},
      {"\"\\\"", NULL},
  };
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    char *text = json_string_decode(rows[i].token, strlen(rows[i].token));
    if (rows[i].text)
      ck_assert_str_eq(text, rows[i].text);
    else
      ck_assert_ptr_null(text);
    base_free(text);
  }
}
END_TEST

START_TEST(written_strings_read_back) {
  struct buf buf = {0};
  static const char text[] = "q\"\\ \b\f\n\r\t\x01 \xc3\xa9 end";
  buf_append_json_string(&buf, text, strlen(text));
  ck_assert(json_check(buf.data, buf.length, 0, NULL));
  char *back = json_string_decode(buf.data, buf.length);
  ck_assert_str_eq(back, text);
  base_free(back);
  buf_clear(&buf);
  buf_append_json_string(&buf, "a\xff\xc3", 3);
  ck_assert_str_eq(buf.data, "\"a\xef\xbf\xbd\xef\xbf\xbd\"");
  buf_free(&buf);
}
END_TEST

TEST_MAIN("base.json", valid_texts_pass, invalid_texts_are_refused, depth_is_bounded_exactly,
          every_level_remembers_its_bracket, members_are_found_by_their_decoded_key, walking_meets_every_item_in_order,
          strings_decode_or_answer_null, written_strings_read_back)
