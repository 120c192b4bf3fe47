/* yaml_read.c: YAML documents to JSON. libyaml's parser gives events with places and tags (its own document form
 * forgets whether a tag was written); from these a small tree is made per document, in an arena, and written as JSON.
 *
 * Bounds, since the file may come from anywhere: size of the text, depth of the tree and of what aliases expand to,
 * size of the JSON. An alias can only name what is complete, so there are no cycles. Duplicate keys, keys that are no
 * scalars, merge keys and unknown tags are refused, each with its place. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "sdk/base/arena.h"
#include "sdk/base/json.h"
#include "sdk/base/str.h"
#include "supervisor/ctl/ctl_internal.h"

#define JSON_BYTES_MAX CTL_YAML_BYTES_MAX
#define DOCUMENTS_MAX 10000
#define NODES_MAX 500000 /* of one document */
#define ANCHORS_MAX 1000
#define CORE_TAG "tag:yaml.org,2002:"

enum node_kind { NODE_SCALAR, NODE_LIST, NODE_MAP };

struct node {
  enum node_kind kind;
  const char *text; /* scalars */
  size_t length;
  bool plain, text_tag;
  unsigned line, column;
  struct node *key;          /* of a map's member */
  struct node *first, *next; /* children, in order */
  struct node *last;
  struct node *target; /* an alias: what it stands for */
  size_t count;
};

struct anchor {
  const char *name;
  struct node *node; /* NULL: not complete yet */
  struct anchor *next;
};

struct reader {
  const char *file;
  const char *data;
  yaml_parser_t parser;
  yaml_event_t event;
  bool has_event;
  struct arena *arena;
  struct anchor *anchors; /* newest first: a name may be used again */
  unsigned node_count, anchor_count;
  struct error *err;
};

static bool refuse_at(struct reader *reader, enum error_code code, size_t line, size_t column, const char *why) {
  return error_set(reader->err, code, "%.100s:%zu:%zu: %s", reader->file, line, column, why);
}

static bool refuse(struct reader *reader, const struct node *node, const char *why) {
  return refuse_at(reader, ERR_CONFIG_SYNTAX, node->line, node->column, why);
}

/* A flaw of the bytes has an offset only: the place is counted. */
static bool refuse_parser(struct reader *reader) {
  const yaml_parser_t *parser = &reader->parser;
  size_t line = parser->problem_mark.line, column = parser->problem_mark.column;
  const char *why = parser->problem ? parser->problem : "not valid YAML";
  if (parser->error == YAML_READER_ERROR) {
    line = column = 0;
    for (size_t i = 0; i < parser->problem_offset; i++) {
      column = reader->data[i] == '\n' ? 0 : column + 1;
      line += reader->data[i] == '\n';
    }
  }
  return refuse_at(reader, ERR_CONFIG_SYNTAX, line + 1, column + 1, why);
}

static bool next_event(struct reader *reader) {
  if (reader->has_event)
    yaml_event_delete(&reader->event);
  reader->has_event = yaml_parser_parse(&reader->parser, &reader->event);
  return reader->has_event || refuse_parser(reader);
}

/* ---- events to nodes ---- */

static struct node *node_new(struct reader *reader, enum node_kind kind) {
  struct node *node = arena_alloc(reader->arena, sizeof(*node));
  node->kind = kind;
  node->line = (unsigned)reader->event.start_mark.line + 1;
  node->column = (unsigned)reader->event.start_mark.column + 1;
  reader->node_count++;
  return node;
}

static struct anchor *anchor_add(struct reader *reader, const yaml_char_t *name) {
  if (!name)
    return NULL;
  struct anchor *anchor = arena_alloc(reader->arena, sizeof(*anchor));
  anchor->name = arena_strdup(reader->arena, (const char *)name);
  anchor->next = reader->anchors;
  reader->anchor_count++;
  reader->anchors = anchor;
  return anchor;
}

static bool read_alias(struct reader *reader, struct node **out) {
  const char *name = (const char *)reader->event.data.alias.anchor;
  struct node *node = node_new(reader, NODE_SCALAR);
  const struct anchor *anchor = reader->anchors;
  while (anchor && !str_equal(anchor->name, name))
    anchor = anchor->next;
  if (!anchor)
    return refuse(reader, node, "an alias without an anchor");
  if (!anchor->node)
    return refuse(reader, node, "an alias to what it is part of");
  node->kind = anchor->node->kind;
  node->target = anchor->node;
  *out = node;
  return true;
}

