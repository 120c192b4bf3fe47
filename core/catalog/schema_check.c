/* schema_check.c: arguments and results against a compiled schema. The first rule that is broken is named with its
 * place, never with the value. Recursion is bounded by depth, work by a budget of steps; at a bound the arguments are
 * refused. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/catalog/schema_internal.h"
#include "sdk/base/json.h"

struct check {
  uint32_t budget;
  unsigned depth;
  bool gave_up;
  bool quiet; /* inside anyOf, not, …: no words wanted */
  enum error_code code;
  const char *subject; /* before the place */
  char place[160];
  size_t place_length;
  struct error *err;
};

static bool node_check(struct check *check, const struct schema_node *node, const json_t *value);

static bool broken(struct check *check, const char *rule) {
  if (!check->quiet)
    error_set(check->err, check->code, "%s%s: %s", check->subject, check->place_length ? check->place : "/", rule);
  return false;
}

static bool gave_up(struct check *check) {
  check->gave_up = true;
  return false;
}

static bool spend(struct check *check, uint32_t steps) {
  if (check->budget < steps)
    return gave_up(check);
  check->budget -= steps;
  return true;
}

/* Checks a part of the value; its place is said in messages. */
static bool part_check(struct check *check, const struct schema_node *node, const json_t *value, const char *name,
                       size_t index) {
  size_t kept = check->place_length, room = sizeof(check->place) - kept;
  int wrote =
      name ? snprintf(check->place + kept, room, "/%.60s", name) : snprintf(check->place + kept, room, "/%zu", index);
  check->place_length = wrote > 0 && (size_t)wrote < room ? kept + (size_t)wrote : sizeof(check->place) - 1;
  bool ok = node_check(check, node, value);
  check->place_length = kept;
  check->place[kept] = '\0';
  return ok;
}

static bool quiet_check(struct check *check, const struct schema_node *node, const json_t *value) {
  bool quiet = check->quiet;
  check->quiet = true;
  bool ok = node_check(check, node, value);
  check->quiet = quiet;
  return ok;
}

/* ---- equality ---- */

static bool numbers_equal(const json_t *a, const json_t *b) {
  if (json_is_integer(a) && json_is_integer(b))
    return json_integer_value(a) == json_integer_value(b);
  double x = json_number_value(a), y = json_number_value(b);
  return x >= y && x <= y;
}

/* Trees are at most JSON_DEPTH_MAX deep. */
bool schema_values_equal(const json_t *a, const json_t *b) {
  const char *key;
  json_t *item, *tree = (json_t *)(uintptr_t)a;
  if (json_is_number(a) && json_is_number(b))
    return numbers_equal(a, b);
  if (json_typeof(a) != json_typeof(b))
    return false;
  switch (json_typeof(a)) {
  case JSON_OBJECT:
    if (json_object_size(a) != json_object_size(b))
      return false;
    json_object_foreach(tree, key, item) {
      const json_t *other = json_object_get(b, key);
      if (!other || !schema_values_equal(item, other))
        return false;
    }
    return true;
  case JSON_ARRAY:
    if (json_array_size(a) != json_array_size(b))
      return false;
    for (size_t i = 0; i < json_array_size(a); i++)
      if (!schema_values_equal(json_array_get(a, i), json_array_get(b, i)))
        return false;
    return true;
  case JSON_STRING:
    return json_string_length(a) == json_string_length(b) &&
           memcmp(json_string_value(a), json_string_value(b), json_string_length(a)) == 0;
  default:
    return true;
  }
}

static uint64_t mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15u;
  return hash ^ (hash >> 29);
}

/* Equal values have equal hashes. */
static uint64_t value_hash(struct check *check, const json_t *value) {
  uint64_t hash = (uint64_t)json_typeof(value), sum = 0;
  const char *key;
  json_t *item, *tree = (json_t *)(uintptr_t)value;
  if (!spend(check, 1))
    return 0;
  if (json_is_number(value)) {
    double number = json_number_value(value) + 0.0; /* no -0 */
    uint64_t bits;
    memcpy(&bits, &number, sizeof(bits));
    return mix(JSON_REAL, bits);
  }
  if (json_is_string(value)) {
    spend(check, (uint32_t)json_string_length(value) / 8);
    for (size_t i = 0; i < json_string_length(value); i++)
      hash = mix(hash, (unsigned char)json_string_value(value)[i]);
  }
  for (size_t i = 0; i < json_array_size(value); i++)
    hash = mix(hash, value_hash(check, json_array_get(value, i)));
  json_object_foreach(tree, key, item) {
    uint64_t one = mix(value_hash(check, item), 1);
    for (const char *at = key; *at; at++)
      one = mix(one, (unsigned char)*at);
    sum += one; /* order does not matter */
  }
  return mix(hash, sum);
}

