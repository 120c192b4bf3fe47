/* text_test.c: strings, encodings, times and identifiers. */
#include <stdio.h>
#include <string.h>

#include "sdk/base/alloc.h"
#include "sdk/base/clock.h"
#include "sdk/base/id.h"
#include "sdk/base/str.h"
#include "sdk/base/test.h"

START_TEST(numbers_are_read_whole_and_in_range) {
  uint64_t u;
  int64_t i;
  ck_assert(str_parse_u64("18446744073709551615", &u) && u == UINT64_MAX);
  ck_assert(str_parse_i64("-9223372036854775808", &i) && i == INT64_MIN);
  ck_assert(str_parse_i64("9223372036854775807", &i) && i == INT64_MAX);
  static const char *const bad[] = {"", "-", "+1", " 1", "1 ", "1x", "18446744073709551616", "--1"};
  for (size_t n = 0; n < sizeof bad / sizeof bad[0]; n++) {
    ck_assert_msg(!str_parse_u64(bad[n], &u), "%s", bad[n]);
    ck_assert_msg(!str_parse_i64(bad[n], &i), "%s", bad[n]);
  }
  ck_assert(!str_parse_i64("9223372036854775808", &i) && !str_parse_i64("-9223372036854775809", &i));
  ck_assert(!str_parse_u64(NULL, &u) && !str_parse_i64(NULL, &i));
}
END_TEST

START_TEST(texts_compare_copy_and_match) {
  char target[4];
  ck_assert(str_copy(target, sizeof target, "abc") && str_equal(target, "abc"));
  ck_assert(!str_copy(target, sizeof target, "abcd") && str_equal(target, "abc"));
  ck_assert(str_equal(NULL, NULL) && !str_equal(NULL, "") && !str_equal("a", "b"));
  ck_assert(str_starts_with("abc", "ab") && !str_starts_with("a", "ab") && !str_starts_with(NULL, "a"));
  ck_assert(str_ends_with("abc", "bc") && str_ends_with("abc", "") && !str_ends_with("c", "bc"));
  ck_assert(str_is_visible_ascii("a!~") && !str_is_visible_ascii("a b") && !str_is_visible_ascii(""));
  ck_assert(str_is_utf8("\xc3\xa9", 2) && !str_is_utf8("\xc3", 1) && !str_is_utf8("\xed\xa0\x80", 3));
}
END_TEST

START_TEST(globs_match_the_whole_text) {
  static const struct {
    const char *text, *pattern;
    bool matches;
  } rows[] = {
      {"", "", true},           {"", "*", true},
      {"abc", "abc", true},     {"abc", "a*", true},
      {"abc", "*c", true},      {"abc", "a*c", true},
      {"abc", "*b*", true},     {"abc", "b*", false},
      {"abc", "", false},       {"abc", "a*d", false},
      {"aXbXc", "a*b*c", true}, {"abab", "*ab", true},
      {"a.b", "a?b", false},    {"mississippi", "m*iss*pi", true},
      {"abc", "abc*", true},    {"ab", "abc*", false},
  };
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
    ck_assert_msg(str_matches_glob(rows[i].text, rows[i].pattern) == rows[i].matches, "%s ~ %s", rows[i].text,
                  rows[i].pattern);
}
END_TEST

START_TEST(constant_time_equality_is_equality) {
  ck_assert(str_equal_constant_time("abc", 3, "abc", 3) && str_equal_constant_time("", 0, NULL, 0));
  ck_assert(!str_equal_constant_time("abc", 3, "abd", 3) && !str_equal_constant_time("abc", 3, "ab", 2));
  ck_assert(!str_equal_constant_time("ab", 2, "abc", 3) && !str_equal_constant_time("a", 1, NULL, 0));
  ck_assert(!str_equal_constant_time("", 0, "a", 1));
}
END_TEST

START_TEST(hexadecimal_digits_are_lower_case_and_in_order) {
  uint8_t data[256];
  char hex[2 * sizeof(data) + 1], wanted[2 * sizeof(data) + 1];
  for (size_t i = 0; i < sizeof(data); i++) {
    data[i] = (uint8_t)i;
    snprintf(wanted + 2 * i, 3, "%02x", (unsigned)i);
  }
  for (size_t from = 0; from < 8; from++)
    for (size_t length = 0; length <= sizeof(data) - from; length++) {
      str_hex_encode(hex, data + from, length);
      ck_assert_uint_eq(strlen(hex), 2 * length);
      ck_assert_mem_eq(hex, wanted + 2 * from, 2 * length);
    }
}
END_TEST

