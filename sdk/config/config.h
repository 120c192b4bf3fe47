/* config.h: gatehouse.yaml, read strictly, for the supervisor, the core and `gatehouse config check`.
 *
 * One table (config_keys.def) says everything about every key. Sources, later over earlier: the file (or, without one,
 * the built-in quick start), environment variables, the lines of GATEHOUSE_SET, then --set key=value. Elements of lists
 * are named by their id: --set modules.mcp.restart=never, --set listeners.mcp.port=0. Unknown keys, wrong types,
 * doubled keys and values out of range are problems with file, line, column, the key's path, what is expected and the
 * nearest known key; all of them are reported at once, not only the first. One thread; the result is plain data and may
 * be shared read-only. */
#ifndef GATEHOUSE_SDK_CONFIG_H
#define GATEHOUSE_SDK_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sdk/base/buf.h"
#include "sdk/base/error.h"
#include "sdk/config/config_keys.def"

/* Choices, in the order of the table. */
enum config_store_backend { CONFIG_STORE_SQLITE, CONFIG_STORE_MEMORY };
enum config_durability { CONFIG_DURABILITY_FULL, CONFIG_DURABILITY_NORMAL, CONFIG_DURABILITY_NONE };
enum config_ready_by { CONFIG_READY_BY_CORE, CONFIG_READY_BY_NOTIFY };
enum config_sandbox_profile {
  CONFIG_SANDBOX_AUTO,
  CONFIG_SANDBOX_MCP,
  CONFIG_SANDBOX_REST,
  CONFIG_SANDBOX_CONSOLE,
  CONFIG_SANDBOX_GENERIC,
  CONFIG_SANDBOX_SCRIPT
};
/* Conditions of alerts, alert_conditions.def. */
enum config_alert {
#define ALERT(name, text, severity, usual) CONFIG_ALERT_##name,
#include "sdk/config/alert_conditions.def"
#undef ALERT
  CONFIG_ALERT_COUNT
};
enum config_restart { CONFIG_RESTART_ALWAYS, CONFIG_RESTART_ON_FAILURE, CONFIG_RESTART_NEVER };

struct config_list {
  char **items;
  size_t count;
};

struct config_pair {
  char *key, *value;
};

struct config_map {
  struct config_pair *items;
  size_t count;
};

#define CONFIG_MEMBER_TEXT(field) char *field;
#define CONFIG_MEMBER_INT(field) int64_t field;
#define CONFIG_MEMBER_BOOL(field) bool field;
#define CONFIG_MEMBER_CHOICE(field) unsigned field;
#define CONFIG_MEMBER_LIST(field) struct config_list field;
#define CONFIG_MEMBER_MAP(field) struct config_map field;
#define CONFIG_MEMBER_JSON(field) char *field;
#define CONFIG_MEMBER_LISTENERS(field)                                                                                 \
  struct config_listener *field;                                                                                       \
  size_t field##_count;
#define CONFIG_MEMBER_MODULES(field)                                                                                   \
  struct config_module *field;                                                                                         \
  size_t field##_count;
#define CONFIG_MEMBER(kind, field, ...) CONFIG_MEMBER_##kind(field)

struct config_listener {
  CONFIG_LISTENER_KEYS(CONFIG_MEMBER)
  unsigned line, column; /* where it stands in the file; 0: built in */
};

struct config_module {
  CONFIG_MODULE_KEYS(CONFIG_MEMBER)
  unsigned line, column;
};

/* Every text is non-NULL ("" when not set), except that the reader fills run_dir, state_dir, store_path, module.family
 * and module.binary with what an empty value stands for. */
struct config {
  CONFIG_ROOT_KEYS(CONFIG_MEMBER)
  char *path;     /* absolute path of the file; "" for the built-in quick start */
  char *contents; /* its bytes as read, for handing the same configuration on */
  size_t contents_length;
};

#define CONFIG_PROBLEMS_MAX 32
#define CONFIG_PROBLEM_KEY_BYTES 128
#define CONFIG_PROBLEM_TEXT_BYTES 224

struct config_problem {
  enum error_code code;               /* ERR_CONFIG_READ, _SYNTAX, _UNKNOWN_KEY, _TYPE or _VALUE */
  char source[256];                   /* the file's path, the variable's name or "--set" */
  unsigned line, column;              /* from 1; 0: not in a file */
  char key[CONFIG_PROBLEM_KEY_BYTES]; /* "modules[1].restart"; "" for the file as a whole */
  char text[CONFIG_PROBLEM_TEXT_BYTES];
};

struct config_problems {
  struct config_problem items[CONFIG_PROBLEMS_MAX];
  size_t count; /* problems kept in items */
  size_t total; /* problems found */
};

struct config_source {
  const char
      *path; /* NULL: $GATEHOUSE_CONFIG, else ./gatehouse.yaml, else /etc/gatehouse/gatehouse.yaml, else built in */
  char *const *environment; /* like environ; NULL: none is read */
  const char *const *sets;  /* "key=value" */
  size_t set_count;
};

/* Reads, overrides, completes and checks. NULL when there is any problem; *problems then holds at least one. The caller
 * frees the result with config_free. */
struct config *config_load(const struct config_source *source, struct config_problems *problems);

/* Frees and nulls; NULL-safe. */
void config_free(struct config **config);

/* "gatehouse.yaml:12:5: modules[1].restrat: unknown key; did you mean \"restart\"? [config.key.unknown]" */
void config_problem_format(const struct config_problem *problem, struct buf *target);

/* By id or name; NULL when there is none. */
const struct config_module *config_module_find(const struct config *config, const char *id);
const struct config_listener *config_listener_find(const struct config *config, const char *name);

/* Number of a system call by its name; -1: this machine has none of that name. config_call_last: the highest number
 * that was known when this was built. */
int config_call_number(const char *name);
int config_call_last(void);

/* Path of the first key that differs, in the order of the table, but for `except` (NULL: none); NULL: nothing differs.
 * Of the root: without listeners and modules. */
const char *config_root_difference(const struct config *a, const struct config *b, const char *except);
const char *config_listener_difference(const struct config_listener *a, const struct config_listener *b);
const char *config_module_difference(const struct config_module *a, const struct config_module *b, const char *except);

/* What confines the core (core.sandbox and core.rlimits) in the form of a module's keys. Texts are config's own. */
struct config_module config_core_confinement(const struct config *config);

/* The same of the program of alerts. */
struct config_module config_alerts_confinement(const struct config *config);
/* Whether a condition is to be told; its name and its severity ("error", "warn", "info"). */
bool config_alert_is_wanted(const struct config *config, enum config_alert condition);
const char *config_alert_name(enum config_alert condition);
const char *config_alert_severity(enum config_alert condition);

/* The overrides in force (environment and --set), one "key=value" a line, for GATEHOUSE_SET of a child that reads the
 * same configuration. The caller frees with base_free. */
char *config_overrides_text(const struct config_source *source);

/* Appends the effective values of all keys as one JSON object, in the shape of the file: read as a file it gives the
 * same configuration. */
void config_json_write(const struct config *config, struct buf *target);

/* The reference of all keys as Markdown: docs/configuration.md. */
void config_reference_write(struct buf *target);

#endif