struct hashed {
  uint64_t hash;
  const json_t *value;
};

static int hashed_compare(const void *a, const void *b) {
  uint64_t x = ((const struct hashed *)a)->hash, y = ((const struct hashed *)b)->hash;
  return (x > y) - (x < y);
}

static bool unique_check(struct check *check, const json_t *array) {
  size_t count = json_array_size(array);
  struct hashed *items = base_calloc(count + 1, sizeof(*items));
  bool unique = true;
  for (size_t i = 0; i < count; i++)
    items[i] = (struct hashed){value_hash(check, json_array_get(array, i)), json_array_get(array, i)};
  qsort(items, count, sizeof(*items), hashed_compare);
  for (size_t i = 0; i < count && unique && !check->gave_up; i++)
    for (size_t k = i + 1; k < count && items[k].hash == items[i].hash && unique && spend(check, 16); k++)
      unique = !schema_values_equal(items[i].value, items[k].value);
  base_free(items);
  return !check->gave_up && (unique || broken(check, "two items are equal (uniqueItems)"));
}

/* ---- one rule each ---- */

static unsigned type_bits(const json_t *value) {
  double number;
  switch (json_typeof(value)) {
  case JSON_NULL:
    return SCHEMA_NULL;
  case JSON_TRUE:
  case JSON_FALSE:
    return SCHEMA_BOOLEAN;
  case JSON_OBJECT:
    return SCHEMA_OBJECT;
  case JSON_ARRAY:
    return SCHEMA_ARRAY;
  case JSON_STRING:
    return SCHEMA_STRING;
  case JSON_INTEGER:
    return SCHEMA_NUMBER | SCHEMA_INTEGER;
  default:
    number = json_real_value(value);
    return floor(number) < number ? SCHEMA_NUMBER : SCHEMA_NUMBER | SCHEMA_INTEGER;
  }
}

static bool number_check(struct check *check, const struct schema_node *node, const json_t *value) {
  double number = json_number_value(value);
  if (node->has_minimum && (number < node->minimum || (node->exclusive_minimum && number <= node->minimum)))
    return broken(check, node->exclusive_minimum ? "not above exclusiveMinimum" : "below minimum");
  if (node->has_maximum && (number > node->maximum || (node->exclusive_maximum && number >= node->maximum)))
    return broken(check, node->exclusive_maximum ? "not below exclusiveMaximum" : "above maximum");
  if (node->multiple_of > 0) {
    double times = number / node->multiple_of;
    if (!isfinite(times) || fabs(times - nearbyint(times)) > 1e-9 * fmax(1.0, fabs(times)))
      return broken(check, "not a multiple (multipleOf)");
  }
  return true;
}

static size_t character_count(const char *text, size_t length) {
  size_t count = 0;
  for (size_t i = 0; i < length; i++)
    count += ((unsigned char)text[i] & 0xc0) != 0x80;
  return count;
}

static bool pattern_matches(struct check *check, const struct schema_pattern *pattern, const char *text,
                            size_t length) {
  enum schema_match answer = schema_pattern_match(pattern, text, length, &check->budget);
  return answer == SCHEMA_MATCH_GAVE_UP ? gave_up(check) : answer == SCHEMA_MATCH_YES;
}

static bool string_check(struct check *check, const struct schema_node *node, const json_t *value) {
  const char *text = json_string_value(value);
  size_t length = json_string_length(value);
  if (node->min_length > 0 || node->max_length < SIZE_MAX) {
    size_t count = character_count(text, length);
    if (!spend(check, (uint32_t)(length / 16)))
      return false;
    if (count < node->min_length)
      return broken(check, "shorter than minLength");
    if (count > node->max_length)
      return broken(check, "longer than maxLength");
  }
  return !node->pattern || pattern_matches(check, node->pattern, text, length) ||
         broken(check, "does not match pattern");
}

