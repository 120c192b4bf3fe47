/* yaml_test.c: YAML to JSON and back: the core schema, places in errors, and files that mean harm. */
#include <stdio.h>
#include <string.h>

#include "sdk/base/json.h"
#include "sdk/base/test.h"
#include "supervisor/ctl/ctl_internal.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static bool read_text(const char *text, size_t length, struct ctl_documents *documents, struct error *err) {
  *documents = (struct ctl_documents){0};
  *err = (struct error){0};
  return ctl_yaml_read("f.yaml", text, length, documents, err);
}

START_TEST(plain_scalars_follow_the_core_schema_and_everything_else_is_text) {
  static const struct {
    const char *yaml, *json;
  } cases[] = {
      {"null", "null"},
      {"Null", "null"},
      {"NULL", "null"},
      {"~", "null"},
      {"", "null"},
      {"true", "true"},
      {"True", "true"},
      {"FALSE", "false"},
      {"0", "0"},
      {"-0", "-0"},
      {"+12", "12"},
      {"007", "7"},
      {"0o17", "15"},
      {"0xfF", "255"},
      {"1.5", "1.5"},
      {".5", "0.5"},
      {"1.", "1.0"},
      {"-.5", "-0.5"},
      {"1e3", "1e3"},
      {"1E-3", "1e-3"},
      {"+1.e+2", "1.0e+2"},
      {"12345678901234567890123", "12345678901234567890123"},
      {"yes", "\"yes\""},
      {"no", "\"no\""},
      {"on", "\"on\""},
      {"tRue", "\"tRue\""},
      {"1_000", "\"1_000\""},
      {"12:30", "\"12:30\""},
      {"2026-11-21", "\"2026-11-21\""},
      {"0b11", "\"0b11\""},
      {"0x", "\"0x\""},
      {"0xg", "\"0xg\""},
      {"0o9", "\"0o9\""},
      {"1e", "\"1e\""},
      {".", "\".\""},
      {"+", "\"+\""},
      {"1.2.3", "\"1.2.3\""},
      {"'1'", "\"1\""},
      {"\"true\"", "\"true\""},
      {"!!str 5", "\"5\""},
      {"! 5", "\"5\""},
      {"\"a\\tb\\u00e9\"", "\"a\\tb\xC3\xA9\""},
      {"|-\n   two\n   lines", "\"two\\nlines\""},
      {"[1, a, {b: [], c: {}}]", "[1,\"a\",{\"b\":[],\"c\":{}}]"},
  };
  for (size_t i = 0; i < COUNT(cases); i++) {
    struct ctl_documents documents;
    struct error err;
    struct buf text = {0}, wanted = {0};
    buf_printf(&text, "v: %s\n", cases[i].yaml);
    buf_printf(&wanted, "{\"v\":%s}", cases[i].json);
    ck_assert_msg(read_text(text.data, text.length, &documents, &err), "%s: %s", cases[i].yaml, err.message);
    ck_assert_uint_eq(documents.count, 1);
    ck_assert_str_eq(documents.items[0].json, wanted.data);
    ck_assert(json_check(documents.items[0].json, documents.items[0].length, JSON_DEPTH_MAX, NULL));
    ctl_documents_free(&documents);
    buf_free(&text);
    buf_free(&wanted);
  }
}
END_TEST

START_TEST(documents_keep_their_lines_and_empty_ones_are_left_out) {
  static const char text[] =
      "# only a comment\n---\n---\nkind: A\n---\n\n# more\nkind: B\n...\n---\n{\"kind\": \"C\"}\n";
  static const struct {
    const char *json;
    unsigned line;
  } wanted[] = {{"{\"kind\":\"A\"}", 4}, {"{\"kind\":\"B\"}", 8}, {"{\"kind\":\"C\"}", 11}};
  struct ctl_documents documents;
  struct error err;
  ck_assert_msg(read_text(text, sizeof(text) - 1, &documents, &err), "%s", err.message);
  ck_assert_uint_eq(documents.count, COUNT(wanted));
  for (size_t i = 0; i < COUNT(wanted); i++) {
    ck_assert_str_eq(documents.items[i].json, wanted[i].json);
    ck_assert_uint_eq(documents.items[i].line, wanted[i].line);
    ck_assert_str_eq(documents.items[i].file, "f.yaml");
  }
  ctl_documents_free(&documents);
}
END_TEST

