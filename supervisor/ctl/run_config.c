/* run_config.c: `config check` and `config show`: without a core. */
#include <stdio.h>

#include "sdk/base/str.h"
#include "sdk/config/config.h"
#include "supervisor/ctl/ctl_internal.h"

extern char **environ;

static void problems_print(const struct config_problems *problems) {
  for (size_t i = 0; i < problems->count; i++) {
    struct buf text = {0}, safe = {0};
    config_problem_format(&problems->items[i], &text);
    ctl_text_append_safe(&safe, text.data, text.length);
    fprintf(stderr, "%s\n", safe.data);
    buf_free(&text);
    buf_free(&safe);
  }
  if (problems->total > problems->count)
    fprintf(stderr, "and %zu more\n", problems->total - problems->count);
}

/* NULL: the problems were printed. */
static struct config *load(const struct ctl *ctl) {
  struct config_problems *problems = BASE_NEW(struct config_problems);
  struct config_source source = {.path = ctl_text(ctl, "config"), .environment = environ};
  char **sets = ctl_texts(ctl, "set", &source.set_count);
  source.sets = (const char *const *)sets;
  struct config *config = config_load(&source, problems);
  if (!config)
    problems_print(problems);
  base_free(sets);
  base_free(problems);
  return config;
}

int ctl_run_config_check(struct ctl *ctl) {
  struct config *config = load(ctl);
  struct buf text = {0};
  if (!config)
    return CTL_EXIT_USAGE;
  buf_printf(&text, "%s: no problems\n", str_is_empty(config->path) ? "built-in configuration" : config->path);
  int status = ctl_print(&text);
  buf_free(&text);
  config_free(&config);
  return status;
}

int ctl_run_config_show(struct ctl *ctl) {
  struct config *config = load(ctl);
  struct buf json = {0};
  if (!config)
    return CTL_EXIT_USAGE;
  config_json_write(config, &json);
  if (!ctl->output_given)
    ctl->output = CTL_OUTPUT_YAML;
  int status = ctl_print_json(ctl, json.data, json.length);
  buf_free(&json);
  config_free(&config);
  return status;
}
