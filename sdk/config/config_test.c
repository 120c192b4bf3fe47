/* config_test.c: a table of bad files with the exact problem of each, good files, overrides, the built-in quick start.
 */
#include "sdk/config/config.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sdk/base/alloc.h"
#include "sdk/base/str.h"
#include "sdk/base/test.h"

static char path[] = "/tmp/gatehouse-config-XXXXXX";

static void write_file(const char *text, size_t length) {
  strcpy(path, "/tmp/gatehouse-config-XXXXXX");
  int fd = mkstemp(path);
  ck_assert_int_ge(fd, 0);
  ck_assert_int_eq(write(fd, text, length), (ssize_t)length);
  close(fd);
}

static struct config *load_with(const char *text, const char *set, char *const *environment,
                                struct config_problems *problems) {
  write_file(text, strlen(text));
  const char *sets[] = {set};
  struct config_source source = {.path = path, .environment = environment, .sets = sets, .set_count = set ? 1 : 0};
  struct config *config = config_load(&source, problems);
  unlink(path);
  return config;
}

static struct config *load(const char *text, struct config_problems *problems) {
  return load_with(text, NULL, NULL, problems);
}

static const struct {
  const char *text;
  unsigned line, column;
  enum error_code code;
  const char *key, *says;
} bad[] = {
    {"log:\n  levle: debug\n", 2, 3, ERR_CONFIG_UNKNOWN_KEY, "log.levle", "did you mean \"level\"?"},
    {"versoin: 1\n", 1, 1, ERR_CONFIG_UNKNOWN_KEY, "versoin", "did you mean \"version\"?"},
    {"zebra: 1\n", 1, 1, ERR_CONFIG_UNKNOWN_KEY, "zebra", "unknown key"},
    {"modules:\n  - id: mcp\n    restrat: never\n", 3, 5, ERR_CONFIG_UNKNOWN_KEY, "modules[0].restrat",
     "did you mean \"restart\"?"},
    {"version: 2\n", 1, 10, ERR_CONFIG_VALUE, "version", "expected a whole number from 1 to 1, found \"2\""},
    {"version: \"1\"\n", 1, 10, ERR_CONFIG_TYPE, "version", "expected a whole number from 1 to 1, found \"1\""},
    {"version: one\n", 1, 10, ERR_CONFIG_TYPE, "version", "found \"one\""},
    {"version:\n", 1, 9, ERR_CONFIG_TYPE, "version", "found nothing"},
    {"modules: [{id: a, enabled: yes}]\n", 1, 28, ERR_CONFIG_TYPE, "modules[0].enabled",
     "expected true or false, found \"yes\""},
    {"log:\n  level: loud\n", 2, 10, ERR_CONFIG_VALUE, "log.level",
     "expected one of debug,info,warn,error,fatal, found \"loud\""},
    {"log: info\n", 1, 6, ERR_CONFIG_TYPE, "log", "expected a mapping, found a single value"},
    {"run_dir: [a]\n", 1, 10, ERR_CONFIG_TYPE, "run_dir", "expected a text, found a list"},
    {"run_dir: relative\n", 1, 10, ERR_CONFIG_VALUE, "run_dir", "expected an absolute path"},
    {"run_dir: \"/a\\0b\"\n", 1, 10, ERR_CONFIG_VALUE, "run_dir", "control characters"},
    {"run_dir: \"/a\\nb\"\n", 1, 10, ERR_CONFIG_VALUE, "run_dir", "control characters"},
    {"version: 1\nversion: 1\n", 2, 1, ERR_CONFIG_VALUE, "", "the key \"version\" appears twice"},
    {"- a\n", 1, 1, ERR_CONFIG_TYPE, "", "expected a mapping of keys"},
    {"log: {level: [}\n", 1, 15, ERR_CONFIG_SYNTAX, "", "not valid YAML"},
    {"version: 1\n---\nversion: 1\n", 3, 1, ERR_CONFIG_SYNTAX, "", "one document only"},
    {"? [a]\n: b\n", 1, 3, ERR_CONFIG_TYPE, "", "expected a key"},
    {"listeners: mcp\n", 1, 12, ERR_CONFIG_TYPE, "listeners", "expected a list of mappings"},
    {"listeners:\n  - mcp\n", 2, 5, ERR_CONFIG_TYPE, "listeners[0]", "expected a mapping"},
    {"listeners:\n  - port: 1\n", 2, 5, ERR_CONFIG_VALUE, "listeners[0].name", "this key is required in a listener"},
    {"listeners:\n  - name: Big\n", 2, 11, ERR_CONFIG_VALUE, "listeners[0].name", "expected lower-case letters"},
    {"listeners:\n  - name: a\n    port: 65536\n", 3, 11, ERR_CONFIG_VALUE, "listeners[0].port", "from 0 to 65535"},
    {"listeners:\n  - name: a\n    port: 99999999999999999999\n", 3, 11, ERR_CONFIG_TYPE, "listeners[0].port",
     "a whole number"},
    {"listeners:\n  - name: a\n    address: localhost\n", 3, 14, ERR_CONFIG_VALUE, "listeners[0].address",
     "numeric IPv4"},
    {"listeners:\n  - name: a\n  - name: a\n", 3, 5, ERR_CONFIG_VALUE, "listeners[1].name",
     "this name is taken: \"a\""},
    {"listeners:\n  - {name: a, port: 7}\n  - {name: b, port: 7}\n", 3, 5, ERR_CONFIG_VALUE, "listeners[1].port",
     "the same address and port as listener \"a\""},
    /* No module serves TLS yet: asking for it must not give plain text. */
    {"listeners:\n  - name: a\n    tls: {key: /k}\n", 3, 5, ERR_CONFIG_UNKNOWN_KEY, "listeners[0].tls", "unknown key"},
    {"modules:\n  - id: core\n", 2, 5, ERR_CONFIG_VALUE, "modules[0].id", "reserved"},
    {"run_dir: /rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr\nmodules:\n  - id: "
     "abcde\n",
     3, 5, ERR_CONFIG_VALUE, "modules[0].id", "socket paths too long"},
    {"modules:\n  - id: a\n  - id: a\n", 3, 5, ERR_CONFIG_VALUE, "modules[1].id", "this id is taken"},
    {"modules:\n  - id: a\n    listeners: [x]\n", 2, 5, ERR_CONFIG_VALUE, "modules[0].listeners",
     "no such listener: \"x\""},
    {"modules:\n  - id: a\n    args: -v\n", 3, 11, ERR_CONFIG_TYPE, "modules[0].args", "expected a list of texts"},
    {"modules:\n  - id: a\n    args: [-v, {}]\n", 3, 16, ERR_CONFIG_TYPE, "modules[0].args", "an item that is no text"},
    {"modules:\n  - id: a\n    env: {A: 1, A: 2}\n", 3, 17, ERR_CONFIG_VALUE, "modules[0].env", "appears twice"},
    {"modules:\n  - id: a\n    env: {\"A=B\": 1}\n", 3, 11, ERR_CONFIG_VALUE, "modules[0].env", "name of a variable"},
    {"modules:\n  - id: a\n    env: {GATEHOUSE_RUN: x}\n", 2, 5, ERR_CONFIG_VALUE, "modules[0].env",
     "belongs to the supervisor"},
    {"modules:\n  - id: a\n    config: 5\n", 3, 13, ERR_CONFIG_TYPE, "modules[0].config", "expected a mapping"},
    {"modules:\n  - id: a\n    config: &x {y: *x}\n", 3, 13, ERR_CONFIG_VALUE, "modules[0].config", "too deeply"},
    {"modules:\n  - id: a\n    config: {b: 1, b: 2}\n", 3, 13, ERR_CONFIG_VALUE, "modules[0].config", "appears twice"},
    {"store: {backend: postgres}\n", 1, 18, ERR_CONFIG_VALUE, "store.backend", "expected one of sqlite,memory"},
    {"spi: {backoff_min_ms: 100, backoff_max_ms: 50}\n", 0, 0, ERR_CONFIG_VALUE, "spi.backoff_max_ms", "below"},
};