START_TEST(encodings_round_trip_and_are_strict) {
  uint8_t data[70], back[70];
  char hex[141];
  for (size_t length = 0; length <= sizeof data; length++) {
    id_random_bytes(data, sizeof data);
    str_hex_encode(hex, data, length);
    ck_assert(str_hex_decode(back, length, hex));
    ck_assert(length == 0 || memcmp(back, data, length) == 0);
    char *text = str_base64url_encode(data, length);
    size_t decoded_length;
    uint8_t *decoded = str_base64url_decode(text, strlen(text), &decoded_length);
    ck_assert_ptr_nonnull(decoded);
    ck_assert_uint_eq(decoded_length, length);
    ck_assert(length == 0 || memcmp(decoded, data, length) == 0);
    base_free(decoded);
    base_free(text);
    char padded[STR_BASE64_LENGTH(sizeof data)];
    size_t characters = STR_BASE64_LENGTH(length);
    str_base64_encode(padded, data, length);
    characters -= str_base64_padding(padded, characters);
    ck_assert(str_base64_decode(back, &decoded_length, padded, characters, STR_BASE64));
    ck_assert_uint_eq(decoded_length, length);
    ck_assert(length == 0 || memcmp(back, data, length) == 0);
  }
  static const struct {
    const char *text;
    enum str_base64_alphabet alphabet;
    size_t padding, count; /* SIZE_MAX: refused */
  } rows[] = {
      {"", STR_BASE64, 0, 0},
      {"+/+/", STR_BASE64, 0, 3},
      {"-_-_", STR_BASE64URL, 0, 3},
      {"+_-/", STR_BASE64_EITHER, 0, 3},
      {"-/+/", STR_BASE64, 0, SIZE_MAX},
      {"+_-_", STR_BASE64URL, 0, SIZE_MAX},
      {"Zg==", STR_BASE64, 2, 1},
      {"Zm8=", STR_BASE64, 1, 2},
      {"Zg=", STR_BASE64, 0, SIZE_MAX},
      {"Z===", STR_BASE64, 2, SIZE_MAX},
      {"====", STR_BASE64, 2, SIZE_MAX},
      {"Zh==", STR_BASE64, 2, SIZE_MAX},
  };
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    size_t count, length = strlen(rows[i].text), padding = str_base64_padding(rows[i].text, length);
    ck_assert_uint_eq(padding, rows[i].padding);
    bool ok = str_base64_decode(back, &count, rows[i].text, length - padding, rows[i].alphabet);
    ck_assert_msg(ok == (rows[i].count != SIZE_MAX) && (!ok || count == rows[i].count), "row %zu", i);
  }
  static const char *const bad[] = {"A", "AAAAA", "AA=", "A+", "A/", "AB", "AAB", "A A"};
  size_t length;
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
    ck_assert_msg(!str_base64url_decode(bad[i], strlen(bad[i]), &length), "%s", bad[i]);
  ck_assert(!str_hex_decode(back, 1, "g0") && !str_hex_decode(back, 1, "000") && !str_hex_decode(back, 1, NULL));
}
END_TEST

