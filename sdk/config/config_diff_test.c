/* config_diff_test.c: every kind of key is compared, and the one that may differ is passed over. */
#include <stdio.h>

#include "sdk/base/test.h"
#include "sdk/config/config.h"

/* The file of this test with one key overridden; NULL: none. */
static struct config *load(const char *set) {
  struct config_problems problems;
  const struct config_source source = {.path = "config_diff_test.yaml", .sets = &set, .set_count = set ? 1 : 0};
  FILE *file = fopen("config_diff_test.yaml", "w");
  ck_assert_ptr_nonnull(file);
  fputs("version: 1\nlisteners:\n  - {name: web, port: 1}\nmodules:\n"
        "  - {id: web, args: [a, b], env: {A: x, B: y}, config: {k: 1}}\n",
        file);
  fclose(file);
  struct config *config = config_load(&source, &problems);
  ck_assert_msg(config != NULL, "%s: %s", set ? set : "the file", problems.items[0].text);
  remove("config_diff_test.yaml");
  return config;
}

START_TEST(a_difference_is_told_by_its_key) {
  static const struct {
    const char *set, *root, *listener, *module;
  } cases[] = {
      {NULL, NULL, NULL, NULL},
      {"log.level=debug", NULL, NULL, NULL}, /* excepted below */
      {"state_dir=/tmp/elsewhere", "state_dir", NULL, NULL},
      {"core.watchdog_ms=5000", "core.watchdog_ms", NULL, NULL},
      {"store.backend=memory", "store.backend", NULL, NULL},
      {"listeners.web.port=2", NULL, "port", NULL},
      {"modules.web.restart=never", NULL, NULL, NULL}, /* excepted below */
      {"modules.web.enabled=false", NULL, NULL, "enabled"},
      {"modules.web.stop_grace_ms=77", NULL, NULL, "stop_grace_ms"},
      {"modules.web.user=nobody", NULL, NULL, "user"},
  };
  struct config *file = load(NULL);
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    struct config *other = load(cases[i].set);
    ck_assert_pstr_eq(config_root_difference(file, other, "log.level"), cases[i].root);
    ck_assert_pstr_eq(config_listener_difference(&file->listeners[0], &other->listeners[0]), cases[i].listener);
    ck_assert_pstr_eq(config_module_difference(&file->modules[0], &other->modules[0], "restart"), cases[i].module);
    config_free(&other);
  }
  config_free(&file);
}
END_TEST

/* The supervisor takes a difference in "config" for the only one of a module (supervisor/reload.c). */
START_TEST(a_modules_own_configuration_is_compared_last) {
  const char *last = NULL;
#define PATH_OF(kind, field, path, ...) last = path;
  CONFIG_MODULE_KEYS(PATH_OF)
#undef PATH_OF
  ck_assert_str_eq(last, "config");
}
END_TEST

START_TEST(lists_and_maps_differ_by_length_and_by_content) {
  struct config *a = load(NULL), *b = load(NULL);
  struct config_module *module = &b->modules[0];
  char other[] = "z";
  char *kept = module->args.items[1];
  module->args.items[1] = other;
  ck_assert_pstr_eq(config_module_difference(&a->modules[0], module, NULL), "args");
  module->args.items[1] = kept;
  module->args.count = 1;
  ck_assert_pstr_eq(config_module_difference(&a->modules[0], module, NULL), "args");
  module->args.count = 2;
  kept = module->env.items[0].value;
  module->env.items[0].value = other;
  ck_assert_pstr_eq(config_module_difference(&a->modules[0], module, NULL), "env");
  module->env.items[0].value = kept;
  const struct config_pair first = module->env.items[0]; /* the order of keys is no difference */
  module->env.items[0] = module->env.items[1];
  module->env.items[1] = first;
  ck_assert_ptr_null(config_module_difference(&a->modules[0], module, NULL));
  config_free(&a);
  config_free(&b);
}
END_TEST

TEST_MAIN("config.diff", a_modules_own_configuration_is_compared_last, a_difference_is_told_by_its_key,
          lists_and_maps_differ_by_length_and_by_content)
