/* schema.c: compiles JSON Schema (2020-12, with the older spellings that are common) into nodes. Never recursive: what
 * is reachable waits in a list. Unknown keywords are annotations; a known keyword of the wrong form, a reference that
 * is not local or leads nowhere, and a pattern that cannot be matched in linear time are errors. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/catalog/schema_internal.h"
#include "sdk/base/json.h"

struct compiler {
  struct catalog_schema *schema;
  struct schema_node *pending;
  size_t node_count;
  struct error *err;
};

static bool wrong(struct compiler *compiler, const char *keyword, const char *why) {
  return error_set(compiler->err, ERR_CATALOG_INVALID, "schema: %.64s: %s", keyword, why);
}

json_t *schema_tree_load(const char *json, size_t length) {
  json_error_t problem;
  const size_t flags = JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL;
  json_t *tree = json_loadb(json, length, flags, &problem);
  if (!tree && json_error_code(&problem) == json_error_numeric_overflow)
    tree = json_loadb(json, length, flags | JSON_DECODE_INT_AS_REAL, &problem);
  return tree;
}

/* The node of a subschema, made when it is met first. NULL: no schema, or too many. */
static struct schema_node *node_get(struct compiler *compiler, const json_t *source, const char *keyword) {
  struct schema_node *node = NULL;
  if (!json_is_object(source) && !json_is_boolean(source)) {
    wrong(compiler, keyword, "is not a schema");
    return NULL;
  }
  if (json_is_object(source))
    HASH_FIND_PTR(compiler->schema->nodes, &source, node);
  if (node)
    return node;
  if (compiler->node_count++ == SCHEMA_NODES_MAX) {
    wrong(compiler, keyword, "too many subschemas");
    return NULL;
  }
  node = BASE_NEW(struct schema_node);
  node->source = source;
  node->max_length = node->max_items = node->max_properties = node->max_contains = SIZE_MAX;
  node->min_contains = 1;
  node->never = json_is_false(source);
  node->pending = compiler->pending;
  compiler->pending = node;
  /* Booleans are shared values of the tree's library: kept under their node's own address. */
  if (json_is_object(source)) {
    HASH_ADD_PTR(compiler->schema->nodes, source, node);
  } else {
    node->source = (const json_t *)(const void *)node;
    HASH_ADD_PTR(compiler->schema->nodes, source, node);
  }
  return node;
}

static bool child(struct compiler *compiler, const json_t *value, const char *keyword, struct schema_node **target) {
  *target = node_get(compiler, value, keyword);
  return *target != NULL;
}

static bool child_list(struct compiler *compiler, const json_t *value, const char *keyword, struct schema_list *list) {
  if (!json_is_array(value))
    return wrong(compiler, keyword, "is not an array");
  list->nodes = base_calloc(json_array_size(value) + 1, sizeof(*list->nodes));
  for (; list->count < json_array_size(value); list->count++) {
    list->nodes[list->count] = node_get(compiler, json_array_get(value, list->count), keyword);
    if (!list->nodes[list->count])
      return false;
  }
  return true;
}

static struct schema_pattern *pattern_get(struct compiler *compiler, const char *text, size_t length,
                                          const char *keyword) {
  const char *why = "too many patterns";
  struct schema_pattern *pattern =
      compiler->schema->pattern_count < SCHEMA_PATTERNS_MAX ? schema_pattern_compile(text, length, &why) : NULL;
  if (pattern)
    compiler->schema->patterns[compiler->schema->pattern_count++] = pattern;
  else
    wrong(compiler, keyword, why);
  return pattern;
}

/* ---- keywords: each function compiles one form of value into its node ---- */

typedef bool keyword_compile(struct compiler *compiler, struct schema_node *node, const char *keyword,
                             const json_t *value);

static const struct {
  const char *name;
  unsigned bits;
} type_names[] = {
    {"null", SCHEMA_NULL},     {"boolean", SCHEMA_BOOLEAN}, {"object", SCHEMA_OBJECT},   {"array", SCHEMA_ARRAY},
    {"number", SCHEMA_NUMBER}, {"string", SCHEMA_STRING},   {"integer", SCHEMA_INTEGER},
};

