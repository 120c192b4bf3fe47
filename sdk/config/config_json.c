/* config_json.c: a free-form YAML mapping as compact JSON. Plain scalars follow the JSON types: true, false, null (also
 * ~ and nothing) and whatever is a JSON number; everything else, and everything in quotes, is a string. Aliases are
 * expanded; depth and size are bounded, so that an alias bomb or a cycle ends in an error. */
#include <string.h>

#include "sdk/base/json.h"
#include "sdk/base/str.h"
#include "sdk/config/config_internal.h"

#define DEPTH_MAX 32

struct json_writer {
  yaml_document_t *document;
  struct buf *target;
  size_t limit_bytes;
  const char *why;
};

static bool fail(struct json_writer *writer, const char *why) {
  writer->why = why;
  return false;
}

static bool is_json_number(const char *text, size_t length) {
  return length > 0 && (text[0] == '-' || (text[0] >= '0' && text[0] <= '9')) && json_check(text, length, 1, NULL);
}

static void write_scalar(struct json_writer *writer, const yaml_node_t *node) {
  const char *text = (const char *)node->data.scalar.value;
  size_t length = node->data.scalar.length;
  bool plain = node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
  if (plain && (length == 0 || str_equal(text, "~") || str_equal(text, "null")))
    buf_append_text(writer->target, "null");
  else if (plain && (str_equal(text, "true") || str_equal(text, "false") || is_json_number(text, length)))
    buf_append_text(writer->target, text);
  else
    buf_append_json_string(writer->target, text, length);
}

static bool write_node(struct json_writer *writer, const yaml_node_t *node, unsigned depth);

static bool write_mapping(struct json_writer *writer, const yaml_node_t *node, unsigned depth) {
  const yaml_node_pair_t *first = node->data.mapping.pairs.start;
  buf_append_char(writer->target, '{');
  for (const yaml_node_pair_t *pair = first; pair < node->data.mapping.pairs.top; pair++) {
    const yaml_node_t *key = yaml_document_get_node(writer->document, pair->key);
    if (key->type != YAML_SCALAR_NODE)
      return fail(writer, "the keys of a free-form mapping must be texts");
    for (const yaml_node_pair_t *other = first; other < pair; other++) {
      const yaml_node_t *earlier = yaml_document_get_node(writer->document, other->key);
      if (earlier->data.scalar.length == key->data.scalar.length &&
          memcmp(earlier->data.scalar.value, key->data.scalar.value, key->data.scalar.length) == 0)
        return fail(writer, "a key of a free-form mapping appears twice");
    }
    if (pair > first)
      buf_append_char(writer->target, ',');
    buf_append_json_string(writer->target, (const char *)key->data.scalar.value, key->data.scalar.length);
    buf_append_char(writer->target, ':');
    if (!write_node(writer, yaml_document_get_node(writer->document, pair->value), depth + 1))
      return false;
  }
  buf_append_char(writer->target, '}');
  return true;
}

static bool write_sequence(struct json_writer *writer, const yaml_node_t *node, unsigned depth) {
  buf_append_char(writer->target, '[');
  for (const yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top; item++) {
    if (item > node->data.sequence.items.start)
      buf_append_char(writer->target, ',');
    if (!write_node(writer, yaml_document_get_node(writer->document, *item), depth + 1))
      return false;
  }
  buf_append_char(writer->target, ']');
  return true;
}

static bool write_node(struct json_writer *writer, const yaml_node_t *node, unsigned depth) {
  if (depth > DEPTH_MAX)
    return fail(writer, "a free-form mapping is nested too deeply");
  if (writer->target->length > writer->limit_bytes)
    return fail(writer, "a free-form mapping is too large");
  if (node->type == YAML_MAPPING_NODE)
    return write_mapping(writer, node, depth);
  if (node->type == YAML_SEQUENCE_NODE)
    return write_sequence(writer, node, depth);
  write_scalar(writer, node);
  return true;
}

bool config_json_from_node(yaml_document_t *document, yaml_node_t *node, size_t limit_bytes, struct buf *target,
                           const char **why) {
  struct json_writer writer = {.document = document, .target = target, .limit_bytes = limit_bytes};
  bool ok = write_node(&writer, node, 0) &&
            (target->length <= limit_bytes || fail(&writer, "a free-form mapping is too large"));
  *why = writer.why;
  return ok;
}