START_TEST(aliases_stand_for_what_they_name) {
  static const char text[] = "a: &x {k: [1, 2]}\nb: *x\nc: &x other\nd: *x\n&k key: 1\nkeys: {*k : 2}\n";
  struct ctl_documents documents;
  struct error err;
  ck_assert_msg(read_text(text, sizeof(text) - 1, &documents, &err), "%s", err.message);
  ck_assert_str_eq(documents.items[0].json, "{\"a\":{\"k\":[1,2]},\"b\":{\"k\":[1,2]},\"c\":\"other\",\"d\":\"other\","
                                            "\"key\":1,\"keys\":{\"key\":2}}");
  ctl_documents_free(&documents);
}
END_TEST

START_TEST(flaws_are_refused_with_file_line_and_column) {
  static const struct {
    const char *yaml, *message; /* how it begins */
  } cases[] = {
      {"a: 1\nb: 2\na: 3\n", "f.yaml:3:1: the key \"a\" appears twice"},
      {"a: 1\n'a': 3\n", "f.yaml:2:1: the key \"a\" appears twice"},
      {"s:\n  - {x: 1, y: 2, x: 1}\n", "f.yaml:2:18: the key \"x\" appears twice"},
      {"a:\n\t- b\n", "f.yaml:2:1: "},
      {"a: [1, 2\n", "f.yaml:2:1: "},
      {"- a\n", "f.yaml:1:1: a document is a mapping"},
      {"text\n", "f.yaml:1:1: a document is a mapping"},
      {"a: 1\n---\n5\n", "f.yaml:3:1: a document is a mapping"},
      {"a: *nobody\n", "f.yaml:1:4: an alias without an anchor"},
      {"a: &x [*x]\n", "f.yaml:1:8: an alias to what it is part of"},
      {"a: &x {b: {c: *x}}\n", "f.yaml:1:15: an alias to what it is part of"},
      {"a: &x 1\n---\nb: *x\n", "f.yaml:3:4: an alias without an anchor"},
      {"[a, b]: 1\n", "f.yaml:1:1: a key is a text"},
      {"? {a: b}\n: 1\n", "f.yaml:1:3: a key is a text"},
      {"a: &x {k: 1}\nb:\n  <<: *x\n", "f.yaml:3:3: merge keys"},
      {"a: !!binary aGk=\n", "f.yaml:1:4: this tag"},
      {"a: !mine {b: 1}\n", "f.yaml:1:4: this tag"},
      {"a: !!python/object:os.system {}\n", "f.yaml:1:4: this tag"},
      {"a: .inf\n", "f.yaml:1:4: this number has no JSON form"},
      {"a: -.INF\n", "f.yaml:1:4: this number"},
      {"a: .nan\n", "f.yaml:1:4: this number"},
      {"a: 0xffffffffffffffffff\n", "f.yaml:1:4: this number"},
      {"a: \"x\\0y\"\n", "f.yaml:1:4: U+0000"},
      {"a: 1\nb: \xff\xfe\n", "f.yaml:2:4: "},
      {"a: \xC3\x28\n", "f.yaml:1:5: "},
      {"a: \x01\n", "f.yaml:1:4: "},
      {"\xFF\xFE"
       "a\0:\0 ",
       "f.yaml:1:1: "},
      {"%YAML 3.0\n---\na: 1\n", "f.yaml:1:1: "},
  };
  for (size_t i = 0; i < COUNT(cases); i++) {
    struct ctl_documents documents;
    struct error err;
    ck_assert_msg(!read_text(cases[i].yaml, strlen(cases[i].yaml), &documents, &err), "case %zu was taken", i);
    ck_assert_msg(error_is(&err, ERR_CONFIG_SYNTAX), "case %zu: %s", i, err.code);
    ck_assert_msg(strncmp(err.message, cases[i].message, strlen(cases[i].message)) == 0, "case %zu: %s, not %s", i,
                  err.message, cases[i].message);
    ctl_documents_free(&documents);
  }
}
END_TEST

