/* schema_internal.h: a compiled JSON Schema, shared by schema.c (makes it), schema_check.c (applies it) and pattern.c.
 *
 * A schema document becomes nodes, one for each subschema that is reachable; references are pointers, so cycles are
 * plain. Bounds: nodes and pattern instructions when compiling; depth and a budget of steps when checking, so that no
 * schema, however hostile, and no argument can hold the core thread for long. */
#ifndef GATEHOUSE_CORE_CATALOG_SCHEMA_INTERNAL_H
#define GATEHOUSE_CORE_CATALOG_SCHEMA_INTERNAL_H

#include <jansson.h>

#include "core/catalog/catalog_internal.h"

#define SCHEMA_NODES_MAX 20000u
#define SCHEMA_PATTERN_INSTRUCTIONS_MAX 4000u /* of one pattern */
#define SCHEMA_PATTERNS_MAX 256u
#define SCHEMA_CHECK_DEPTH_MAX 192u
#define SCHEMA_CHECK_STEPS_MAX 2000000u /* node visits, comparisons, pattern steps */
#define SCHEMA_ARGUMENTS_MAX_BYTES (4u << 20)

/* Bits of "type". */
enum schema_type {
  SCHEMA_NULL = 1,
  SCHEMA_BOOLEAN = 2,
  SCHEMA_OBJECT = 4,
  SCHEMA_ARRAY = 8,
  SCHEMA_NUMBER = 16,
  SCHEMA_STRING = 32,
  SCHEMA_INTEGER = 64, /* numbers without fraction; alone it excludes others */
};

struct schema_node;
struct schema_pattern;

struct schema_member {
  const char *name; /* of the tree */
  struct schema_node *node;
};
struct schema_pattern_member {
  struct schema_pattern *pattern;
  struct schema_node *node;
};
struct schema_list {
  struct schema_node **nodes;
  size_t count;
};

struct schema_node {
  UT_hash_handle hh; /* by source, while compiling */
  const json_t *source;
  struct schema_node *pending; /* to be compiled */
  bool never;                  /* the schema false */
  unsigned types;              /* 0: any */
  /* numbers */
  bool has_minimum, has_maximum, exclusive_minimum, exclusive_maximum;
  double minimum, maximum, multiple_of; /* multiple_of 0: none */
  /* sizes; max: SIZE_MAX for none */
  size_t min_length, max_length, min_items, max_items, min_properties, max_properties, min_contains, max_contains;
  bool unique_items;
  struct schema_pattern *pattern;
  /* objects */
  struct schema_member *properties; /* sorted by name */
  size_t property_count;
  struct schema_pattern_member *pattern_properties;
  size_t pattern_property_count;
  struct schema_node *additional, *property_names;
  const json_t *required, *dependent_required;
  /* arrays */
  struct schema_list prefix;
  struct schema_node *items, *contains;
  /* any */
  const json_t *enumeration, *constant;
  struct schema_list all_of, any_of, one_of;
  struct schema_node *negated, *condition, *then, *otherwise, *reference;
};

#define SCHEMA_MAGIC 0x53434845u
struct catalog_schema {
  uint32_t magic;
  unsigned holds; /* beside the owner's */
  json_t *tree;
  struct schema_node *nodes; /* hash by source; the root is `root` */
  struct schema_node *root;
  struct schema_pattern *patterns[SCHEMA_PATTERNS_MAX];
  size_t pattern_count;
};

/* ---- pattern.c ---- */

/* Compiles a regular expression (the part of ECMA-262 that can be matched in linear time: no look-around, no
 * back-references). NULL with *why for others. */
struct schema_pattern *schema_pattern_compile(const char *text, size_t length, const char **why);
void schema_pattern_free(struct schema_pattern **pattern);
enum schema_match { SCHEMA_MATCH_NO, SCHEMA_MATCH_YES, SCHEMA_MATCH_GAVE_UP };
/* Whether the pattern matches somewhere in the UTF-8 text; takes its steps from *budget. */
enum schema_match schema_pattern_match(const struct schema_pattern *pattern, const char *text, size_t length,
                                       uint32_t *budget);

/* ---- schema_check.c ---- */

/* Equal as JSON Schema sees it: 1 is 1.0. */
bool schema_values_equal(const json_t *a, const json_t *b);

/* The tree of a JSON text that was checked for depth; duplicate keys are errors. */
json_t *schema_tree_load(const char *json, size_t length);

#endif
