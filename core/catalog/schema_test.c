/* schema_test.c: JSON Schema and its patterns, by table; and schemas that were made to hurt. */
#include <string.h>

#include "core/catalog/schema_internal.h"
#include "sdk/base/clock.h"
#include "sdk/base/test.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static bool accepts(const char *json, const char *arguments) {
  struct error err = {0};
  struct catalog_schema *schema = catalog_schema_compile(json, strlen(json), &err);
  ck_assert_msg(schema != NULL, "%s: %s", json, err.message);
  bool ok = catalog_schema_check(schema, arguments, strlen(arguments), &err);
  ck_assert_msg(ok || error_is(&err, ERR_INVOKE_ARGUMENTS), "%s", err.code);
  catalog_schema_free(&schema);
  return ok;
}

/* The value stands as member v. */
static const struct {
  const char *schema, *value;
  bool good;
} rules[] = {
    {"{\"type\":\"string\"}", "\"x\"", true},
    {"{\"type\":\"string\"}", "1", false},
    {"{\"type\":[\"string\",\"null\"]}", "null", true},
    {"{\"type\":\"integer\"}", "1.0", true},
    {"{\"type\":\"integer\"}", "1.5", false},
    {"{\"type\":\"number\"}", "3", true},
    {"{\"type\":\"boolean\"}", "false", true},
    {"true", "1", true},
    {"false", "1", false},
    {"{\"minimum\":1,\"maximum\":2}", "2", true},
    {"{\"minimum\":1}", "0.5", false},
    {"{\"exclusiveMinimum\":1}", "1", false},
    {"{\"exclusiveMaximum\":1}", "0.9", true},
    {"{\"minimum\":1,\"exclusiveMinimum\":true}", "1", false},
    {"{\"minimum\":0,\"exclusiveMinimum\":1}", "1", false},
    {"{\"multipleOf\":0.1}", "0.3", true},
    {"{\"multipleOf\":2}", "3", false},
    {"{\"minLength\":2,\"maxLength\":3}", "\"\\u00e4\\u00f6\"", true},
    {"{\"maxLength\":1}", "\"ab\"", false},
    {"{\"pattern\":\"^[a-c]+$\"}", "\"abc\"", true},
    {"{\"pattern\":\"^[a-c]+$\"}", "\"abcd\"", false},
    {"{\"pattern\":\"b\"}", "\"abc\"", true},
    {"{\"enum\":[1,\"a\",{\"b\":[1]}]}", "{\"b\":[1.0]}", true},
    {"{\"enum\":[1,\"a\"]}", "\"b\"", false},
    {"{\"const\":1}", "1.0", true},
    {"{\"const\":null}", "0", false},
    {"{\"items\":{\"type\":\"integer\"}}", "[1,2]", true},
    {"{\"items\":{\"type\":\"integer\"}}", "[1,\"2\"]", false},
    {"{\"prefixItems\":[{\"type\":\"string\"}],\"items\":false}", "[\"a\"]", true},
    {"{\"prefixItems\":[{\"type\":\"string\"}],\"items\":false}", "[\"a\",1]", false},
    {"{\"items\":[{\"type\":\"string\"}],\"additionalItems\":false}", "[\"a\",1]", false},
    {"{\"minItems\":1,\"maxItems\":1}", "[]", false},
    {"{\"uniqueItems\":true}", "[1,2,{\"a\":1,\"b\":2},{\"b\":2,\"a\":2}]", true},
    {"{\"uniqueItems\":true}", "[{\"a\":1,\"b\":2},{\"b\":2,\"a\":1.0}]", false},
    {"{\"contains\":{\"const\":1},\"maxContains\":1}", "[1,2]", true},
    {"{\"contains\":{\"const\":1}}", "[2]", false},
    {"{\"properties\":{\"a\":{\"type\":\"string\"}},\"additionalProperties\":false}", "{\"a\":\"x\"}", true},
    {"{\"properties\":{\"a\":{\"type\":\"string\"}},\"additionalProperties\":false}", "{\"b\":1}", false},
    {"{\"patternProperties\":{\"^x-\":{\"type\":\"integer\"}},\"additionalProperties\":false}", "{\"x-a\":1}", true},
    {"{\"patternProperties\":{\"^x-\":{\"type\":\"integer\"}}}", "{\"x-a\":\"1\"}", false},
    {"{\"propertyNames\":{\"maxLength\":2}}", "{\"abc\":1}", false},
    {"{\"required\":[\"a\"]}", "{}", false},
    {"{\"dependentRequired\":{\"a\":[\"b\"]}}", "{\"a\":1}", false},
    {"{\"dependentRequired\":{\"a\":[\"b\"]}}", "{\"c\":1}", true},
    {"{\"minProperties\":1}", "{}", false},
    {"{\"allOf\":[{\"minimum\":1},{\"maximum\":2}]}", "3", false},
    {"{\"anyOf\":[{\"type\":\"string\"},{\"minimum\":5}]}", "6", true},
    {"{\"anyOf\":[{\"type\":\"string\"},{\"minimum\":5}]}", "4", false},
    {"{\"oneOf\":[{\"minimum\":1},{\"minimum\":2}]}", "1", true},
    {"{\"oneOf\":[{\"minimum\":1},{\"minimum\":2}]}", "2", false},
    {"{\"not\":{\"type\":\"string\"}}", "\"x\"", false},
    {"{\"if\":{\"type\":\"string\"},\"then\":{\"minLength\":2},\"else\":{\"minimum\":1}}", "\"x\"", false},
    {"{\"if\":{\"type\":\"string\"},\"then\":{\"minLength\":2},\"else\":{\"minimum\":1}}", "1", true},
    {"{\"$ref\":\"#/$defs/a~1b\"}", "\"x\"", false},
    {"{\"$ref\":\"#/$defs/tree\"}", "{\"next\":{\"next\":{}}}", true},
    {"{\"$ref\":\"#/$defs/tree\"}", "{\"next\":{\"next\":1}}", false},
    {"{\"format\":\"date\",\"x-unknown\":1}", "\"no date\"", true},
};