START_TEST(a_bad_file_is_refused_with_its_place) {
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    struct config_problems problems;
    struct config *config = load(bad[i].text, &problems);
    const struct config_problem *got = &problems.items[0];
    ck_assert_msg(!config && problems.count == 1, "%s: %zu problems", bad[i].text, problems.count);
    ck_assert_msg(got->line == bad[i].line && got->column == bad[i].column, "%s: %u:%u", bad[i].text, got->line,
                  got->column);
    ck_assert_msg(got->code == bad[i].code, "%s: %s", bad[i].text, error_code_text(got->code));
    ck_assert_msg(str_equal(got->key, bad[i].key), "%s: key %s", bad[i].text, got->key);
    ck_assert_msg(strstr(got->text, bad[i].says), "%s: %s", bad[i].text, got->text);
  }
}
END_TEST

START_TEST(all_problems_are_reported_at_once) {
  struct config_problems problems;
  ck_assert_ptr_null(load("a: 1\nversion: x\nmodules:\n  - id: 9\n", &problems));
  ck_assert_uint_eq(problems.count, 3);
  struct buf line = {0};
  problems.items[1].source[0] = '\0';
  config_problem_format(&problems.items[1], &line);
  ck_assert_str_eq(line.data, ":2:10: version: expected a whole number from 1 to 1, found \"x\" [config.type]");
  buf_free(&line);
}
END_TEST

