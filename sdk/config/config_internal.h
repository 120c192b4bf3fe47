/* config_internal.h: inside of the config room: the key table as data, the reader's state, problems. */
#ifndef GATEHOUSE_SDK_CONFIG_INTERNAL_H
#define GATEHOUSE_SDK_CONFIG_INTERNAL_H

#include <yaml.h>

#include "sdk/config/config.h"

enum config_kind {
  CONFIG_KIND_TEXT,
  CONFIG_KIND_INT,
  CONFIG_KIND_BOOL,
  CONFIG_KIND_CHOICE,
  CONFIG_KIND_LIST,
  CONFIG_KIND_MAP,
  CONFIG_KIND_JSON,
  CONFIG_KIND_LISTENERS,
  CONFIG_KIND_MODULES
};

struct config_key {
  enum config_kind kind;
  size_t offset; /* of the member in the scope's struct */
  const char *path, *environment, *standard;
  int64_t low, high;
  const char *extra, *doc;
};

/* The keys of one struct: the file as a whole, a listener, a module. */
struct config_scope {
  const char *name;
  const struct config_key *keys;
  size_t count;
  size_t struct_bytes;
};
extern const struct config_scope config_root_scope, config_listener_scope, config_module_scope;

/* Words for messages and the reference: "a whole number from 1 to 65535", "true or false", … */
void config_key_expectation(const struct config_key *key, char *target, size_t target_bytes);
const struct config_key *config_key_find(const struct config_scope *scope, const char *path);
/* True when the path is no key but keys below it exist ("log"). */
bool config_key_is_group(const struct config_scope *scope, const char *path);
/* The known name at this level that is nearest to what was written; NULL when nothing is near. The result is valid
 * until the next call; group: the prefix of the level ("" or "log"). */
const char *config_key_nearest(const struct config_scope *scope, const char *group, const char *name);

/* Where a value stands. */
struct config_where {
  const char *source;
  unsigned line, column;
  const char *key;
};

void config_problem_add(struct config_problems *problems, enum error_code code, const struct config_where *where,
                        const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Sets a member to its default (text as in the table). The default must be valid: checked. */
void config_default_set(const struct config_key *key, void *base);
void config_scope_defaults(const struct config_scope *scope, void *base);
void config_scope_free(const struct config_scope *scope, void *base);

/* Sets TEXT, INT, BOOL or CHOICE from a scalar. plain: written without quotes. */
bool config_scalar_set(const struct config_key *key, void *base, const char *text, size_t length, bool plain,
                       const struct config_where *where, struct config_problems *problems);
/* Any kind but LISTENERS and MODULES from a node. */
bool config_node_set(const struct config_key *key, void *base, yaml_document_t *document, yaml_node_t *node,
                     const struct config_where *where, struct config_problems *problems);

/* NULL when the text has the form (NULL: any), else what was expected. */
const char *config_form_check(const char *form, const char *text);

/* YAML to compact JSON. False with *why set when it is too deep or large, or has doubled or non-text keys. */
bool config_json_from_node(yaml_document_t *document, yaml_node_t *node, size_t limit_bytes, struct buf *target,
                           const char **why);

/* A variable of an environment like environ; NULL when it is not set. */
const char *config_environment_get(char *const *environment, const char *name);

/* The stages of config_load. */
void config_file_read(struct config *config, const char *source, const char *data, size_t length,
                      struct config_problems *problems);
void config_overrides_apply(struct config *config, const struct config_source *source,
                            struct config_problems *problems);
void config_complete(struct config *config, char *const *environment);
void config_cross_check(const struct config *config, struct config_problems *problems);

#endif