static bool type_add(struct compiler *compiler, struct schema_node *node, const json_t *value) {
  for (size_t i = 0; i < sizeof(type_names) / sizeof(type_names[0]); i++)
    if (str_equal(json_string_value(value), type_names[i].name)) {
      node->types |= type_names[i].bits;
      return true;
    }
  return wrong(compiler, "type", "is not a type");
}

static bool compile_type(struct compiler *compiler, struct schema_node *node, const char *keyword,
                         const json_t *value) {
  if (!json_is_array(value))
    return type_add(compiler, node, value);
  if (!json_array_size(value))
    return wrong(compiler, keyword, "is empty");
  for (size_t i = 0; i < json_array_size(value); i++)
    if (!type_add(compiler, node, json_array_get(value, i)))
      return false;
  return true;
}

static bool compile_number(struct compiler *compiler, struct schema_node *node, const char *keyword,
                           const json_t *value) {
  bool maximum = strstr(keyword, "aximum") != NULL, exclusive = str_starts_with(keyword, "exclusive");
  if (exclusive && json_is_boolean(value)) { /* draft 4 */
    *(maximum ? &node->exclusive_maximum : &node->exclusive_minimum) |= json_is_true(value);
    return true;
  }
  if (!json_is_number(value))
    return wrong(compiler, keyword, "is not a number");
  double number = json_number_value(value);
  if (str_equal(keyword, "multipleOf")) {
    node->multiple_of = number;
    return number > 0 || wrong(compiler, keyword, "is not positive");
  }
  bool *has = maximum ? &node->has_maximum : &node->has_minimum;
  double *bound = maximum ? &node->maximum : &node->minimum;
  bool *strict = maximum ? &node->exclusive_maximum : &node->exclusive_minimum;
  bool tighter = !*has || (maximum ? number < *bound : number > *bound);
  if (tighter || (number <= *bound && number >= *bound))
    *strict = exclusive || (*strict && !tighter) || (*strict && !*has);
  if (tighter)
    *bound = number;
  *has = true;
  return true;
}

static bool compile_size(struct compiler *compiler, struct schema_node *node, const char *keyword,
                         const json_t *value) {
  const struct {
    const char *name;
    size_t *target;
  } sizes[] = {{"minLength", &node->min_length},         {"maxLength", &node->max_length},
               {"minItems", &node->min_items},           {"maxItems", &node->max_items},
               {"minProperties", &node->min_properties}, {"maxProperties", &node->max_properties},
               {"minContains", &node->min_contains},     {"maxContains", &node->max_contains}};
  double number = json_is_number(value) ? json_number_value(value) : -1;
  if (number < 0 || number > 0x1p53 || floor(number) < number)
    return wrong(compiler, keyword, "is not a count");
  for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
    if (str_equal(keyword, sizes[i].name))
      *sizes[i].target = (size_t)number;
  return true;
}

static bool compile_unique(struct compiler *compiler, struct schema_node *node, const char *keyword,
                           const json_t *value) {
  node->unique_items = json_is_true(value);
  return json_is_boolean(value) || wrong(compiler, keyword, "is not true or false");
}

static bool compile_pattern(struct compiler *compiler, struct schema_node *node, const char *keyword,
                            const json_t *value) {
  if (!json_is_string(value))
    return wrong(compiler, keyword, "is not a string");
  node->pattern = pattern_get(compiler, json_string_value(value), json_string_length(value), keyword);
  return node->pattern != NULL;
}

static int member_compare(const void *a, const void *b) {
  return strcmp(((const struct schema_member *)a)->name, ((const struct schema_member *)b)->name);
}