static void keyword_try(size_t row) {
  char *schema =
      base_asprintf("{\"type\":\"object\",\"properties\":{\"v\":%s},\"$defs\":{\"a/b\":{\"type\":\"integer\"},"
                    "\"tree\":{\"type\":\"object\",\"properties\":{\"next\":{\"$ref\":\"#/$defs/tree\"}}}}}",
                    rules[row].schema);
  char *arguments = base_asprintf("{\"v\":%s}", rules[row].value);
  ck_assert_msg(accepts(schema, arguments) == rules[row].good, "%s with %s", rules[row].schema, rules[row].value);
  base_free(schema);
  base_free(arguments);
}

START_TEST(each_keyword_is_obeyed) {
  for (size_t i = 0; i < COUNT(rules); i++)
    keyword_try(i);
}
END_TEST

START_TEST(arguments_must_be_one_sound_object) {
  static const char *const bad[] = {"", "[]", "1", "{", "{\"a\":1,\"a\":2}", "{\"a\":1}x", "{\"a\":1e999}", "\xff"};
  for (size_t i = 0; i < COUNT(bad); i++) {
    struct error err = {0};
    ck_assert_msg(!catalog_schema_check(NULL, bad[i], strlen(bad[i]), &err), "%s", bad[i]);
    ck_assert(error_is(&err, ERR_INVOKE_ARGUMENTS));
  }
  ck_assert(catalog_schema_check(NULL, "{\"n\":123456789012345678901234567890}", 36, NULL));
}
END_TEST

