/* config_override.c: what stands above the file: environment variables, GATEHOUSE_SET and --set. A value is the text
 * itself for single values, and YAML (usually its flow form, "[a, b]") for lists and mappings. */
#include <stdio.h>
#include <string.h>

#include "sdk/base/alloc.h"
#include "sdk/base/str.h"
#include "sdk/config/config_internal.h"

const char *config_environment_get(char *const *environment, const char *name) {
  size_t length = strlen(name);
  for (char *const *at = environment; at && *at; at++)
    if (strncmp(*at, name, length) == 0 && (*at)[length] == '=')
      return *at + length + 1;
  return NULL;
}

static void set_yaml(const struct config_key *key, void *base, const char *text, const struct config_where *where,
                     struct config_problems *problems) {
  yaml_parser_t parser;
  yaml_document_t document;
  if (!yaml_parser_initialize(&parser))
    return;
  yaml_parser_set_input_string(&parser, (const unsigned char *)text, strlen(text));
  if (yaml_parser_load(&parser, &document)) {
    yaml_node_t *root = yaml_document_get_root_node(&document);
    if (root)
      config_node_set(key, base, &document, root, where, problems);
    else
      config_problem_add(problems, ERR_CONFIG_TYPE, where, "expected a value, found nothing");
    yaml_document_delete(&document);
  } else {
    config_problem_add(problems, ERR_CONFIG_SYNTAX, where, "not valid YAML: %s",
                       parser.problem ? parser.problem : "unreadable");
  }
  yaml_parser_delete(&parser);
}

static void set_value(const struct config_key *key, void *base, const char *text, const struct config_where *where,
                      struct config_problems *problems) {
  switch (key->kind) {
  case CONFIG_KIND_LIST:
  case CONFIG_KIND_MAP:
  case CONFIG_KIND_JSON:
    set_yaml(key, base, text, where, problems);
    return;
  case CONFIG_KIND_LISTENERS:
  case CONFIG_KIND_MODULES:
    config_problem_add(problems, ERR_CONFIG_VALUE, where, "name one element and one key of it: %s.NAME.KEY", key->path);
    return;
  case CONFIG_KIND_TEXT:
    config_scalar_set(key, base, text, strlen(text), false, where, problems);
    return;
  case CONFIG_KIND_INT:
  case CONFIG_KIND_BOOL:
  case CONFIG_KIND_CHOICE:
    config_scalar_set(key, base, text, strlen(text), true, where, problems);
    return;
  }
}

/* "modules.mcp.restart": the scope and the struct of the element, and the rest of the path; the root for anything else.
 */
static const char *find_base(struct config *config, const char *path, const struct config_scope **scope, void **base) {
  const char *dot = strchr(path, '.');
  const char *rest = dot ? strchr(dot + 1, '.') : NULL;
  *scope = &config_root_scope;
  *base = config;
  if (!rest)
    return path;
  char name[64];
  snprintf(name, sizeof(name), "%.*s", (int)(rest - dot - 1), dot + 1);
  if (str_starts_with(path, "modules.")) {
    *scope = &config_module_scope;
    *base = (void *)config_module_find(config, name);
    return rest + 1;
  }
  if (str_starts_with(path, "listeners.")) {
    *scope = &config_listener_scope;
    *base = (void *)config_listener_find(config, name);
    return rest + 1;
  }
  return path;
}

static void apply(struct config *config, const char *source, const char *assignment, struct config_problems *problems) {
  const char *equals = strchr(assignment, '=');
  char path[CONFIG_PROBLEM_KEY_BYTES];
  struct config_where where = {.source = source, .key = path};
  snprintf(path, sizeof(path), "%.*s", (int)(equals ? equals - assignment : 100), assignment);
  if (!equals) {
    config_problem_add(problems, ERR_CONFIG_SYNTAX, &where, "expected KEY=VALUE");
    return;
  }
  const struct config_scope *scope;
  void *base;
  const char *rest = find_base(config, path, &scope, &base);
  if (!base) {
    config_problem_add(problems, ERR_CONFIG_UNKNOWN_KEY, &where, "no such element in the configuration");
    return;
  }
  const struct config_key *key = config_key_find(scope, rest);
  if (key) {
    set_value(key, base, equals + 1, &where, problems);
    return;
  }
  const char *nearest = config_key_nearest(scope, "", rest);
  const char *dot = strrchr(rest, '.');
  char group[CONFIG_PROBLEM_KEY_BYTES] = "";
  if (dot) {
    snprintf(group, sizeof(group), "%.*s", (int)(dot - rest), rest);
    nearest = config_key_nearest(scope, group, dot + 1);
  }
  config_problem_add(problems, ERR_CONFIG_UNKNOWN_KEY, &where, "unknown key%s%s%s%s%s",
                     nearest ? "; did you mean \"" : "", nearest ? group : "", nearest && *group ? "." : "",
                     nearest ? nearest : "", nearest ? "\"?" : "");
}

/* Calls back for every line of GATEHOUSE_SET. */
static void for_each_line(const char *lines, void (*call)(void *context, const char *line), void *context) {
  while (lines && *lines) {
    size_t length = strcspn(lines, "\n");
    char *line = base_strndup(lines, length);
    if (*line)
      call(context, line);
    base_free(line);
    lines += length + (lines[length] == '\n');
  }
}

struct apply_context {
  struct config *config;
  struct config_problems *problems;
};

static void apply_line(void *context, const char *line) {
  struct apply_context *apply_to = context;
  apply(apply_to->config, "GATEHOUSE_SET", line, apply_to->problems);
}

void config_overrides_apply(struct config *config, const struct config_source *source,
                            struct config_problems *problems) {
  for (size_t i = 0; i < config_root_scope.count; i++) {
    const struct config_key *key = &config_root_scope.keys[i];
    const char *text = key->environment ? config_environment_get(source->environment, key->environment) : NULL;
    if (text)
      set_value(key, config, text, &(struct config_where){.source = key->environment, .key = key->path}, problems);
  }
  struct apply_context context = {config, problems};
  for_each_line(config_environment_get(source->environment, "GATEHOUSE_SET"), apply_line, &context);
  for (size_t i = 0; i < source->set_count; i++)
    apply(config, "--set", source->sets[i], problems);
}

char *config_overrides_text(const struct config_source *source) {
  struct buf text = {0};
  for (size_t i = 0; i < config_root_scope.count; i++) {
    const struct config_key *key = &config_root_scope.keys[i];
    const char *value = key->environment ? config_environment_get(source->environment, key->environment) : NULL;
    if (value)
      buf_printf(&text, "%s=%s\n", key->path, value);
  }
  const char *lines = config_environment_get(source->environment, "GATEHOUSE_SET");
  if (!str_is_empty(lines))
    buf_printf(&text, "%s\n", lines);
  for (size_t i = 0; i < source->set_count; i++)
    buf_printf(&text, "%s\n", source->sets[i]);
  return buf_take(&text);
}
