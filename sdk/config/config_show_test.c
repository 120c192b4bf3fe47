/* config_show_test.c: the effective configuration as JSON, and as a file again. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sdk/base/json.h"
#include "sdk/base/test.h"
#include "sdk/config/config.h"

static struct config *load(const char *text, const char *const *sets, size_t set_count) {
  char path[] = "/tmp/config-show-XXXXXX";
  struct config_problems problems;
  int fd = mkstemp(path);
  ck_assert_int_ge(fd, 0);
  ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
  close(fd);
  struct config *config =
      config_load(&(struct config_source){.path = path, .sets = sets, .set_count = set_count}, &problems);
  unlink(path);
  ck_assert_msg(config, "%s: %s", problems.items[0].key, problems.items[0].text);
  return config;
}

static void text_is(const char *json, size_t length, const char *key, const char *wanted) {
  const char *value;
  size_t value_length;
  ck_assert_msg(json_member(json, length, key, &value, &value_length), "%s is missing", key);
  ck_assert_msg(strlen(wanted) == value_length && memcmp(value, wanted, value_length) == 0, "%s is %.*s", key,
                (int)value_length, value);
}

START_TEST(groups_become_objects_and_overrides_are_in_it) {
  const char *sets[] = {"log.level=debug", "modules.mcp.restart=never"};
  struct config *config = load("version: 1\nlisteners: [{name: mcp, port: 1}]\nmodules:\n"
                               "  - {id: mcp, listeners: [mcp], env: {A: \"1\"}, config: {deep: [1, {x: y}]}}\n",
                               sets, 2);
  struct buf json = {0};
  const char *value;
  size_t length;
  config_json_write(config, &json);
  ck_assert_msg(json_check(json.data, json.length, JSON_DEPTH_MAX, NULL), "%s", json.data);
  ck_assert(json_member(json.data, json.length, "log", &value, &length));
  text_is(value, length, "level", "\"debug\"");
  ck_assert_ptr_nonnull(strstr(json.data, "\"restart\":\"never\""));
  ck_assert_ptr_nonnull(strstr(json.data, "\"env\":{\"A\":\"1\"}"));
  ck_assert_ptr_nonnull(strstr(json.data, "\"config\":{\"deep\":[1,{\"x\":\"y\"}]}"));
  buf_free(&json);
  config_free(&config);
}
END_TEST

/* A doubled group would be refused when it is read again: this also proves that groups stand together in the table. */
START_TEST(read_as_a_file_it_gives_the_same_configuration) {
  struct config *config =
      load("version: 1\nmodules: [{id: a}, {id: b, args: [x, \"y z\"], enabled: false}]\n", NULL, 0);
  struct buf first = {0}, second = {0};
  config_json_write(config, &first);
  struct config *again = load(first.data, NULL, 0);
  config_json_write(again, &second);
  ck_assert_str_eq(first.data, second.data);
  buf_free(&first);
  buf_free(&second);
  config_free(&config);
  config_free(&again);
}
END_TEST

TEST_MAIN("config.show", groups_become_objects_and_overrides_are_in_it, read_as_a_file_it_gives_the_same_configuration)