static bool compile_properties(struct compiler *compiler, struct schema_node *node, const char *keyword,
                               const json_t *value) {
  const char *name;
  json_t *item, *tree = (json_t *)(uintptr_t)value; /* only read */
  if (!json_is_object(value))
    return wrong(compiler, keyword, "is not an object");
  node->properties = base_calloc(json_object_size(value) + 1, sizeof(*node->properties));
  json_object_foreach(tree, name, item) {
    struct schema_node *made = node_get(compiler, item, keyword);
    if (!made)
      return false;
    node->properties[node->property_count++] = (struct schema_member){name, made};
  }
  qsort(node->properties, node->property_count, sizeof(*node->properties), member_compare);
  return true;
}

static bool compile_pattern_properties(struct compiler *compiler, struct schema_node *node, const char *keyword,
                                       const json_t *value) {
  const char *name;
  json_t *item, *tree = (json_t *)(uintptr_t)value;
  if (!json_is_object(value))
    return wrong(compiler, keyword, "is not an object");
  node->pattern_properties = base_calloc(json_object_size(value) + 1, sizeof(*node->pattern_properties));
  json_object_foreach(tree, name, item) {
    struct schema_pattern *pattern = pattern_get(compiler, name, strlen(name), keyword);
    struct schema_node *made = pattern ? node_get(compiler, item, keyword) : NULL;
    if (!made)
      return false;
    node->pattern_properties[node->pattern_property_count++] = (struct schema_pattern_member){pattern, made};
  }
  return true;
}

static bool names_are_strings(const json_t *names) {
  for (size_t i = 0; i < json_array_size(names); i++)
    if (!json_is_string(json_array_get(names, i)))
      return false;
  return json_is_array(names);
}

static bool compile_required(struct compiler *compiler, struct schema_node *node, const char *keyword,
                             const json_t *value) {
  if (json_is_boolean(value))
    return true; /* draft 3: said of the property; an annotation now */
  node->required = value;
  return names_are_strings(value) || wrong(compiler, keyword, "is not a list of names");
}

static bool compile_dependent_required(struct compiler *compiler, struct schema_node *node, const char *keyword,
                                       const json_t *value) {
  const char *name;
  json_t *item, *tree = (json_t *)(uintptr_t)value;
  if (!json_is_object(value))
    return wrong(compiler, keyword, "is not an object");
  json_object_foreach(tree, name, item) if (!names_are_strings(item)) return wrong(compiler, keyword,
                                                                                   "is not a list of names");
  node->dependent_required = value;
  return true;
}

static bool compile_items(struct compiler *compiler, struct schema_node *node, const char *keyword,
                          const json_t *value) {
  if (!json_is_array(value))
    return child(compiler, value, keyword, &node->items);
  const json_t *rest = json_object_get(node->source, "additionalItems"); /* until 2019-09 */
  return child_list(compiler, value, keyword, &node->prefix) &&
         (!rest || child(compiler, rest, "additionalItems", &node->items));
}

static bool compile_enum(struct compiler *compiler, struct schema_node *node, const char *keyword,
                         const json_t *value) {
  node->enumeration = value;
  return json_is_array(value) || wrong(compiler, keyword, "is not an array");
}

static bool compile_const(struct compiler *compiler, struct schema_node *node, const char *keyword,
                          const json_t *value) {
  (void)compiler, (void)keyword;
  node->constant = value;
  return true;
}

static bool compile_list(struct compiler *compiler, struct schema_node *node, const char *keyword,
                         const json_t *value) {
  struct schema_list *list = str_equal(keyword, "allOf")   ? &node->all_of
                             : str_equal(keyword, "anyOf") ? &node->any_of
                             : str_equal(keyword, "oneOf") ? &node->one_of
                                                           : &node->prefix;
  return child_list(compiler, value, keyword, list) &&
         (list->count > 0 || list == &node->prefix || wrong(compiler, keyword, "is empty"));
}