START_TEST(more_problems_than_fit_are_counted) {
  struct buf text = {0};
  for (int i = 0; i < 100; i++)
    buf_printf(&text, "listeners_%d: 1\n", i);
  struct config_problems problems;
  ck_assert_ptr_null(load(text.data, &problems));
  ck_assert_uint_eq(problems.count, CONFIG_PROBLEMS_MAX);
  buf_free(&text);
}
END_TEST

START_TEST(a_full_file_is_read) {
  struct config_problems problems;
  struct config *config = load("version: 1\n"
                               "run_dir: /r\n"
                               "state_dir: /s\n"
                               "log: {level: debug}\n"
                               "listeners:\n"
                               "  - {name: mcp, address: '::1', port: 0}\n"
                               "modules:\n"
                               "  - id: mcp\n"
                               "    binary: /bin/true\n"
                               "    args: [\"-v\", 8]\n"
                               "    env: {LANG: C, N: 1}\n"
                               "    listeners: [mcp]\n"
                               "    restart: on-failure\n"
                               "    rlimits: {open_files: 10}\n"
                               "    config: {a: [1, 1.5, +1, x, \"2\", true, ~], \"b\\n\": {}}\n",
                               &problems);
  ck_assert_msg(config, "%s %s", problems.items[0].key, problems.items[0].text);
  const struct config_module *module = config_module_find(config, "mcp");
  ck_assert_ptr_nonnull(module);
  ck_assert_uint_eq(config->log_level, 0);
  ck_assert_str_eq(config->store_path, "/s/gatehouse.db");
  ck_assert_str_eq(config_listener_find(config, "mcp")->address, "::1");
  ck_assert_str_eq(module->family, "mcp");
  ck_assert_uint_eq(module->args.count, 2);
  ck_assert_str_eq(module->args.items[1], "8");
  ck_assert_str_eq(module->env.items[1].value, "1");
  ck_assert_uint_eq(module->restart, CONFIG_RESTART_ON_FAILURE);
  ck_assert_int_eq(module->rlimit_open_files, 10);
  ck_assert_int_eq(module->stop_grace_ms, 5000);
  ck_assert_str_eq(module->config, "{\"a\":[1,1.5,\"+1\",\"x\",\"2\",true,null],\"b\\n\":{}}");
  ck_assert_uint_eq(module->line, 8);
  config_free(&config);
  ck_assert_ptr_null(config);
}
END_TEST