static bool array_check(struct check *check, const struct schema_node *node, const json_t *value) {
  size_t count = json_array_size(value), contained = 0;
  if (count < node->min_items)
    return broken(check, "fewer items than minItems");
  if (count > node->max_items)
    return broken(check, "more items than maxItems");
  for (size_t i = 0; i < count; i++) {
    const struct schema_node *item = i < node->prefix.count ? node->prefix.nodes[i] : node->items;
    if (item && !part_check(check, item, json_array_get(value, i), NULL, i))
      return false;
    if (node->contains && quiet_check(check, node->contains, json_array_get(value, i)))
      contained++;
    if (check->gave_up)
      return false;
  }
  if (node->contains && (contained < node->min_contains || contained > node->max_contains))
    return broken(check, "the number of matching items is wrong (contains)");
  return !node->unique_items || unique_check(check, value);
}

static int member_find(const void *key, const void *member) {
  return strcmp(key, ((const struct schema_member *)member)->name);
}

static bool member_check(struct check *check, const struct schema_node *node, const char *name, const json_t *value) {
  const struct schema_member *known =
      node->property_count ? bsearch(name, node->properties, node->property_count, sizeof(*known), member_find) : NULL;
  bool named = known != NULL;
  if (known && !part_check(check, known->node, value, name, 0))
    return false;
  for (size_t i = 0; i < node->pattern_property_count; i++) {
    if (!pattern_matches(check, node->pattern_properties[i].pattern, name, strlen(name))) {
      if (check->gave_up)
        return false;
      continue;
    }
    named = true;
    if (!part_check(check, node->pattern_properties[i].node, value, name, 0))
      return false;
  }
  if (!named && node->additional) {
    if (node->additional->never) {
      char rule[128];
      snprintf(rule, sizeof(rule), "unknown member \"%.60s\" (additionalProperties)", name);
      return broken(check, rule);
    }
    if (!part_check(check, node->additional, value, name, 0))
      return false;
  }
  if (!node->property_names)
    return true;
  json_t *text = json_string(name);
  bool ok = part_check(check, node->property_names, text, name, 0);
  json_decref(text);
  return ok;
}

static bool required_check(struct check *check, const json_t *names, const json_t *value, const char *rule_name) {
  for (size_t i = 0; i < json_array_size(names); i++) {
    const char *name = json_string_value(json_array_get(names, i));
    char rule[128];
    if (!spend(check, 1))
      return false;
    if (json_object_get(value, name))
      continue;
    snprintf(rule, sizeof(rule), "member \"%.60s\" is missing (%s)", name, rule_name);
    return broken(check, rule);
  }
  return true;
}

static bool object_check(struct check *check, const struct schema_node *node, const json_t *value) {
  const char *name;
  json_t *item, *tree = (json_t *)(uintptr_t)value;
  if (json_object_size(value) < node->min_properties)
    return broken(check, "fewer members than minProperties");
  if (json_object_size(value) > node->max_properties)
    return broken(check, "more members than maxProperties");
  if (!required_check(check, node->required, value, "required"))
    return false;
  json_t *dependent = (json_t *)(uintptr_t)node->dependent_required;
  json_object_foreach(dependent, name, item) {
    if (json_object_get(value, name) && !required_check(check, item, value, "dependentRequired"))
      return false;
  }
  if (!node->property_count && !node->pattern_property_count && !node->additional && !node->property_names)
    return true;
  json_object_foreach(tree, name, item) {
    if (!spend(check, 1) || !member_check(check, node, name, item))
      return false;
  }
  return true;
}

static bool enum_check(struct check *check, const struct schema_node *node, const json_t *value) {
  for (size_t i = 0; i < json_array_size(node->enumeration); i++) {
    if (!spend(check, 1))
      return false;
    if (schema_values_equal(json_array_get(node->enumeration, i), value))
      return true;
  }
  return broken(check, "not one of the allowed values (enum)");
}

