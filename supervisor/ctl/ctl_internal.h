/* ctl_internal.h: what the files of supervisor/ctl share: the command table, the arguments of one run, the client, and
 * the forms of output. Everything runs on the one thread of the process. */
#ifndef GATEHOUSE_CTL_INTERNAL_H
#define GATEHOUSE_CTL_INTERNAL_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sdk/base/alloc.h"
#include "sdk/base/error.h"
#include "sdk/rpc/rpc.h"
#include "supervisor/ctl/ctl.h"

struct ctl;

/* ---- the command table ---- */

/* An option. value NULL: a flag; otherwise what --help calls its value. */
struct ctl_option {
  const char *name;
  char letter; /* 0: only the long form */
  bool repeats;
  const char *value;
  const char *help;
};

/* A command. Options end with a NULL name; positional arguments are counted, not named: `arguments` is for people. */
struct ctl_command {
  const char *name; /* "status", "token create" */
  const char *arguments;
  unsigned least, most; /* number of positional arguments */
  const char *summary;  /* one line */
  const char *details;  /* paragraphs, or NULL */
  const struct ctl_option *options;
  int (*run)(struct ctl *ctl); /* answers the exit status */
};

extern const struct ctl_command ctl_commands[];
extern const size_t ctl_command_count;
extern const struct ctl_option ctl_global_options[];

/* NULL: no such command. *words: how many of the words name it (1 or 2). */
const struct ctl_command *ctl_command_find(char *const *words, size_t count, unsigned *words_used);
/* True when commands begin with this word ("token"). */
bool ctl_group_exists(const char *word);

typedef int ctl_run(struct ctl *ctl);
ctl_run ctl_run_up, ctl_run_status, ctl_run_apply, ctl_run_export, ctl_run_delete, ctl_run_refresh,
    ctl_run_token_create, ctl_run_token_list, ctl_run_token_revoke, ctl_run_events, ctl_run_module_list,
    ctl_run_module_describe, ctl_run_module_restart, ctl_run_module_drain, ctl_run_module_stop, ctl_run_module_start,
    ctl_run_module_release, ctl_run_module_upgrade, ctl_run_module_configure, ctl_run_module_rollback, ctl_run_metrics,
    ctl_run_psg_query, ctl_run_psg_hash, ctl_run_config_check, ctl_run_config_show, ctl_run_completion,
    ctl_run_complete, ctl_run_version, ctl_run_help;

/* ---- one run ---- */

enum ctl_output { CTL_OUTPUT_TABLE, CTL_OUTPUT_JSON, CTL_OUTPUT_YAML };

struct ctl_value {
  const struct ctl_option *option;
  const char *text; /* "" for flags */
};

struct ctl {
  const struct ctl_command *command;
  struct ctl_value *values;
  size_t value_count;
  char **arguments; /* positional, NULL-terminated, from argv */
  size_t argument_count;
  enum ctl_output output;
  bool output_given;
  uint32_t timeout_ms;
  char *run_dir; /* NULL until ctl_run_dir */
  char *socket_path;
  struct event_base *base;
  struct rpc_channel *channel;
};

/* Reads argv into *ctl. -1: go on; else the exit status (help was shown, or an error was). */
int ctl_arguments_read(struct ctl *ctl, int argc, char **argv);
void ctl_arguments_free(struct ctl *ctl);

bool ctl_has(const struct ctl *ctl, const char *option);
/* The last value of an option; NULL when it was not given. */
const char *ctl_text(const struct ctl *ctl, const char *option);
/* All values of an option, in their order: a new array (base_free), the texts are borrowed. */
char **ctl_texts(const struct ctl *ctl, const char *option, size_t *count);
/* A whole number; `standard` when the option was not given. Error: ERR_ARGUMENT_INVALID. */
bool ctl_number(const struct ctl *ctl, const char *option, uint64_t standard, uint64_t *value, struct error *err);

/* The run directory: --run-dir, else what the configuration says (GATEHOUSE_RUN, the file, the default). Borrowed. */
const char *ctl_run_dir(struct ctl *ctl);