START_TEST(schemas_that_cannot_be_compiled_are_refused) {
  static const char *const bad[] = {"1",
                                    "{\"type\":\"text\"}",
                                    "{\"type\":[]}",
                                    "{\"minLength\":-1}",
                                    "{\"minLength\":1.5}",
                                    "{\"minimum\":\"1\"}",
                                    "{\"multipleOf\":0}",
                                    "{\"properties\":[]}",
                                    "{\"properties\":{\"a\":1}}",
                                    "{\"required\":[1]}",
                                    "{\"enum\":1}",
                                    "{\"anyOf\":[]}",
                                    "{\"$ref\":\"http://example.com/schema\"}",
                                    "{\"$ref\":\"#/nowhere\"}",
                                    "{\"$ref\":\"#/%\"}",
                                    "{\"$ref\":\"#/~\"}",
                                    "{\"$ref\":\"#/$ref\"}",
                                    "{\"pattern\":\"(\"}",
                                    "{\"pattern\":\"(?=a)\"}",
                                    "{\"pattern\":\"(a)\\\\1\"}",
                                    "{\"pattern\":\"a{1,99999}\"}",
                                    "{\"pattern\":\"((a{1,1000}){1,1000}){1,1000}\"}",
                                    "{\"a\":1,\"a\":1}"};
  for (size_t i = 0; i < COUNT(bad); i++) {
    struct error err = {0};
    ck_assert_msg(catalog_schema_compile(bad[i], strlen(bad[i]), &err) == NULL, "%s", bad[i]);
    ck_assert_msg(error_is(&err, ERR_CATALOG_INVALID), "%s: %s", bad[i], err.code);
  }
}
END_TEST

/* Whatever a hostile upstream or operator writes: an answer, soon. */
START_TEST(hostile_schemas_are_bounded) {
  char arguments[70000];
  memset(arguments, 'a', sizeof(arguments));
  memcpy(arguments, "{\"v\":\"", 6);
  memcpy(arguments + sizeof(arguments) - 5, "!\"}", 4);
  static const char *const hostile[] = {
      "{\"$ref\":\"#\"}",
      "{\"allOf\":[{\"$ref\":\"#\"},{\"$ref\":\"#\"}]}",
      "{\"not\":{\"$ref\":\"#\"}}",
      "{\"anyOf\":[{\"$ref\":\"#/$defs/a\"}],\"$defs\":{\"a\":{\"anyOf\":[{\"$ref\":\"#\"},{\"$ref\":\"#/$defs/"
      "a\"}]}}}",
      "{\"properties\":{\"v\":{\"pattern\":\"^(a+)+$\"}}}",
      "{\"properties\":{\"v\":{\"pattern\":\"^(a|a)*b$\"}}}",
      "{\"properties\":{\"v\":{\"pattern\":\"^((a{0,30}){0,30})$\"}}}",
  };
  for (size_t i = 0; i < COUNT(hostile); i++) {
    int64_t began_ms = clock_monotonic_ms();
    ck_assert_msg(!accepts(hostile[i], arguments), "%s", hostile[i]);
    ck_assert_msg(clock_monotonic_ms() - began_ms < 2000, "%s", hostile[i]);
  }
  struct buf deep = {0};
  for (int i = 0; i < 100; i++)
    buf_append_text(&deep, "{\"not\":");
  buf_append_text(&deep, "true");
  for (int i = 0; i < 100; i++)
    buf_append_char(&deep, '}');
  ck_assert_ptr_null(catalog_schema_compile(deep.data, deep.length, NULL));
  buf_free(&deep);
  struct buf huge = {0};
  buf_append_text(&huge, "{\"anyOf\":[{}");
  for (int i = 0; i < 30000; i++)
    buf_append_text(&huge, ",{}");
  buf_append_text(&huge, "]}");
  ck_assert_ptr_null(catalog_schema_compile(huge.data, huge.length, NULL));
  buf_free(&huge);
}
END_TEST