static bool combine_check(struct check *check, const struct schema_node *node, const json_t *value) {
  size_t matches = 0;
  for (size_t i = 0; i < node->all_of.count; i++)
    if (!node_check(check, node->all_of.nodes[i], value))
      return false;
  for (size_t i = 0; i < node->any_of.count && matches == 0; i++)
    matches += quiet_check(check, node->any_of.nodes[i], value);
  if (node->any_of.count && matches == 0)
    return broken(check, "matches none of anyOf");
  matches = 0;
  for (size_t i = 0; i < node->one_of.count && matches < 2; i++)
    matches += quiet_check(check, node->one_of.nodes[i], value);
  if (node->one_of.count && matches != 1)
    return broken(check, matches ? "matches more than one of oneOf" : "matches none of oneOf");
  if (node->negated && quiet_check(check, node->negated, value))
    return broken(check, "matches what it must not (not)");
  if (node->condition) {
    const struct schema_node *branch = quiet_check(check, node->condition, value) ? node->then : node->otherwise;
    if (branch && !node_check(check, branch, value))
      return false;
  }
  return !node->reference || node_check(check, node->reference, value);
}

static bool rules_check(struct check *check, const struct schema_node *node, const json_t *value) {
  unsigned bits = type_bits(value);
  if (node->types && !(node->types & bits))
    return broken(check, "wrong type");
  if (node->constant && !schema_values_equal(node->constant, value))
    return broken(check, "not the required value (const)");
  if (node->enumeration && !enum_check(check, node, value))
    return false;
  if ((bits & SCHEMA_NUMBER) && !number_check(check, node, value))
    return false;
  if ((bits & SCHEMA_STRING) && !string_check(check, node, value))
    return false;
  if ((bits & SCHEMA_ARRAY) && !array_check(check, node, value))
    return false;
  if ((bits & SCHEMA_OBJECT) && !object_check(check, node, value))
    return false;
  return combine_check(check, node, value);
}

static bool node_check(struct check *check, const struct schema_node *node, const json_t *value) {
  if (check->gave_up || !spend(check, 1))
    return false;
  if (node->never)
    return broken(check, "nothing is allowed here");
  if (check->depth == SCHEMA_CHECK_DEPTH_MAX)
    return gave_up(check);
  check->depth++;
  bool ok = rules_check(check, node, value);
  check->depth--;
  return ok && !check->gave_up; /* giving up inside `not` is no match */
}

static bool tree_check(const struct catalog_schema *schema, const json_t *tree, enum error_code code, const char *what,
                       struct error *err) {
  struct check check = {.budget = SCHEMA_CHECK_STEPS_MAX, .code = code, .err = err, .subject = ""};
  if (code == ERR_INVOKE_RESULT)
    check.subject = "the result does not match the tool's output schema: ";
  bool ok = !schema || node_check(&check, schema->root, tree);
  return check.gave_up ? error_set(err, code, "%s too costly to check against the schema", what) : ok;
}

bool catalog_schema_check(const struct catalog_schema *schema, const char *json, size_t length, struct error *err) {
  if (length > SCHEMA_ARGUMENTS_MAX_BYTES)
    return error_set(err, ERR_ARGUMENT_TOO_LARGE, "the arguments are larger than allowed");
  if (!json_check(json, length, JSON_DEPTH_MAX, NULL))
    return error_set(err, ERR_INVOKE_ARGUMENTS, "the arguments are not JSON, or nested too deeply");
  json_t *tree = schema_tree_load(json, length);
  bool ok = json_is_object(tree) ? tree_check(schema, tree, ERR_INVOKE_ARGUMENTS, "the arguments are", err)
                                 : error_set(err, ERR_INVOKE_ARGUMENTS,
                                             "the arguments are not one JSON object with each key given once");
  json_decref(tree);
  return ok;
}

bool catalog_schema_check_result(const struct catalog_schema *schema, const char *json, size_t length,
                                 struct error *err) {
  json_t *tree = NULL;
  if (length <= SCHEMA_ARGUMENTS_MAX_BYTES && json_check(json, length, JSON_DEPTH_MAX, NULL))
    tree = schema_tree_load(json, length);
  bool ok = tree
                ? tree_check(schema, tree, ERR_INVOKE_RESULT, "the result is", err)
                : error_set(err, ERR_INVOKE_RESULT, "the structured content is not one JSON value that can be checked");
  json_decref(tree);
  return ok;
}
