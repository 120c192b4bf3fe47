/* config_file.c: the YAML document into the config: walks mappings against the key table. libyaml's document form keeps
 * the position of every node, so that each problem can name its line and column. */
#include <stdio.h>
#include <string.h>

#include "sdk/base/alloc.h"
#include "sdk/base/str.h"
#include "sdk/config/config_internal.h"

#define FILE_DEPTH_MAX 8 /* of our own keys; a cycle of aliases ends here */

struct reader {
  struct config *config;
  const char *source;
  yaml_document_t document;
  struct config_problems *problems;
};

static struct config_where where_mark(const struct reader *reader, yaml_mark_t mark, const char *key) {
  return (struct config_where){reader->source, (unsigned)mark.line + 1, (unsigned)mark.column + 1, key};
}

static const char *scalar_text(const yaml_node_t *node) {
  return (const char *)node->data.scalar.value;
}

static void read_mapping(struct reader *reader, const struct config_scope *scope, const char *group, const char *shown,
                         void *base, bool *seen, yaml_node_t *node, unsigned depth);

/* One element of listeners or modules: a mapping with its own scope, its required keys present. */
static void read_element(struct reader *reader, const struct config_scope *scope, const char *shown, void *base,
                         yaml_node_t *node) {
  config_scope_defaults(scope, base);
  struct config_where where = where_mark(reader, node->start_mark, shown);
  if (node->type != YAML_MAPPING_NODE) {
    config_problem_add(reader->problems, ERR_CONFIG_TYPE, &where, "expected a mapping, found %s",
                       node->type == YAML_SCALAR_NODE ? "a single value" : "a list");
    return;
  }
  bool *seen = base_calloc(scope->count, sizeof(bool));
  read_mapping(reader, scope, "", shown, base, seen, node, 1);
  for (size_t i = 0; i < scope->count; i++)
    if (!scope->keys[i].standard && !seen[i]) {
      char key[CONFIG_PROBLEM_KEY_BYTES];
      snprintf(key, sizeof(key), "%s.%s", shown, scope->keys[i].path);
      where.key = key;
      config_problem_add(reader->problems, ERR_CONFIG_VALUE, &where, "this key is required in %s", scope->name);
    }
  base_free(seen);
}

static void read_elements(struct reader *reader, const struct config_key *key, yaml_node_t *node) {
  struct config_where where = where_mark(reader, node->start_mark, key->path);
  if (node->type != YAML_SEQUENCE_NODE) {
    config_problem_add(reader->problems, ERR_CONFIG_TYPE, &where, "expected a list of mappings, found %s",
                       node->type == YAML_SCALAR_NODE ? "a single value" : "a mapping");
    return;
  }
  size_t count = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
  if (count > (size_t)key->high) {
    config_problem_add(reader->problems, ERR_CONFIG_VALUE, &where, "too many items: %zu, at most %lld are allowed",
                       count, (long long)key->high);
    return;
  }
  bool modules = key->kind == CONFIG_KIND_MODULES;
  if (modules) {
    reader->config->modules = base_calloc(count ? count : 1, sizeof(struct config_module));
    reader->config->modules_count = count;
  } else {
    reader->config->listeners = base_calloc(count ? count : 1, sizeof(struct config_listener));
    reader->config->listeners_count = count;
  }
  for (size_t i = 0; i < count; i++) {
    yaml_node_t *item = yaml_document_get_node(&reader->document, node->data.sequence.items.start[i]);
    char shown[CONFIG_PROBLEM_KEY_BYTES];
    snprintf(shown, sizeof(shown), "%s[%zu]", key->path, i);
    unsigned line = (unsigned)item->start_mark.line + 1, column = (unsigned)item->start_mark.column + 1;
    if (modules) {
      reader->config->modules[i].line = line;
      reader->config->modules[i].column = column;
      read_element(reader, &config_module_scope, shown, &reader->config->modules[i], item);
    } else {
      reader->config->listeners[i].line = line;
      reader->config->listeners[i].column = column;
      read_element(reader, &config_listener_scope, shown, &reader->config->listeners[i], item);
    }
  }
}

static void report_unknown(struct reader *reader, const struct config_scope *scope, const char *group, const char *name,
                           const struct config_where *where) {
  const char *nearest = config_key_nearest(scope, group, name);
  if (nearest)
    config_problem_add(reader->problems, ERR_CONFIG_UNKNOWN_KEY, where, "unknown key; did you mean \"%s\"?", nearest);
  else
    config_problem_add(reader->problems, ERR_CONFIG_UNKNOWN_KEY, where, "unknown key");
}