/* "gatehouse: message (code)" on stderr; answers the exit status that fits the code. err is borrowed. */
int ctl_fail(const struct error *err);
/* The same with a message of our own. */
int ctl_fail_code(enum error_code code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* ERR_ARGUMENT_INVALID with the hint to read --help; CTL_EXIT_USAGE. */
int ctl_fail_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A line for people on stderr, without a code. */
void ctl_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- client ---- */

/* One unary call of core.admin.v1, "StatusService/GetStatus". *reply: free with protobuf_c_message_free_unpacked. */
bool ctl_call(struct ctl *ctl, const char *method, const ProtobufCMessage *request, ProtobufCMessage **reply,
              struct error *err);
/* ctl_call, failure reported: NULL means that *status is the exit status. */
void *ctl_call_or_fail(struct ctl *ctl, const char *method, const ProtobufCMessage *request, int *status);
/* A server stream: visit for each message, until the end or until visit answers false. deadline_ms 0: none. */
typedef bool ctl_message_visit(void *arg, const ProtobufCMessage *message);
bool ctl_stream(struct ctl *ctl, const char *method, const ProtobufCMessage *request, uint32_t deadline_ms,
                ctl_message_visit *visit, void *arg, struct error *err);
/* True for errors that mean: there is no core to talk to, now. */
bool ctl_error_is_unreachable(const struct error *err);
/* Runs the loop until the time has passed: channels and signals go on meanwhile. */
void ctl_sleep(struct ctl *ctl, uint32_t ms);
void ctl_client_close(struct ctl *ctl);

static inline void ctl_message_free(void *message) {
  protobuf_c_message_free_unpacked(message, NULL);
}
/* protobuf-c structs hold char *; what is packed is only read. */
static inline char *ctl_borrow(const char *text) {
  return (char *)(uintptr_t)(text ? text : "");
}

/* ---- output ---- */

/* Writes bytes to stdout, flushed. False: nobody reads any more, or the disk is full; then commands end. */
bool ctl_write(const void *data, size_t length);
/* CTL_EXIT_OK, or CTL_EXIT_ENVIRONMENT with a message when stdout cannot be written. */
int ctl_print(const struct buf *text);

/* The message as JSON for programs: proto3 JSON, but members named *Json hold their value inline. */
void ctl_message_json(const ProtobufCMessage *message, struct buf *target);
/* Prints the message as --output json or yaml asks; answers the exit status. */
int ctl_print_message(const struct ctl *ctl, const ProtobufCMessage *message);
/* The same for JSON text. */
int ctl_print_json(const struct ctl *ctl, const char *json, size_t length);
/* The end of most commands: prints `table` where people read, else the reply. Frees both; answers the exit status. */
int ctl_answer(const struct ctl *ctl, void *reply, struct buf *table);

/* JSON, checked before, with two spaces of indentation and a newline at the end. */
void ctl_json_pretty(const char *json, size_t length, struct buf *target);
/* JSON, checked before, as one YAML 1.2 document beginning with "---". */
void ctl_yaml_write(const char *json, size_t length, struct buf *target);

/* One line of text: control characters and bad UTF-8 become '?' or U+FFFD, so that no answer can drive the terminal. */
void ctl_text_append_safe(struct buf *target, const char *text, size_t length);
/* Columns that UTF-8 text takes on a terminal. */
size_t ctl_text_columns(const char *text, size_t length);
/* "450ms", "12s", "3m20s", "5h02m", "12d4h". */
void ctl_duration_format(uint64_t ms, char target[static 32]);
/* "512B", "1.5K", "23.4M", "1.2G". */
void ctl_bytes_format(uint64_t bytes, char target[static 32]);
/* "8h", "30m", "1h30m", "90" (seconds), "2d"; "250ms". False: it is none, or more than 100 years. */
bool ctl_duration_parse(const char *text, uint64_t *ms);
/* "2026-11-21 09:30:00" in UTC; "-" for 0. */
void ctl_time_format(int64_t wall_ms, char target[static 32]);

/* An aligned table. Cells are made safe when they are added. The last column is cut to the terminal's width. */
struct ctl_table;
enum ctl_colour { CTL_COLOUR_NONE, CTL_COLOUR_GOOD, CTL_COLOUR_WARN, CTL_COLOUR_BAD };
struct ctl_table *ctl_table_create(const char *const *heads, size_t columns);
void ctl_table_cell(struct ctl_table *table, const char *text); /* NULL or "": "-" */
void ctl_table_cell_coloured(struct ctl_table *table, const char *text, enum ctl_colour colour);
void ctl_table_cell_number(struct ctl_table *table, uint64_t number);
/* width 0: no limit. */
void ctl_table_write(const struct ctl_table *table, size_t width, bool colours, struct buf *target);
void ctl_table_free(struct ctl_table **table);
/* Columns of the terminal on stdout; 0 when it is none. */
size_t ctl_terminal_width(void);
bool ctl_terminal_colours(void);
/* Writes and frees the table as stdout wants it. */
void ctl_table_finish(struct ctl_table **table, struct buf *target);

/* ---- YAML documents ---- */

#define CTL_YAML_DEPTH_MAX 64
#define CTL_YAML_BYTES_MAX (8u * 1024 * 1024)

struct ctl_document {
  char *json;
  size_t length;
  char *file; /* as given; "-" for standard input */
  unsigned line;
};

struct ctl_documents {
  struct ctl_document *items;
  size_t count;
};

/* Appends the documents of one YAML text (YAML 1.2, core schema). Empty documents are left out. Errors:
 * ERR_CONFIG_SYNTAX, ERR_ARGUMENT_TOO_LARGE; the message begins with "file:line:column: ". */
bool ctl_yaml_read(const char *file, const char *data, size_t length, struct ctl_documents *documents,
                   struct error *err);
/* Reads a file, "-" (standard input), or a directory (*.yaml, *.yml, *.json in the order of their names). */
bool ctl_documents_load(const char *path, struct ctl_documents *documents, struct error *err);
void ctl_documents_free(struct ctl_documents *documents);
/* Plain text to JSON as YAML's core schema resolves it. False: .inf, .nan or a number too large; *is_text: it is a
 * string. */
bool ctl_yaml_scalar_resolve(const char *text, size_t length, struct buf *target, bool *is_text);

/* ---- help ---- */

void ctl_help_write(struct buf *target);
void ctl_help_command_write(const struct ctl_command *command, struct buf *target);
/* The kinds of documents (core/catalog/kinds.def), space-separated. */
#define CTL_DOCUMENT_KINDS "Team Role User Gateway Tool Resource Prompt Server Plugin"
/* What may follow the words, the last of which is being typed: see complete.c. Asks the gateway where it must. */
void ctl_complete_write(struct ctl *ctl, char *const *words, size_t count, struct buf *target);
/* False: no such shell. */
bool ctl_completion_write(const char *shell, struct buf *target);

#endif