START_TEST(an_empty_file_is_all_defaults) {
  struct config_problems problems;
  struct config *config = load("", &problems);
  ck_assert_ptr_nonnull(config);
  ck_assert_uint_eq(config->modules_count, 0);
  config_free(&config);
}
END_TEST

START_TEST(later_sources_win) {
  char *environment[] = {"GATEHOUSE_LOG_LEVEL=warn", "GATEHOUSE_RUN=/e",
                         "GATEHOUSE_SET=store.durability=none\nrun_dir=/g", NULL};
  struct config_problems problems;
  struct config *config = load_with("run_dir: /f\nlog: {level: debug}\nmodules: [{id: a}]\n", "modules.a.args=[x, y]",
                                    environment, &problems);
  ck_assert_msg(config, "%s %s", problems.items[0].key, problems.items[0].text);
  ck_assert_uint_eq(config->log_level, 2);
  ck_assert_str_eq(config->run_dir, "/g");
  ck_assert_uint_eq(config->store_durability, CONFIG_DURABILITY_NONE);
  ck_assert_uint_eq(config->modules[0].args.count, 2);
  config_free(&config);
  const char *sets[] = {"a=b"};
  char *text = config_overrides_text(&(struct config_source){.environment = environment, .sets = sets, .set_count = 1});
  ck_assert_str_eq(text, "run_dir=/e\nlog.level=warn\nstore.durability=none\nrun_dir=/g\na=b\n");
  base_free(text);
}
END_TEST

static const struct {
  const char *set, *says;
  enum error_code code;
} bad_sets[] = {
    {"log.level", "expected KEY=VALUE", ERR_CONFIG_SYNTAX},
    {"log.lvel=info", "did you mean \"log.level\"?", ERR_CONFIG_UNKNOWN_KEY},
    {"modules.b.restart=never", "no such element", ERR_CONFIG_UNKNOWN_KEY},
    {"modules.a.restrat=never", "did you mean \"restart\"?", ERR_CONFIG_UNKNOWN_KEY},
    {"modules.a.args=[", "not valid YAML", ERR_CONFIG_SYNTAX},
    {"modules.a.args=", "found nothing", ERR_CONFIG_TYPE},
    {"modules.a.args=x", "expected a list of texts", ERR_CONFIG_TYPE},
    {"modules=[]", "modules.NAME.KEY", ERR_CONFIG_VALUE},
    {"spi.in_flight=0", "from 1 to 65536", ERR_CONFIG_VALUE},
    {"=", "unknown key", ERR_CONFIG_UNKNOWN_KEY},
};

START_TEST(a_bad_override_is_refused) {
  for (size_t i = 0; i < sizeof(bad_sets) / sizeof(bad_sets[0]); i++) {
    struct config_problems problems;
    struct config *config = load_with("modules: [{id: a}]\n", bad_sets[i].set, NULL, &problems);
    ck_assert_msg(!config && problems.count == 1, "%s", bad_sets[i].set);
    ck_assert_msg(strstr(problems.items[0].text, bad_sets[i].says), "%s: %s", bad_sets[i].set, problems.items[0].text);
    ck_assert_int_eq((int)problems.items[0].code, (int)bad_sets[i].code);
    ck_assert_str_eq(problems.items[0].source, "--set");
  }
}
END_TEST