START_TEST(an_alias_bomb_ends_in_an_error) {
  struct buf text = {0};
  struct ctl_documents documents;
  struct error err;
  buf_append_text(&text, "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
  for (int i = 1; i < 12; i++) {
    buf_printf(&text, "a%d: &a%d [", i, i);
    for (int k = 0; k < 9; k++)
      buf_printf(&text, "%s*a%d", k ? ", " : "", i - 1);
    buf_append_text(&text, "]\n");
  }
  ck_assert(!read_text(text.data, text.length, &documents, &err));
  ck_assert_str_eq(err.code, error_code_text(ERR_ARGUMENT_TOO_LARGE));
  ctl_documents_free(&documents);
  buf_free(&text);
}
END_TEST

START_TEST(depth_is_bounded_also_through_aliases) {
  struct ctl_documents documents;
  struct error err;
  struct buf text = {0};
  buf_append_text(&text, "a: ");
  for (int i = 0; i < 60; i++)
    buf_append_char(&text, '[');
  for (int i = 0; i < 60; i++)
    buf_append_char(&text, ']');
  ck_assert_msg(read_text(text.data, text.length, &documents, &err), "%s", err.message);
  ctl_documents_free(&documents);
  for (int depth = 70; depth <= 100000; depth *= 30) {
    buf_clear(&text);
    buf_append_text(&text, "a: ");
    for (int i = 0; i < depth; i++)
      buf_append_text(&text, i % 2 ? "[" : "{b: ");
    ck_assert(!read_text(text.data, text.length, &documents, &err));
    ck_assert_ptr_nonnull(strstr(err.message, "deep"));
    ctl_documents_free(&documents);
  }
  buf_clear(&text);
  buf_append_text(&text, "a0: &a0 []\n");
  for (int i = 1; i < 80; i++)
    buf_printf(&text, "a%d: &a%d [*a%d]\n", i, i, i - 1);
  ck_assert(!read_text(text.data, text.length, &documents, &err));
  ck_assert_ptr_nonnull(strstr(err.message, "nested too deeply"));
  ctl_documents_free(&documents);
  buf_free(&text);
}
END_TEST

START_TEST(size_and_number_of_values_are_bounded) {
  struct ctl_documents documents;
  struct error err;
  struct buf text = {0};
  char *spaces = buf_reserve(&text, CTL_YAML_BYTES_MAX + 1);
  memset(spaces, ' ', CTL_YAML_BYTES_MAX + 1);
  ck_assert(!read_text(spaces, CTL_YAML_BYTES_MAX + 1, &documents, &err));
  ck_assert_str_eq(err.code, error_code_text(ERR_ARGUMENT_TOO_LARGE));
  buf_free(&text);
  buf_append_text(&text, "a: [");
  for (int i = 0; i < 600000; i++)
    buf_append_text(&text, "1,");
  buf_append_text(&text, "]\n");
  ck_assert(!read_text(text.data, text.length, &documents, &err));
  ck_assert_str_eq(err.code, error_code_text(ERR_ARGUMENT_TOO_LARGE));
  ctl_documents_free(&documents);
  buf_clear(&text);
  for (int i = 0; i < 2000; i++)
    buf_printf(&text, "k%d: &a%d x\n", i, i);
  ck_assert(!read_text(text.data, text.length, &documents, &err));
  ck_assert_str_eq(err.code, error_code_text(ERR_ARGUMENT_TOO_LARGE));
  ctl_documents_free(&documents);
  buf_free(&text);
}
END_TEST

START_TEST(a_mapping_with_many_keys_is_read_in_reasonable_time) {
  struct ctl_documents documents;
  struct error err;
  struct buf text = {0};
  for (int i = 0; i < 100000; i++)
    buf_printf(&text, "key%d: %d\n", i, i);
  ck_assert_msg(read_text(text.data, text.length, &documents, &err), "%s", err.message);
  ctl_documents_free(&documents);
  buf_append_text(&text, "key4711: again\n");
  ck_assert(!read_text(text.data, text.length, &documents, &err));
  ck_assert_str_eq(err.message, "f.yaml:100001:1: the key \"key4711\" appears twice");
  ctl_documents_free(&documents);
  buf_free(&text);
}
END_TEST

START_TEST(json_becomes_yaml_that_reads_as_the_same_json) {
  static const char *const values[] = {
      "\"\"",
      "\"yes\"",
      "\"No\"",
      "\"y\"",
      "\"null\"",
      "\"~\"",
      "\"1\"",
      "\"1.5\"",
      "\"0x10\"",
      "\"1e3\"",
      "\"12:30:45\"",
      "\"1_000\"",
      "\"2026-11-21\"",
      "\".inf\"",
      "\"- a\"",
      "\"a: b\"",
      "\"#c\"",
      "\"a #c\"",
      "\"'q'\"",
      "\"\\\"q\\\"\"",
      "\" leading\"",
      "\"trailing \"",
      "\"a\\nb\"",
      "\"a\\n\"",
      "\"\\n\"",
      "\"\\tx\"",
      "\"\\u0007\"",
      "\"\xC3\xA9\"",
      "\"\xF0\x9F\x98\x80\"",
      "\"*a\"",
      "\"&a\"",
      "\"!t\"",
      "\"%\"",
      "\"@\"",
      "\"`\"",
      "\"<<\"",
      "\"---\"",
      "\"...\"",
      "\"a\\r\\nb\"",
      "\"\\u2028\"",
      "\"\xEF\xBB\xBF\"",
      "\"{}\"",
      "1",
      "-1.5e3",
      "true",
      "null",
      "[]",
      "{}",
      "[[],[1,[2]]]",
      "{\"a\":{\"b\":[{\"c\":null}]}}",
  };
  for (size_t i = 0; i < COUNT(values); i++) {
    struct buf json = {0}, yaml = {0};
    struct ctl_documents documents;
    struct error err;
    buf_printf(&json, "{\"v\":%s}", values[i]);
    ctl_yaml_write(json.data, json.length, &yaml);
    ck_assert_msg(read_text(yaml.data, yaml.length, &documents, &err), "%s: %s\n%s", values[i], err.message, yaml.data);
    struct buf again = {0}, first = {0};
    ctl_json_pretty(documents.items[0].json, documents.items[0].length, &again);
    ctl_yaml_write(documents.items[0].json, documents.items[0].length, &first);
    ck_assert_str_eq(first.data, yaml.data);
    ctl_documents_free(&documents);
    buf_free(&json);
    buf_free(&yaml);
    buf_free(&again);
    buf_free(&first);
  }
}
END_TEST

START_TEST(texts_that_yaml_cannot_hold_do_not_end_the_program) {
  static const char *const values[] = {"\"\\u0000\"", "\"\\ud800\"", "\"a\\u0000b\""};
  for (size_t i = 0; i < COUNT(values); i++) {
    struct buf json = {0}, yaml = {0};
    buf_printf(&json, "{\"v\":%s}", values[i]);
    if (json_check(json.data, json.length, JSON_DEPTH_MAX, NULL)) {
      ctl_yaml_write(json.data, json.length, &yaml);
      ck_assert_ptr_nonnull(strstr(yaml.data, "\\u"));
    }
    buf_free(&json);
    buf_free(&yaml);
  }
}
END_TEST

START_TEST(a_missing_file_and_an_empty_directory_are_told_apart) {
  struct ctl_documents documents = {0};
  struct error err = {0};
  char directory[] = "/tmp/ctl-yaml-XXXXXX", *file;
  ck_assert_ptr_nonnull(mkdtemp(directory));
  ck_assert(!ctl_documents_load("/nonexistent/x.yaml", &documents, &err));
  ck_assert_str_eq(err.code, error_code_text(ERR_NOT_FOUND));
  ck_assert_ptr_nonnull(strstr(err.message, "no such file"));
  ck_assert(!ctl_documents_load(directory, &documents, &err));
  ck_assert_ptr_nonnull(strstr(err.message, "no *.yaml"));
  static const char *const names[] = {"b.yml", "a.yaml", "c.json", "ignored.txt", ".hidden.yaml"};
  for (size_t i = 0; i < COUNT(names); i++) {
    file = base_asprintf("%s/%s", directory, names[i]);
    FILE *out = fopen(file, "w");
    ck_assert_ptr_nonnull(out);
    fprintf(out, "{\"n\": \"%s\"}\n", names[i]);
    fclose(out);
    base_free(file);
  }
  ck_assert(ctl_documents_load(directory, &documents, &err));
  ck_assert_uint_eq(documents.count, 3);
  ck_assert_str_eq(documents.items[0].json, "{\"n\":\"a.yaml\"}");
  ck_assert_str_eq(documents.items[2].json, "{\"n\":\"c.json\"}");
  ctl_documents_free(&documents);
  for (size_t i = 0; i < COUNT(names); i++) {
    file = base_asprintf("%s/%s", directory, names[i]);
    remove(file);
    base_free(file);
  }
  remove(directory);
}
END_TEST

TEST_MAIN("ctl.yaml", plain_scalars_follow_the_core_schema_and_everything_else_is_text,
          documents_keep_their_lines_and_empty_ones_are_left_out, aliases_stand_for_what_they_name,
          flaws_are_refused_with_file_line_and_column, an_alias_bomb_ends_in_an_error,
          depth_is_bounded_also_through_aliases, size_and_number_of_values_are_bounded,
          a_mapping_with_many_keys_is_read_in_reasonable_time, json_becomes_yaml_that_reads_as_the_same_json,
          texts_that_yaml_cannot_hold_do_not_end_the_program, a_missing_file_and_an_empty_directory_are_told_apart)