static bool compile_child(struct compiler *compiler, struct schema_node *node, const char *keyword,
                          const json_t *value) {
  const struct {
    const char *name;
    struct schema_node **target;
  } children[] = {{"additionalProperties", &node->additional},
                  {"propertyNames", &node->property_names},
                  {"contains", &node->contains},
                  {"not", &node->negated},
                  {"if", &node->condition},
                  {"then", &node->then},
                  {"else", &node->otherwise}};
  for (size_t i = 0; i < sizeof(children) / sizeof(children[0]); i++)
    if (str_equal(keyword, children[i].name))
      return child(compiler, value, keyword, children[i].target);
  return true;
}

/* ---- references ---- */

/* One step of a JSON pointer: "~1", "~0" and percent escapes undone. Owned; NULL: malformed. */
static char *pointer_step(const char *text, size_t length) {
  struct buf step = {0};
  for (size_t i = 0; i < length; i++) {
    char character = text[i];
    if (character == '%') {
      const char digits[3] = {i + 2 < length ? text[i + 1] : '\0', i + 2 < length ? text[i + 2] : '\0', '\0'};
      uint8_t decoded;
      if (!str_hex_decode(&decoded, 1, digits) || !decoded) {
        buf_free(&step);
        return NULL;
      }
      character = (char)decoded;
      i += 2;
    } else if (character == '~') {
      i++;
      if (i == length || (text[i] != '0' && text[i] != '1')) {
        buf_free(&step);
        return NULL;
      }
      character = text[i] == '1' ? '/' : '~';
    }
    buf_append_char(&step, character);
  }
  return buf_take(&step);
}

static const json_t *pointer_resolve(const json_t *at, const char *pointer) {
  while (at && *pointer == '/') {
    size_t length = strcspn(++pointer, "/");
    char *step = pointer_step(pointer, length);
    uint64_t index;
    if (!step)
      return NULL;
    at = json_is_object(at)                                 ? json_object_get(at, step)
         : json_is_array(at) && str_parse_u64(step, &index) ? json_array_get(at, (size_t)index)
                                                            : NULL;
    base_free(step);
    pointer += length;
  }
  return *pointer ? NULL : at;
}

/* A subschema of $defs with that $anchor: where anchors stand in practice. */
static const json_t *anchor_resolve(json_t *tree, const char *anchor) {
  static const char *const places[] = {"$defs", "definitions"};
  const char *name;
  json_t *item;
  if (str_equal(json_string_value(json_object_get(tree, "$anchor")), anchor))
    return tree;
  for (size_t i = 0; i < 2; i++) {
    json_object_foreach(json_object_get(tree, places[i]), name, item) {
      if (str_equal(json_string_value(json_object_get(item, "$anchor")), anchor))
        return item;
    }
  }
  return NULL;
}

static bool compile_reference(struct compiler *compiler, struct schema_node *node, const char *keyword,
                              const json_t *value) {
  const char *text = json_string_value(value);
  if (!text || *text != '#')
    return wrong(compiler, keyword, "is not local; nothing is fetched");
  const json_t *target = text[1] == '/' || !text[1] ? pointer_resolve(compiler->schema->tree, text + 1)
                                                    : anchor_resolve(compiler->schema->tree, text + 1);
  if (!target)
    return wrong(compiler, keyword, "leads nowhere");
  return child(compiler, target, keyword, &node->reference);
}

/* ---- the table ---- */

static const struct {
  const char *keyword;
  keyword_compile *compile;
} keywords[] = {
    {"$ref", compile_reference},
    {"$dynamicRef", compile_reference},
    {"additionalProperties", compile_child},
    {"allOf", compile_list},
    {"anyOf", compile_list},
    {"const", compile_const},
    {"contains", compile_child},
    {"dependentRequired", compile_dependent_required},
    {"else", compile_child},
    {"enum", compile_enum},
    {"exclusiveMaximum", compile_number},
    {"exclusiveMinimum", compile_number},
    {"if", compile_child},
    {"items", compile_items},
    {"maxContains", compile_size},
    {"maxItems", compile_size},
    {"maxLength", compile_size},
    {"maxProperties", compile_size},
    {"maximum", compile_number},
    {"minContains", compile_size},
    {"minItems", compile_size},
    {"minLength", compile_size},
    {"minProperties", compile_size},
    {"minimum", compile_number},
    {"multipleOf", compile_number},
    {"not", compile_child},
    {"oneOf", compile_list},
    {"pattern", compile_pattern},
    {"patternProperties", compile_pattern_properties},
    {"prefixItems", compile_list},
    {"properties", compile_properties},
    {"propertyNames", compile_child},
    {"required", compile_required},
    {"then", compile_child},
    {"type", compile_type},
    {"uniqueItems", compile_unique},
};

