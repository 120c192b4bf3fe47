/* config_load.c: the stages in order: find and read the file, walk it, override, complete, check across keys. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sdk/base/alloc.h"
#include "sdk/base/io.h"
#include "sdk/base/str.h"
#include "sdk/config/config_internal.h"

#define FILE_BYTES_MAX (1024 * 1024)

/* What runs without any file: MCP on 4444 in front of REST tools. */
static const char builtin[] = "version: 1\n"
                              "listeners:\n"
                              "  - name: mcp\n"
                              "    port: 4444\n"
                              "modules:\n"
                              "  - id: mcp\n"
                              "    listeners: [mcp]\n"
                              "  - id: rest\n"
                              "    family: rest-grpc\n";

static const char *find_file(const struct config_source *source) {
  static const char *const places[] = {"gatehouse.yaml", "/etc/gatehouse/gatehouse.yaml"};
  const char *named = source->path ? source->path : config_environment_get(source->environment, "GATEHOUSE_CONFIG");
  if (!str_is_empty(named))
    return named;
  for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
    if (access(places[i], F_OK) == 0)
      return places[i];
  return NULL;
}

static bool read_file(const char *path, struct buf *contents, struct config_problems *problems) {
  struct error err;
  if (io_read_file(path, FILE_BYTES_MAX, contents, &err))
    return true;
  config_problem_add(problems, ERR_CONFIG_READ, &(struct config_where){.source = path}, "%s",
                     error_is(&err, ERR_NOT_FOUND)            ? "no such file"
                     : error_is(&err, ERR_ARGUMENT_TOO_LARGE) ? "larger than 1 MiB"
                                                              : "cannot be read");
  return false;
}

static void fill(char **member, char *value) {
  if (!str_is_empty(*member)) {
    base_free(value);
    return;
  }
  base_free(*member);
  *member = value;
}

static char *default_run_dir(char *const *environment) {
  const char *runtime = config_environment_get(environment, "XDG_RUNTIME_DIR");
  if (geteuid() == 0)
    return base_strdup("/run/gatehouse");
  if (runtime && *runtime == '/')
    return base_asprintf("%s/gatehouse", runtime);
  return base_asprintf("/tmp/gatehouse-%u", (unsigned)geteuid());
}

static char *default_state_dir(char *const *environment) {
  const char *state = config_environment_get(environment, "XDG_STATE_HOME"),
             *home = config_environment_get(environment, "HOME");
  if (geteuid() == 0)
    return base_strdup("/var/lib/gatehouse");
  if (state && *state == '/')
    return base_asprintf("%s/gatehouse", state);
  if (home && *home == '/')
    return base_asprintf("%s/.local/state/gatehouse", home);
  return base_asprintf("/var/tmp/gatehouse-%u", (unsigned)geteuid());
}

void config_complete(struct config *config, char *const *environment) {
  fill(&config->run_dir, default_run_dir(environment));
  fill(&config->state_dir, default_state_dir(environment));
  fill(&config->versions_dir,
       geteuid() == 0 ? base_strdup("/opt/gatehouse/versions") : base_asprintf("%s/versions", config->state_dir));
  fill(&config->store_path, base_asprintf("%s/gatehouse.db", config->state_dir));
  for (size_t i = 0; i < config->modules_count; i++) {
    struct config_module *module = &config->modules[i];
    fill(&module->family, base_strdup(module->id));
    fill(&module->binary, base_asprintf("gatehouse-%s", module->id));
  }
}

const struct config_module *config_module_find(const struct config *config, const char *id) {
  for (size_t i = 0; i < config->modules_count; i++)
    if (str_equal(config->modules[i].id, id))
      return &config->modules[i];
  return NULL;
}

const struct config_listener *config_listener_find(const struct config *config, const char *name) {
  for (size_t i = 0; i < config->listeners_count; i++)
    if (str_equal(config->listeners[i].name, name))
      return &config->listeners[i];
  return NULL;
}

struct config *config_load(const struct config_source *source, struct config_problems *problems) {
  *problems = (struct config_problems){0};
  struct config *config = BASE_NEW(struct config);
  config_scope_defaults(&config_root_scope, config);
  struct buf contents = {0};
  const char *path = find_file(source);
  bool readable = true;
  if (path)
    readable = read_file(path, &contents, problems);
  else
    buf_append_text(&contents, builtin);
  char *absolute = path ? realpath(path, NULL) : NULL;
  config->path = base_strdup(absolute ? absolute : "");
  free(absolute); /* from realpath, not from base_alloc */
  if (readable) {
    config_file_read(config, path ? path : "built-in", contents.data ? contents.data : "", contents.length, problems);
    config_overrides_apply(config, source, problems);
    config_complete(config, source->environment);
    config_cross_check(config, problems);
  }
  config->contents_length = contents.length;
  config->contents = buf_take(&contents);
  if (problems->total > 0)
    config_free(&config);
  return config;
}

void config_free(struct config **config) {
  if (!*config)
    return;
  config_scope_free(&config_root_scope, *config);
  base_free((*config)->path);
  base_free((*config)->contents);
  base_free(*config);
  *config = NULL;
}

void config_problem_format(const struct config_problem *problem, struct buf *target) {
  buf_append_text(target, problem->source);
  if (problem->line > 0)
    buf_printf(target, ":%u:%u", problem->line, problem->column);
  buf_append_text(target, ": ");
  if (problem->key[0])
    buf_printf(target, "%s: ", problem->key);
  buf_printf(target, "%s [%s]", problem->text, error_code_text(problem->code));
}