static void read_pair(struct reader *reader, const struct config_scope *scope, const char *group, const char *shown,
                      void *base, bool *seen, yaml_node_t *name, yaml_node_t *value, unsigned depth) {
  char path[CONFIG_PROBLEM_KEY_BYTES], full[CONFIG_PROBLEM_KEY_BYTES];
  snprintf(path, sizeof(path), "%s%s%s", group, *group ? "." : "", scalar_text(name));
  snprintf(full, sizeof(full), "%s%s%s", shown, *shown ? "." : "", scalar_text(name));
  struct config_where where = where_mark(reader, name->start_mark, full);
  const struct config_key *key = config_key_find(scope, path);
  if (!key && !config_key_is_group(scope, path)) {
    report_unknown(reader, scope, group, scalar_text(name), &where);
    return;
  }
  where = where_mark(reader, value->start_mark, full);
  if (!key) {
    if (value->type == YAML_MAPPING_NODE)
      read_mapping(reader, scope, path, full, base, seen, value, depth + 1);
    else
      config_problem_add(reader->problems, ERR_CONFIG_TYPE, &where, "expected a mapping, found %s",
                         value->type == YAML_SCALAR_NODE ? "a single value" : "a list");
    return;
  }
  seen[key - scope->keys] = true;
  if (key->kind == CONFIG_KIND_LISTENERS || key->kind == CONFIG_KIND_MODULES)
    read_elements(reader, key, value);
  else
    config_node_set(key, base, &reader->document, value, &where, reader->problems);
}

static bool name_is_doubled(struct reader *reader, yaml_node_t *node, const yaml_node_pair_t *pair, const char *name) {
  for (const yaml_node_pair_t *other = node->data.mapping.pairs.start; other < pair; other++) {
    yaml_node_t *earlier = yaml_document_get_node(&reader->document, other->key);
    if (earlier->type == YAML_SCALAR_NODE && str_equal(scalar_text(earlier), name))
      return true;
  }
  return false;
}

static void read_mapping(struct reader *reader, const struct config_scope *scope, const char *group, const char *shown,
                         void *base, bool *seen, yaml_node_t *node, unsigned depth) {
  for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top; pair++) {
    if (reader->problems->total >= CONFIG_PROBLEMS_MAX)
      return; /* a file that is wrong throughout: enough is said */
    yaml_node_t *name = yaml_document_get_node(&reader->document, pair->key);
    struct config_where where = where_mark(reader, name->start_mark, shown);
    if (name->type != YAML_SCALAR_NODE || depth > FILE_DEPTH_MAX) {
      config_problem_add(reader->problems, ERR_CONFIG_TYPE, &where, "expected a key, found a list or a mapping");
      continue;
    }
    if (name_is_doubled(reader, node, pair, scalar_text(name))) {
      config_problem_add(reader->problems, ERR_CONFIG_VALUE, &where, "the key \"%.60s\" appears twice",
                         scalar_text(name));
      continue;
    }
    read_pair(reader, scope, group, shown, base, seen, name, yaml_document_get_node(&reader->document, pair->value),
              depth);
  }
}

static void report_syntax(struct reader *reader, const yaml_parser_t *parser) {
  struct config_where where = where_mark(reader, parser->problem_mark, "");
  config_problem_add(reader->problems, ERR_CONFIG_SYNTAX, &where, "not valid YAML: %s",
                     parser->problem ? parser->problem : "unreadable");
}

static void refuse_second_document(struct reader *reader, yaml_parser_t *parser) {
  yaml_document_t second;
  if (!yaml_parser_load(parser, &second)) {
    report_syntax(reader, parser);
    return;
  }
  yaml_node_t *root = yaml_document_get_root_node(&second);
  if (root) {
    struct config_where where = where_mark(reader, root->start_mark, "");
    config_problem_add(reader->problems, ERR_CONFIG_SYNTAX, &where, "one document only: a second one begins here");
  }
  yaml_document_delete(&second);
}

void config_file_read(struct config *config, const char *source, const char *data, size_t length,
                      struct config_problems *problems) {
  struct reader reader = {.config = config, .source = source, .problems = problems};
  yaml_parser_t parser;
  if (!yaml_parser_initialize(&parser)) {
    config_problem_add(problems, ERR_CONFIG_SYNTAX, &(struct config_where){.source = source}, "out of memory");
    return;
  }
  yaml_parser_set_input_string(&parser, (const unsigned char *)data, length);
  if (!yaml_parser_load(&parser, &reader.document)) {
    report_syntax(&reader, &parser);
    yaml_parser_delete(&parser);
    return;
  }
  yaml_node_t *root = yaml_document_get_root_node(&reader.document);
  if (root && root->type != YAML_MAPPING_NODE) {
    struct config_where where = where_mark(&reader, root->start_mark, "");
    config_problem_add(problems, ERR_CONFIG_TYPE, &where, "expected a mapping of keys to values");
  } else if (root) {
    bool *seen = base_calloc(config_root_scope.count, sizeof(bool));
    read_mapping(&reader, &config_root_scope, "", "", config, seen, root, 1);
    base_free(seen);
    refuse_second_document(&reader, &parser);
  }
  yaml_document_delete(&reader.document);
  yaml_parser_delete(&parser);
}