static bool node_compile(struct compiler *compiler, struct schema_node *node) {
  if (node->source == (const json_t *)(const void *)node)
    return true; /* true or false */
  for (size_t i = 0; i < sizeof(keywords) / sizeof(keywords[0]); i++) {
    const json_t *value = json_object_get(node->source, keywords[i].keyword);
    if (value && !keywords[i].compile(compiler, node, keywords[i].keyword, value))
      return false;
  }
  return true;
}

struct catalog_schema *catalog_schema_compile(const char *json, size_t length, struct error *err) {
  if (length > CATALOG_JSON_MAX_BYTES) {
    error_set(err, ERR_CATALOG_INVALID, "schema: larger than %u bytes", CATALOG_JSON_MAX_BYTES);
    return NULL;
  }
  json_t *tree = json_check(json, length, JSON_DEPTH_MAX, NULL) ? schema_tree_load(json, length) : NULL;
  if (!tree) {
    error_set(err, ERR_CATALOG_INVALID, "schema: not JSON, nested too deeply, or with a key given twice");
    return NULL;
  }
  struct catalog_schema *schema = BASE_NEW(struct catalog_schema);
  struct compiler compiler = {.schema = schema, .err = err};
  schema->magic = SCHEMA_MAGIC;
  schema->tree = tree;
  schema->root = node_get(&compiler, tree, "root");
  bool ok = schema->root != NULL;
  while (ok && compiler.pending) {
    struct schema_node *node = compiler.pending;
    compiler.pending = node->pending;
    ok = node_compile(&compiler, node);
  }
  if (!ok)
    catalog_schema_free(&schema);
  return schema;
}

void catalog_schema_free(struct catalog_schema **schema) {
  struct catalog_schema *gone = *schema;
  struct schema_node *node, *next;
  if (!gone)
    return;
  BASE_CHECK_MAGIC(gone, SCHEMA_MAGIC);
  *schema = NULL;
  if (gone->holds > 0) {
    gone->holds--;
    return;
  }
  HASH_ITER(hh, gone->nodes, node, next) {
    HASH_DEL(gone->nodes, node);
    base_free(node->properties);
    base_free(node->pattern_properties);
    base_free(node->prefix.nodes);
    base_free(node->all_of.nodes);
    base_free(node->any_of.nodes);
    base_free(node->one_of.nodes);
    base_free(node);
  }
  for (size_t i = 0; i < gone->pattern_count; i++)
    schema_pattern_free(&gone->patterns[i]);
  json_decref(gone->tree);
  gone->magic = 0;
  base_free(gone);
}

bool catalog_schema_has_property(const struct catalog_schema *schema, const char *name, size_t length) {
  if (!schema)
    return false;
  for (size_t i = 0; i < schema->root->property_count; i++)
    if (strlen(schema->root->properties[i].name) == length &&
        memcmp(schema->root->properties[i].name, name, length) == 0)
      return true;
  return false;
}

const struct catalog_schema *catalog_schema_hold(const struct catalog_schema *schema) {
  struct catalog_schema *held = (struct catalog_schema *)(uintptr_t)schema;
  if (held)
    held->holds++;
  return schema;
}

void catalog_schema_release(const struct catalog_schema **schema) {
  struct catalog_schema *held = (struct catalog_schema *)(uintptr_t)*schema;
  *schema = NULL;
  catalog_schema_free(&held);
}