/* Tags of the JSON types only; on scalars "!" and !!str mean text, the others must fit what is written anyway. */
static bool check_tag(struct reader *reader, struct node *node, const yaml_char_t *tag) {
  static const char *const fitting[] = {
      [NODE_SCALAR] = CORE_TAG "str", [NODE_LIST] = CORE_TAG "seq", [NODE_MAP] = CORE_TAG "map"};
  if (!tag)
    return true;
  if (str_equal((const char *)tag, "!") || str_equal((const char *)tag, fitting[node->kind])) {
    node->text_tag = node->kind == NODE_SCALAR;
    return true;
  }
  return refuse(reader, node, "this tag has no meaning here");
}

static bool read_scalar(struct reader *reader, struct node **out) {
  const yaml_event_t *event = &reader->event;
  struct node *node = node_new(reader, NODE_SCALAR);
  node->length = event->data.scalar.length;
  node->text = arena_memdup(reader->arena, event->data.scalar.value, node->length);
  node->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
  *out = node;
  if (memchr(node->text, '\0', node->length))
    return refuse(reader, node, "U+0000 is not allowed in a text");
  struct anchor *anchor = anchor_add(reader, event->data.scalar.anchor);
  if (anchor)
    anchor->node = node;
  return check_tag(reader, node, event->data.scalar.tag);
}

static bool read_node(struct reader *reader, unsigned depth, struct node **out);

static void append(struct node *parent, struct node *key, struct node *child) {
  child->key = key;
  if (parent->last)
    parent->last->next = child;
  else
    parent->first = child;
  parent->last = child;
  parent->count++;
}

/* The event is the start of a list or a map. */
static bool read_collection(struct reader *reader, unsigned depth, struct node **out) {
  bool map = reader->event.type == YAML_MAPPING_START_EVENT;
  struct node *node = node_new(reader, map ? NODE_MAP : NODE_LIST);
  struct anchor *anchor =
      anchor_add(reader, map ? reader->event.data.mapping_start.anchor : reader->event.data.sequence_start.anchor);
  *out = node;
  if (depth >= CTL_YAML_DEPTH_MAX)
    return refuse(reader, node, "nested too deeply");
  if (!check_tag(reader, node, map ? reader->event.data.mapping_start.tag : reader->event.data.sequence_start.tag))
    return false;
  for (;;) {
    struct node *key = NULL, *child = NULL;
    if (!next_event(reader))
      return false;
    if (reader->event.type == YAML_MAPPING_END_EVENT || reader->event.type == YAML_SEQUENCE_END_EVENT)
      break;
    if (map && (!read_node(reader, depth + 1, &key) || !next_event(reader)))
      return false;
    if (!read_node(reader, depth + 1, &child))
      return false;
    append(node, key, child);
  }
  if (anchor)
    anchor->node = node;
  return true;
}

static bool read_node(struct reader *reader, unsigned depth, struct node **out) {
  if (reader->node_count >= NODES_MAX || reader->anchor_count >= ANCHORS_MAX)
    return refuse_at(reader, ERR_ARGUMENT_TOO_LARGE, reader->event.start_mark.line + 1,
                     reader->event.start_mark.column + 1, "a document with too many values or anchors");
  switch (reader->event.type) {
  case YAML_ALIAS_EVENT:
    return read_alias(reader, out);
  case YAML_SCALAR_EVENT:
    return read_scalar(reader, out);
  default: /* the parser's grammar leaves the start of a collection only */
    return read_collection(reader, depth, out);
  }
}

/* ---- nodes to JSON ---- */

static const struct node *resolved(const struct node *node) {
  return node->target ? node->target : node;
}

static int by_key(const void *a, const void *b) {
  const struct node *left = *(const struct node *const *)a, *right = *(const struct node *const *)b;
  const struct node *left_key = resolved(left->key), *right_key = resolved(right->key);
  size_t common = left_key->length < right_key->length ? left_key->length : right_key->length;
  int order = memcmp(left_key->text, right_key->text, common);
  if (order == 0)
    order = (left_key->length > right_key->length) - (left_key->length < right_key->length);
  return order;
}