static const struct {
  const char *pattern, *text;
  bool good;
} patterns[] = {
    {"", "", true},
    {"^$", "a", false},
    {"a|b|c", "xc", true},
    {"^(a|bc)d$", "bcd", true},
    {"^(a|bc)d$", "bd", false},
    {"^a*$", "", true},
    {"^a+$", "", false},
    {"^a?b$", "ab", true},
    {"^a{2}$", "aa", true},
    {"^a{2}$", "aaa", false},
    {"^a{1,3}$", "aaa", true},
    {"^a{1,3}$", "aaaa", false},
    {"^a{0}b$", "b", true},
    {"^a{2,}$", "a", false},
    {"^a{2,}$", "aaaaa", true},
    {"^(ab){0,2}$", "abab", true},
    {"^(ab){0,2}$", "ababab", false},
    {"^(a|b){2,3}c$", "abac", true},
    {"^(a?){3}$", "aa", true},
    {"^\\d+$", "0123", true},
    {"^\\D$", "1", false},
    {"^\\w\\W$", "_-", true},
    {"^\\s\\S$", " x", true},
    {"^[^a-c]$", "b", false},
    {"^[^a-c]$", "d", true},
    {"^[\\d-]+$", "1-2", true},
    {"^.$", "\xc3\xa4", true},
    {"^[\xc3\xa4-\xc3\xb6]$", "\xc3\xa5", true},
    {"^\\u00e4$", "\xc3\xa4", true},
    {"^\\u{1F600}$", "\xf0\x9f\x98\x80", true},
    {"\\bfoo\\b", "a foo b", true},
    {"\\bfoo\\b", "afoob", false},
    {"^a.c$", "a\nc", false},
    {"^\\.$", "x", false},
    {"^(?:a)(?<n>b)$", "ab", true},
    {"^a+?b*?$", "aab", true},
    {"^x{,3}$", "x{,3}", true},
    {"^\\/$", "/", true},
    {"a$|^b", "xa", true},
    {"^(a*)*$", "aaaa", true},
    {"^(|a)+$", "aa", true},
};

START_TEST(patterns_match_as_ecma_says) {
  for (size_t i = 0; i < COUNT(patterns); i++) {
    const char *why;
    uint32_t budget = 100000;
    struct schema_pattern *pattern = schema_pattern_compile(patterns[i].pattern, strlen(patterns[i].pattern), &why);
    ck_assert_msg(pattern != NULL, "%s: %s", patterns[i].pattern, why);
    enum schema_match answer = schema_pattern_match(pattern, patterns[i].text, strlen(patterns[i].text), &budget);
    ck_assert_msg(answer == (patterns[i].good ? SCHEMA_MATCH_YES : SCHEMA_MATCH_NO), "%s on %s", patterns[i].pattern,
                  patterns[i].text);
    schema_pattern_free(&pattern);
  }
}
END_TEST

/* What a tool says of its result holds, or nobody gets it. */
START_TEST(results_are_any_value_and_held_against_the_schema) {
  static const struct {
    const char *schema, *result;
    bool good;
  } table[] = {
      {"{\"type\":\"object\",\"required\":[\"a\"]}", "{\"a\":1}", true},
      {"{\"type\":\"object\",\"required\":[\"a\"]}", "{\"b\":1}", false},
      {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"}}", "[1,2]", true},
      {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"}}", "[1,\"2\"]", false},
      {"{\"type\":\"object\"}", "3", false},
      {"true", "null", true},
      {"true", "{\"a\":1,\"a\":2}", false},
      {"true", "{\"a\"", false},
      {"true", "", false}, /* none */
  };
  for (size_t i = 0; i < COUNT(table); i++) {
    struct error err = {0};
    struct catalog_schema *schema = catalog_schema_compile(table[i].schema, strlen(table[i].schema), &err);
    ck_assert_ptr_nonnull(schema);
    bool ok = catalog_result_check(schema, table[i].result, strlen(table[i].result), &err);
    ck_assert_msg(ok == table[i].good, "%s against %s: %s", table[i].result, table[i].schema, err.message);
    ck_assert(ok || error_is(&err, ERR_INVOKE_RESULT));
    catalog_schema_free(&schema);
  }
}
END_TEST

START_TEST(a_schema_lives_as_long_as_a_call_holds_it) {
  struct catalog_schema *schema = catalog_schema_compile("{\"type\":\"array\"}", 16, NULL);
  const struct catalog_schema *held = catalog_schema_hold(schema);
  catalog_schema_free(&schema);
  ck_assert_ptr_null(schema);
  ck_assert(!catalog_result_check(held, "{}", 2, NULL));
  catalog_schema_release(&held);
  ck_assert_ptr_null(held);
  held = catalog_schema_hold(NULL);
  catalog_schema_release(&held);
}
END_TEST

TEST_MAIN("catalog.schema", results_are_any_value_and_held_against_the_schema,
          a_schema_lives_as_long_as_a_call_holds_it, each_keyword_is_obeyed, arguments_must_be_one_sound_object,
          schemas_that_cannot_be_compiled_are_refused, hostile_schemas_are_bounded, patterns_match_as_ecma_says)