START_TEST(times_are_written_and_read) {
  static const struct {
    const char *text;
    int64_t us;
    const char *canonical;
  } rows[] = {
      {"1970-01-01T00:00:00Z", 0, "1970-01-01T00:00:00.000000Z"},
      {"2026-07-28T10:00:00.5Z", 1785232800500000, "2026-07-28T10:00:00.500000Z"},
      {"2024-02-29t23:59:59.1234567z", 1709251199123456, "2024-02-29T23:59:59.123456Z"},
      {"2000-01-01T01:30:00+01:30", 946684800000000, "2000-01-01T00:00:00.000000Z"},
      {"1969-12-31T23:59:59.999999Z", -1, "1969-12-31T23:59:59.999999Z"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    int64_t us;
    char text[CLOCK_RFC3339_BYTES];
    ck_assert_msg(clock_parse_rfc3339(rows[i].text, &us), "%s", rows[i].text);
    ck_assert_int_eq(us, rows[i].us);
    clock_format_rfc3339(us, text);
    ck_assert_str_eq(text, rows[i].canonical);
  }
  char text[CLOCK_RFC3339_BYTES];
  clock_format_rfc3339(INT64_MAX, text);
  ck_assert_str_eq(text, "9999-12-31T23:59:59.999999Z");
  clock_format_rfc3339(INT64_MIN, text);
  ck_assert_str_eq(text, "0000-01-01T00:00:00.000000Z");
}
END_TEST

START_TEST(broken_times_are_refused) {
  static const char *const bad[] = {"",
                                    "2026",
                                    "2026-07-28",
                                    "2026-07-28T10:00Z",
                                    "2026-13-01T00:00:00Z",
                                    "2026-00-01T00:00:00Z",
                                    "2026-02-29T00:00:00Z",
                                    "2026-07-32T00:00:00Z",
                                    "2026-07-28T24:00:00Z",
                                    "2026-07-28T10:60:00Z",
                                    "2026-07-28T10:00:61Z",
                                    "2026-07-28T10:00:00",
                                    "2026-07-28T10:00:00.Z",
                                    "2026-07-28T10:00:00Zx",
                                    "2026-07-28T10:00:00+1:00",
                                    "2026-07-28T10:00:00+24:00",
                                    "2026-07-28 10:00:00Z",
                                    "+026-07-28T10:00:00Z"};
  int64_t us;
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
    ck_assert_msg(!clock_parse_rfc3339(bad[i], &us), "%s", bad[i]);
  ck_assert(!clock_parse_rfc3339(NULL, &us));
}
END_TEST

START_TEST(clocks_run_forward) {
  int64_t before = clock_monotonic_us();
  ck_assert_int_ge(clock_monotonic_us(), before);
  ck_assert_int_gt(clock_wall_ms(), INT64_C(1700000000000));
}
END_TEST

START_TEST(identifiers_have_their_form_and_differ) {
  char a[ID_UUID_BYTES], b[ID_UUID_BYTES], hex[33];
  for (int i = 0; i < 200; i++) {
    id_uuid_v4(a);
    id_uuid_v4(b);
    ck_assert_msg(id_is_uuid_v4(a), "%s", a);
    ck_assert_str_ne(a, b);
    id_random_hex(hex, 16);
    ck_assert_uint_eq(strspn(hex, "0123456789abcdef"), 32);
  }
  ck_assert(!id_is_uuid_v4(NULL) && !id_is_uuid_v4("") && !id_is_uuid_v4("00000000-0000-0000-0000-000000000000"));
  ck_assert(!id_is_uuid_v4("0000000000000-4000-8000-000000000000"));
  char *token = id_token("gh");
  ck_assert_uint_eq(strlen(token), 3 + 43);
  ck_assert(str_starts_with(token, "gh_"));
  base_free(token);
}
END_TEST

START_TEST(a_uuid_is_read_strictly_and_written_in_lower_case) {
  static const char *const broken[] = {"",
                                       "00112233-4455-6677-8899-aabbccddeef",
                                       "00112233-4455-6677-8899-aabbccddeeff0",
                                       "0011223-34455-6677-8899-aabbccddeeff",
                                       "00112233-4455-6677-8899-aabbccddeefg",
                                       "00112233-4455-6677-8899 aabbccddeeff",
                                       "{0112233-4455-6677-8899-aabbccddeef}"};
  static const uint8_t wanted[ID_UUID_RAW_BYTES] = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
                                                    0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};
  uint8_t id[ID_UUID_RAW_BYTES];
  char text[ID_UUID_BYTES];
  ck_assert(id_uuid_parse("00112233-4455-6677-8899-AABBccddeeff", ID_UUID_BYTES - 1, id));
  ck_assert_mem_eq(id, wanted, sizeof(id));
  id_uuid_format(id, text);
  ck_assert_str_eq(text, "00112233-4455-6677-8899-aabbccddeeff");
  for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++)
    ck_assert_msg(!id_uuid_parse(broken[i], strlen(broken[i]), id), "%s", broken[i]);
}
END_TEST

START_TEST(a_hexadecimal_digit_has_a_value_and_nothing_else_has) {
  static const char digits[] = "0123456789abcdef", upper[] = "0123456789ABCDEF";
  for (int c = -128; c < 128; c++) {
    const char *found = c == 0 ? NULL : strchr(digits, c), *other = c == 0 ? NULL : strchr(upper, c);
    ck_assert_int_eq(str_hex_value((char)c), found ? (int)(found - digits) : other ? (int)(other - upper) : -1);
  }
}
END_TEST

START_TEST(a_pool_hands_every_random_byte_out_once) {
  struct id_pool pool = {0};
  uint64_t seen[3 * sizeof(pool.bytes) / sizeof(uint64_t)];
  size_t count = sizeof(seen) / sizeof(seen[0]);
  for (size_t i = 0; i < count; i++) {
    id_pool_take(&pool, &seen[i], sizeof(seen[i]));
    for (size_t j = 0; j < i; j++)
      ck_assert_uint_ne(seen[i], seen[j]);
  }
  uint8_t whole[sizeof(pool.bytes)];
  id_pool_take(&pool, whole, 3); /* what is left is too little for the next one: fresh bytes */
  id_pool_take(&pool, whole, sizeof(whole));
  ck_assert_uint_eq(pool.left, 0);
  char a[ID_UUID_BYTES], b[ID_UUID_BYTES];
  id_pool_uuid_v4(&pool, a);
  id_pool_uuid_v4(&pool, b);
  ck_assert(id_is_uuid_v4(a) && id_is_uuid_v4(b));
  ck_assert_str_ne(a, b);
}
END_TEST

TEST_MAIN("base.text", numbers_are_read_whole_and_in_range, texts_compare_copy_and_match, globs_match_the_whole_text,
          constant_time_equality_is_equality, hexadecimal_digits_are_lower_case_and_in_order,
          encodings_round_trip_and_are_strict, times_are_written_and_read, broken_times_are_refused, clocks_run_forward,
          identifiers_have_their_form_and_differ, a_uuid_is_read_strictly_and_written_in_lower_case,
          a_hexadecimal_digit_has_a_value_and_nothing_else_has, a_pool_hands_every_random_byte_out_once)
