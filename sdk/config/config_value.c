/* config_value.c: one value from YAML or an override into its member, checked against its line of the table. A value
 * that is refused leaves the member as it was and adds one problem. */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "sdk/base/alloc.h"
#include "sdk/base/str.h"
#include "sdk/config/config_internal.h"

void config_problem_add(struct config_problems *problems, enum error_code code, const struct config_where *where,
                        const char *format, ...) {
  problems->total++;
  if (problems->count == CONFIG_PROBLEMS_MAX)
    return;
  struct config_problem *problem = &problems->items[problems->count++];
  *problem = (struct config_problem){.code = code, .line = where->line, .column = where->column};
  str_copy(problem->source, sizeof(problem->source), where->source ? where->source : "");
  str_copy(problem->key, sizeof(problem->key), where->key ? where->key : "");
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(problem->text, sizeof(problem->text), format, arguments);
  va_end(arguments);
}

static const char *id_form(const char *text) {
  for (const char *at = text; *at; at++)
    if (!(islower((unsigned char)*at) || (at > text && (isdigit((unsigned char)*at) || *at == '-'))))
      return "lower-case letters, digits and '-', beginning with a letter";
  return NULL;
}

static const char *directory_form(const char *text) {
  return *text && *text != '/' ? "an absolute path" : NULL;
}

static const char *address_form(const char *text) {
  struct in6_addr scratch;
  if (*text == '/' || inet_pton(AF_INET, text, &scratch) == 1 || inet_pton(AF_INET6, text, &scratch) == 1)
    return NULL;
  return "a numeric IPv4 or IPv6 address or an absolute path";
}

static const char *program_form(const char *text) {
  return str_ends_with(text, "/") ? "the name or path of a program" : NULL;
}

static const struct {
  const char *name;
  const char *(*check)(const char *text);
} forms[] = {{"id", id_form}, {"directory", directory_form}, {"address", address_form}, {"program", program_form}};

const char *config_form_check(const char *form, const char *text) {
  for (size_t i = 0; form && i < sizeof(forms) / sizeof(forms[0]); i++)
    if (str_equal(forms[i].name, form))
      return forms[i].check(text);
  return NULL;
}

/* A text in a problem: short and printable, whatever the file holds. */
static const char *shown(const char *text, char target[static 48]) {
  size_t length = strnlen(text, 40);
  for (size_t i = 0; i < length; i++)
    target[i] = (char)((unsigned char)text[i] < 0x20 || text[i] == 0x7f ? '?' : text[i]);
  str_copy(target + length, 48 - length, text[length] ? "..." : "");
  return target;
}

static bool refuse_type(const struct config_key *key, const char *found, const struct config_where *where,
                        struct config_problems *problems) {
  char expected[128];
  config_key_expectation(key, expected, sizeof(expected));
  config_problem_add(problems, ERR_CONFIG_TYPE, where, "expected %s, found %s", expected, found);
  return false;
}

static bool refuse_scalar(const struct config_key *key, const char *text, enum error_code code,
                          const struct config_where *where, struct config_problems *problems) {
  char expected[128], word[48];
  config_key_expectation(key, expected, sizeof(expected));
  config_problem_add(problems, code, where, "expected %s, found \"%s\"", expected, shown(text, word));
  return false;
}

static bool is_null(const char *text, bool plain) {
  return plain && (*text == '\0' || str_equal(text, "~") || str_equal(text, "null"));
}

static bool text_is_sound(const struct config_key *key, const char *text, size_t length,
                          const struct config_where *where, struct config_problems *problems) {
  size_t most = key->high > 0 && key->kind == CONFIG_KIND_TEXT ? (size_t)key->high : 4096;
  for (size_t i = 0; i < length; i++)
    if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f) {
      config_problem_add(problems, ERR_CONFIG_VALUE, where, "control characters are not allowed");
      return false;
    }
  if (length > most) {
    config_problem_add(problems, ERR_CONFIG_VALUE, where, "too long: %zu bytes, at most %zu are allowed", length, most);
    return false;
  }
  if (length == 0 && key->kind == CONFIG_KIND_TEXT && key->low > 0) {
    config_problem_add(problems, ERR_CONFIG_VALUE, where, "must not be empty");
    return false;
  }
  const char *form = config_form_check(key->extra, text);
  if (form && key->kind != CONFIG_KIND_CHOICE) {
    char word[48];
    config_problem_add(problems, ERR_CONFIG_VALUE, where, "expected %s, found \"%s\"", form, shown(text, word));
    return false;
  }
  return true;
}