START_TEST(what_could_be_read_is_judged_beside_other_problems) {
  struct config_problems problems;
  static const struct {
    const char *key, *says;
  } expected[] = {{"nope", "unknown key"},
                  {"listeners[0].name", "required"},
                  {"modules[0]", "expected a mapping"},
                  {"listeners[2].name", "this name is taken: \"a\""},
                  {"modules[1].listeners", "no such listener: \"x\""}};
  ck_assert_ptr_null(load(
      "nope: 1\nlisteners: [{port: 1}, {name: a}, {name: a}]\nmodules: [b, {id: a, listeners: [x]}]\n", &problems));
  ck_assert_uint_eq(problems.total, sizeof(expected) / sizeof(expected[0]));
  for (size_t i = 0; i < problems.count; i++) {
    ck_assert_str_eq(problems.items[i].key, expected[i].key);
    ck_assert_msg(strstr(problems.items[i].text, expected[i].says), "%s", problems.items[i].text);
  }
  ck_assert_str_eq(problems.items[0].text, "unknown key"); /* no key is as near as to be meant */
}
END_TEST

START_TEST(a_missing_file_is_a_problem_of_its_own) {
  struct config_problems problems;
  ck_assert_ptr_null(config_load(&(struct config_source){.path = "/nonexistent/gatehouse.yaml"}, &problems));
  ck_assert_int_eq((int)problems.items[0].code, ERR_CONFIG_READ);
  ck_assert_str_eq(problems.items[0].text, "no such file");
}
END_TEST

START_TEST(without_a_file_the_quick_start_runs) {
  ck_assert_int_eq(chdir("/proc/self"), 0);
  if (access("/etc/gatehouse/gatehouse.yaml", F_OK) == 0)
    return;
  struct config_problems problems;
  struct config *config = config_load(&(struct config_source){0}, &problems);
  ck_assert_ptr_nonnull(config);
  ck_assert_int_eq(config_listener_find(config, "mcp")->port, 4444);
  ck_assert_str_eq(config_module_find(config, "rest")->binary, "gatehouse-rest");
  ck_assert_str_eq(config->path, "");
  config_free(&config);
}
END_TEST

START_TEST(an_alias_bomb_ends_in_an_error) {
  struct buf text = {0};
  buf_append_text(&text, "modules:\n  - id: a\n    config:\n      a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
  for (int i = 1; i < 12; i++)
    buf_printf(&text, "      a%d: &a%d [*a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d]\n", i, i, i - 1, i - 1,
               i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1);
  struct config_problems problems;
  ck_assert_ptr_null(load(text.data, &problems));
  ck_assert_str_eq(problems.items[0].text, "a free-form mapping is too large");
  buf_free(&text);
}
END_TEST

START_TEST(every_cut_of_a_file_is_read_or_refused_without_harm) {
  const char text[] =
      "version: 1\nlisteners: [{name: a, address: \"::1\", port: 7}]\nmodules:\n- id: b\n  env: {A: x}\n"
      "  config: {q: [1, {r: \"\\u00e9\"}]}\n";
  for (size_t cut = 0; cut < sizeof(text); cut++) {
    char part[sizeof(text) + 1];
    memcpy(part, text, cut);
    part[cut] = '\0';
    struct config_problems problems;
    struct config *config = load(part, &problems);
    ck_assert_int_eq(config == NULL, problems.total > 0);
    config_free(&config);
  }
}
END_TEST

START_TEST(the_reference_names_every_key) {
  struct buf text = {0};
  config_reference_write(&text);
  ck_assert_ptr_nonnull(
      strstr(text.data, "| `store.durability` | one of full,normal,none | `full` | `GATEHOUSE_STORE_DURABILITY` |"));
  ck_assert_ptr_nonnull(strstr(text.data, "| `id` | a text | required |"));
  buf_free(&text);
}
END_TEST

TEST_MAIN("config", a_bad_file_is_refused_with_its_place, all_problems_are_reported_at_once,
          more_problems_than_fit_are_counted, a_full_file_is_read, an_empty_file_is_all_defaults, later_sources_win,
          a_bad_override_is_refused, what_could_be_read_is_judged_beside_other_problems,
          a_missing_file_is_a_problem_of_its_own, without_a_file_the_quick_start_runs, an_alias_bomb_ends_in_an_error,
          every_cut_of_a_file_is_read_or_refused_without_harm, the_reference_names_every_key)