static bool check_keys(struct reader *reader, const struct node *map) {
  const struct node **sorted = base_calloc(map->count + 1, sizeof(*sorted)), *doubled = NULL;
  size_t count = 0;
  bool ok = true;
  for (const struct node *child = map->first; child && ok; child = child->next) {
    const struct node *key = resolved(child->key);
    if (key->kind != NODE_SCALAR)
      ok = refuse(reader, child->key, "a key is a text, not a list or a mapping");
    else if (key->plain && key->length == 2 && memcmp(key->text, "<<", 2) == 0)
      ok = refuse(reader, child->key, "merge keys (<<) are not part of YAML 1.2");
    else
      sorted[count++] = child;
  }
  if (ok) {
    qsort(sorted, count, sizeof(*sorted), by_key);
    for (size_t i = 1; i < count; i++)
      if (by_key(&sorted[i - 1], &sorted[i]) == 0) {
        const struct node *a = sorted[i - 1]->key, *b = sorted[i]->key;
        const struct node *later = a->line > b->line || (a->line == b->line && a->column > b->column) ? a : b;
        if (!doubled || later->line < doubled->line)
          doubled = later;
      }
    if (doubled) {
      char why[100];
      const struct node *key = resolved(doubled);
      snprintf(why, sizeof(why), "the key \"%.*s\" appears twice", (int)(key->length < 60 ? key->length : 60),
               key->text);
      ok = refuse(reader, doubled, why);
    }
  }
  base_free(sorted);
  return ok;
}

static bool write_scalar(struct reader *reader, const struct node *node, struct buf *target) {
  bool is_text;
  if (!node->plain || node->text_tag)
    buf_append_json_string(target, node->text, node->length);
  else if (!ctl_yaml_scalar_resolve(node->text, node->length, target, &is_text))
    return refuse(reader, node, "this number has no JSON form; quote it if it is a text");
  return true;
}

static bool write_node(struct reader *reader, const struct node *node, unsigned depth, struct buf *target) {
  const struct node *place = node;
  node = resolved(node);
  if (target->length > JSON_BYTES_MAX)
    return refuse_at(reader, ERR_ARGUMENT_TOO_LARGE, place->line, place->column, "the document expands beyond 8 MiB");
  if (depth >= CTL_YAML_DEPTH_MAX)
    return refuse(reader, place, "nested too deeply");
  if (node->kind == NODE_SCALAR)
    return write_scalar(reader, node, target);
  if (node->kind == NODE_MAP && !check_keys(reader, node))
    return false;
  buf_append_char(target, node->kind == NODE_MAP ? '{' : '[');
  for (const struct node *child = node->first; child; child = child->next) {
    if (child != node->first)
      buf_append_char(target, ',');
    if (child->key) {
      const struct node *key = resolved(child->key);
      buf_append_json_string(target, key->text, key->length);
      buf_append_char(target, ':');
    }
    if (!write_node(reader, child, depth + 1, target))
      return false;
  }
  buf_append_char(target, node->kind == NODE_MAP ? '}' : ']');
  return true;
}

/* ---- documents ---- */

static bool is_nothing(const struct node *node) {
  return node->kind == NODE_SCALAR && node->plain && node->length == 0;
}

/* The event is the start of a document. */
static bool read_document(struct reader *reader, struct ctl_documents *documents) {
  struct node *root = NULL;
  struct buf json = {0};
  reader->anchors = NULL;
  reader->node_count = reader->anchor_count = 0;
  if (!next_event(reader) || !read_node(reader, 0, &root))
    return false;
  if (!is_nothing(root)) {
    if (resolved(root)->kind != NODE_MAP)
      return refuse(reader, root, "a document is a mapping");
    if (documents->count >= DOCUMENTS_MAX)
      return refuse(reader, root, "more than 10000 documents");
    if (!write_node(reader, root, 0, &json)) {
      buf_free(&json);
      return false;
    }
    documents->items = base_realloc_array(documents->items, documents->count + 1, sizeof(struct ctl_document));
    struct ctl_document *document = &documents->items[documents->count++];
    document->length = json.length;
    document->json = buf_take(&json);
    document->file = base_strdup(reader->file);
    document->line = root->line;
  }
  arena_reset(reader->arena);
  return next_event(reader); /* the end of the document */
}

bool ctl_yaml_read(const char *file, const char *data, size_t length, struct ctl_documents *documents,
                   struct error *err) {
  struct reader reader = {.file = file, .data = data, .err = err};
  bool ok;
  if (length > CTL_YAML_BYTES_MAX)
    return error_set(err, ERR_ARGUMENT_TOO_LARGE, "%.100s:1:1: larger than 8 MiB", file);
  if (!yaml_parser_initialize(&reader.parser))
    abort();
  yaml_parser_set_encoding(&reader.parser, YAML_UTF8_ENCODING);
  yaml_parser_set_input_string(&reader.parser, (const unsigned char *)data, length);
  reader.arena = arena_create(0);
  do
    ok = next_event(&reader) && (reader.event.type != YAML_DOCUMENT_START_EVENT || read_document(&reader, documents));
  while (ok && reader.event.type != YAML_STREAM_END_EVENT);
  if (reader.has_event)
    yaml_event_delete(&reader.event);
  yaml_parser_delete(&reader.parser);
  arena_free(&reader.arena);
  return ok;
}