static bool choice_index(const char *choices, const char *text, unsigned *index) {
  *index = 0;
  for (const char *at = choices; *at; (*index)++) {
    size_t length = strcspn(at, "|");
    if (strlen(text) == length && strncmp(at, text, length) == 0)
      return true;
    at += length + (at[length] == '|');
  }
  return false;
}

bool config_scalar_set(const struct config_key *key, void *base, const char *text, size_t length, bool plain,
                       const struct config_where *where, struct config_problems *problems) {
  void *value = (char *)base + key->offset;
  int64_t number;
  unsigned index;
  if (is_null(text, plain) && key->kind != CONFIG_KIND_TEXT)
    return refuse_type(key, "nothing", where, problems);
  switch (key->kind) {
  case CONFIG_KIND_TEXT:
    if (!text_is_sound(key, text, length, where, problems))
      return false;
    base_free(*(char **)value);
    *(char **)value = base_strdup(text);
    return true;
  case CONFIG_KIND_INT:
    if (!plain || !str_parse_i64(text, &number))
      return refuse_scalar(key, text, ERR_CONFIG_TYPE, where, problems);
    if (number < key->low || number > key->high)
      return refuse_scalar(key, text, ERR_CONFIG_VALUE, where, problems);
    *(int64_t *)value = number;
    return true;
  case CONFIG_KIND_BOOL:
    if (!plain || (!str_equal(text, "true") && !str_equal(text, "false")))
      return refuse_scalar(key, text, ERR_CONFIG_TYPE, where, problems);
    *(bool *)value = text[0] == 't';
    return true;
  case CONFIG_KIND_CHOICE:
    if (!choice_index(key->extra, text, &index))
      return refuse_scalar(key, text, ERR_CONFIG_VALUE, where, problems);
    *(unsigned *)value = index;
    return true;
  case CONFIG_KIND_LIST:
  case CONFIG_KIND_MAP:
  case CONFIG_KIND_JSON:
  case CONFIG_KIND_LISTENERS:
  case CONFIG_KIND_MODULES:
    break;
  }
  return refuse_scalar(key, text, ERR_CONFIG_TYPE, where, problems);
}

static const char *node_text(const yaml_node_t *node) {
  return (const char *)node->data.scalar.value;
}

static bool item_is_text(const struct config_key *key, const yaml_node_t *node, const struct config_where *where,
                         struct config_problems *problems) {
  if (node->type != YAML_SCALAR_NODE || is_null(node_text(node), node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE))
    return refuse_type(key, "an item that is no text", where, problems);
  return text_is_sound(key, node_text(node), node->data.scalar.length, where, problems);
}

static struct config_where where_item(const struct config_where *where, const yaml_node_t *node) {
  struct config_where item = *where;
  if (where->line > 0) {
    item.line = (unsigned)node->start_mark.line + 1;
    item.column = (unsigned)node->start_mark.column + 1;
  }
  return item;
}

static bool list_set(const struct config_key *key, struct config_list *list, yaml_document_t *document,
                     yaml_node_t *node, const struct config_where *where, struct config_problems *problems) {
  if (node->type != YAML_SEQUENCE_NODE)
    return refuse_type(key, node->type == YAML_SCALAR_NODE ? "a single value" : "a mapping", where, problems);
  size_t count = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
  if (count > (size_t)key->high) {
    config_problem_add(problems, ERR_CONFIG_VALUE, where, "too many items: %zu, at most %lld are allowed", count,
                       (long long)key->high);
    return false;
  }
  for (size_t i = 0; i < count; i++) {
    yaml_node_t *item = yaml_document_get_node(document, node->data.sequence.items.start[i]);
    struct config_where at = where_item(where, item);
    if (!item_is_text(key, item, &at, problems))
      return false;
  }
  for (size_t i = 0; i < list->count; i++)
    base_free(list->items[i]);
  list->items = base_realloc_array(list->items, count ? count : 1, sizeof(char *));
  list->count = count;
  for (size_t i = 0; i < count; i++)
    list->items[i] = base_strdup(node_text(yaml_document_get_node(document, node->data.sequence.items.start[i])));
  return true;
}

static bool name_is_variable(const char *name) {
  for (const char *at = name; *at; at++)
    if (!(isalpha((unsigned char)*at) || *at == '_' || (at > name && isdigit((unsigned char)*at))))
      return false;
  return *name != '\0';
}

static bool map_set(const struct config_key *key, struct config_map *map, yaml_document_t *document, yaml_node_t *node,
                    const struct config_where *where, struct config_problems *problems) {
  if (node->type != YAML_MAPPING_NODE)
    return refuse_type(key, node->type == YAML_SCALAR_NODE ? "a single value" : "a list", where, problems);
  size_t count = (size_t)(node->data.mapping.pairs.top - node->data.mapping.pairs.start);
  if (count > (size_t)key->high) {
    config_problem_add(problems, ERR_CONFIG_VALUE, where, "too many entries: %zu, at most %lld are allowed", count,
                       (long long)key->high);
    return false;
  }
  for (size_t i = 0; i < count; i++) {
    yaml_node_t *name = yaml_document_get_node(document, node->data.mapping.pairs.start[i].key);
    yaml_node_t *text = yaml_document_get_node(document, node->data.mapping.pairs.start[i].value);
    struct config_where at = where_item(where, name);
    if (name->type != YAML_SCALAR_NODE || !name_is_variable(node_text(name))) {
      config_problem_add(problems, ERR_CONFIG_VALUE, &at, "expected the name of a variable: letters, digits and '_'");
      return false;
    }
    for (size_t j = 0; j < i; j++)
      if (str_equal(node_text(yaml_document_get_node(document, node->data.mapping.pairs.start[j].key)),
                    node_text(name))) {
        config_problem_add(problems, ERR_CONFIG_VALUE, &at, "the name appears twice");
        return false;
      }
    at = where_item(where, text);
    if (!item_is_text(key, text, &at, problems))
      return false;
  }
  for (size_t i = 0; i < map->count; i++) {
    base_free(map->items[i].key);
    base_free(map->items[i].value);
  }
  map->items = base_realloc_array(map->items, count ? count : 1, sizeof(struct config_pair));
  map->count = count;
  for (size_t i = 0; i < count; i++) {
    yaml_node_pair_t pair = node->data.mapping.pairs.start[i];
    map->items[i].key = base_strdup(node_text(yaml_document_get_node(document, pair.key)));
    map->items[i].value = base_strdup(node_text(yaml_document_get_node(document, pair.value)));
  }
  return true;
}

static bool json_set(const struct config_key *key, char **member, yaml_document_t *document, yaml_node_t *node,
                     const struct config_where *where, struct config_problems *problems) {
  if (node->type != YAML_MAPPING_NODE)
    return refuse_type(key, node->type == YAML_SCALAR_NODE ? "a single value" : "a list", where, problems);
  struct buf json = {0};
  const char *why = NULL;
  bool ok = config_json_from_node(document, node, (size_t)key->high, &json, &why);
  if (ok) {
    base_free(*member);
    *member = buf_take(&json);
  } else {
    config_problem_add(problems, ERR_CONFIG_VALUE, where, "%s", why);
  }
  buf_free(&json);
  return ok;
}

bool config_node_set(const struct config_key *key, void *base, yaml_document_t *document, yaml_node_t *node,
                     const struct config_where *where, struct config_problems *problems) {
  void *value = (char *)base + key->offset;
  if (key->kind == CONFIG_KIND_LIST)
    return list_set(key, value, document, node, where, problems);
  if (key->kind == CONFIG_KIND_MAP)
    return map_set(key, value, document, node, where, problems);
  if (key->kind == CONFIG_KIND_JSON)
    return json_set(key, value, document, node, where, problems);
  if (node->type != YAML_SCALAR_NODE)
    return refuse_type(key, node->type == YAML_MAPPING_NODE ? "a mapping" : "a list", where, problems);
  const char *text = node_text(node);
  bool plain = node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
  if (is_null(text, plain))
    return refuse_type(key, "nothing", where, problems);
  if (strlen(text) != node->data.scalar.length) {
    config_problem_add(problems, ERR_CONFIG_VALUE, where, "control characters are not allowed");
    return false;
  }
  return config_scalar_set(key, base, text, node->data.scalar.length, plain, where, problems);
}
