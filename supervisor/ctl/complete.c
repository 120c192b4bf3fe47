/* complete.c: what may follow on a command line (`gatehouse complete -- WORD...`, for the completion scripts):
 * commands, options, and the values that the table's placeholders stand for (ID, VERSION, KIND, …). What only a running
 * gateway knows is asked of it, for ASK_MS at most; without one there is nothing to say, and nothing is said.
 *
 * The last word is the one that is being typed. One candidate a line, with a tab and what it means where that is known;
 * the line ":files" instead means that the shell completes a file. bash cuts words at "=", the others do not: both
 * forms of --option=value are understood. */
#include <string.h>

#include "sdk/base/json.h"
#include "sdk/base/str.h"
#include "supervisor/ctl/ctl_internal.h"
#include "wire/pbc/core/admin/v1/admin.pb-c.h"

#define ASK_MS 400
#define FILES ":files\n"

/* What is being completed. */
struct typed {
  struct ctl *ctl;
  struct buf *target;
  const char *lead;                  /* what stands before each candidate: "--output=", or "" */
  const char *prefix;                /* what candidates begin with */
  const struct ctl_command *command; /* NULL: not typed yet */
  char **positional;                 /* the words that are no options, before the one that is typed */
  size_t count;
  unsigned of_command; /* how many of them are the command's name */
};

/* ---- answering ---- */

/* A candidate that a shell would take for anything else than a word is left out. */
static bool is_plain(const char *text) {
  return *text && text[strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._+-/@:%,")] == '\0';
}

static void offer_part(struct typed *typed, const char *text, size_t length, const char *meaning) {
  char *word = base_asprintf("%.*s", (int)length, text);
  if (is_plain(word) && str_starts_with(word, typed->prefix)) {
    buf_printf(typed->target, "%s%s", typed->lead, word);
    if (meaning && meaning[0])
      buf_printf(typed->target, "\t%s", meaning);
    buf_append_char(typed->target, '\n');
  }
  base_free(word);
}

static void offer(struct typed *typed, const char *text, const char *meaning) {
  offer_part(typed, text, strlen(text), meaning);
}

/* ---- asking ---- */

/* NULL: nobody answers, and nobody is told. */
static void *ask(struct typed *typed, const char *method, const ProtobufCMessage *request) {
  ProtobufCMessage *reply = NULL;
  struct error err = {0};
  typed->ctl->timeout_ms = ASK_MS;
  return ctl_call(typed->ctl, method, request, &reply, &err) ? reply : NULL;
}

/* Which modules a command can do something with, by their states; the others take each. */
static bool fits(const struct typed *typed, const Core__Admin__V1__ProcessStatus *process) {
  static const struct {
    const char *command, *states; /* space-separated */
    bool only;                    /* these; else all but these */
  } rules[] = {{"module release", " quarantined ", true},
               {"module start", " stopped draining backoff down ", true},
               {"module stop", " stopped quarantined down ", false},
               {"module drain", " stopped quarantined down draining ", false},
               {"module restart", " stopped quarantined down ", false},
               {"module upgrade", " stopped quarantined down draining ", false},
               {"module configure", " stopped quarantined down draining ", false}};
  bool is_core = str_equal(process->id, "core"), is_supervisor = str_equal(process->id, "supervisor");
  const char *command = typed->command->name;
  if (process->role[0]) /* a candidate or retired process of a module */
    return false;
  if (is_core || is_supervisor)
    return str_equal(command, "module describe") ||
           (is_core && (str_equal(command, "module upgrade") || str_equal(command, "module rollback")));
  for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
    if (str_equal(rules[i].command, command)) {
      char *state = base_asprintf(" %s ", process->state);
      bool named = strstr(rules[i].states, state) != NULL;
      base_free(state);
      return named == rules[i].only;
    }
  return true;
}

static void offer_modules(struct typed *typed) {
  const Core__Admin__V1__GetStatusRequest request = CORE__ADMIN__V1__GET_STATUS_REQUEST__INIT;
  Core__Admin__V1__GetStatusResponse *reply = ask(typed, "StatusService/GetStatus", &request.base);
  for (size_t i = 0; reply && i < reply->n_processes; i++)
    if (fits(typed, reply->processes[i]))
      offer(typed, reply->processes[i]->id, reply->processes[i]->state);
  ctl_message_free(reply);
}

static void offer_tokens(struct typed *typed) {
  const Core__Admin__V1__ListTokensRequest request = CORE__ADMIN__V1__LIST_TOKENS_REQUEST__INIT;
  Core__Admin__V1__ListTokensResponse *reply = ask(typed, "TokenAdminService/ListTokens", &request.base);
  for (size_t i = 0; reply && i < reply->n_tokens; i++)
    offer(typed, reply->tokens[i]->token_id, reply->tokens[i]->name);
  ctl_message_free(reply);
}

static void offer_ids(struct typed *typed) {
  if (str_starts_with(typed->command->name, "module "))
    offer_modules(typed);
  else if (str_equal(typed->command->name, "token revoke"))
    offer_tokens(typed);
}

/* Of the module that was named. A path is a file's. */
static void offer_versions(struct typed *typed) {
  Core__Admin__V1__DescribeModuleRequest request = CORE__ADMIN__V1__DESCRIBE_MODULE_REQUEST__INIT;
  if (strchr(typed->prefix, '/')) {
    buf_append_text(typed->target, FILES);
    return;
  }
  if (typed->count <= typed->of_command)
    return;
  request.module_id = typed->positional[typed->of_command];
  Core__Admin__V1__DescribeModuleResponse *reply = ask(typed, "ModuleAdminService/DescribeModule", &request.base);
  for (size_t i = 0; reply && reply->versions && i < reply->versions->n_known; i++)
    offer(typed, reply->versions->known[i]->version, reply->versions->known[i]->program);
  ctl_message_free(reply);
}

static bool offer_name(void *arg, const ProtobufCMessage *message) {
  const Core__Admin__V1__Document *document = (const void *)message;
  const char *json = (const char *)document->document_json.data, *metadata, *name;
  size_t length = document->document_json.len, metadata_length, name_length;
  if (json && json_check(json, length, JSON_DEPTH_MAX, NULL) &&
      json_member(json, length, "metadata", &metadata, &metadata_length) &&
      json_member(metadata, metadata_length, "name", &name, &name_length)) {
    char *text = json_string_decode(name, name_length);
    if (text)
      offer(arg, text, NULL);
    base_free(text);
  }
  return true;
}

/* The names of the documents of a kind. */
static void offer_names(struct typed *typed, const char *kind) {
  Core__Admin__V1__ExportRequest request = CORE__ADMIN__V1__EXPORT_REQUEST__INIT;
  char *kinds[] = {ctl_borrow(kind)};
  struct error err = {0};
  request.kinds = kinds;
  request.n_kinds = 1;
  ctl_stream(typed->ctl, "CatalogAdminService/Export", &request.base, ASK_MS, offer_name, typed, &err);
}

static void offer_named(struct typed *typed) {
  if (str_equal(typed->command->name, "delete") && typed->count > typed->of_command)
    offer_names(typed, typed->positional[typed->of_command]);
  else if (str_equal(typed->command->name, "token create"))
    offer_names(typed, "Server");
}

static void offer_gateways(struct typed *typed) {
  offer_names(typed, "Gateway");
}

static void offer_users(struct typed *typed) {
  offer_names(typed, "User");
}

static void offer_teams(struct typed *typed) {
  offer_names(typed, "Team");
}

static void offer_files(struct typed *typed) {
  buf_append_text(typed->target, FILES);
}

/* ---- values, by their placeholders in the table of commands ---- */

static const struct {
  const char *placeholder;
  const char *words; /* space-separated; NULL: */
  void (*offer)(struct typed *typed);
} values[] = {{"FORM", "table json yaml", NULL},
              {"SHELL", "bash zsh fish", NULL},
              {"KIND", CTL_DOCUMENT_KINDS, NULL},
              {"FILE", NULL, offer_files},
              {"PATH", NULL, offer_files},
              {"DIR", NULL, offer_files},
              {"PATH|VERSION", NULL, offer_versions},
              {"ID", NULL, offer_ids},
              {"NAME", NULL, offer_named},
              {"GATEWAY", NULL, offer_gateways},
              {"EMAIL", NULL, offer_users},
              {"TEAM", NULL, offer_teams}};

static void offer_words(struct typed *typed, const char *words) {
  while (*words) {
    size_t length = strcspn(words, " ");
    offer_part(typed, words, length, NULL);
    words += length + strspn(words + length, " ");
  }
}

static void offer_value(struct typed *typed, const char *placeholder, size_t length) {
  for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
    if (strlen(values[i].placeholder) != length || memcmp(values[i].placeholder, placeholder, length) != 0)
      continue;
    if (values[i].words)
      offer_words(typed, values[i].words);
    else
      values[i].offer(typed);
  }
}

/* ---- commands and options ---- */

static void offer_options_of(struct typed *typed, const struct ctl_option *options) {
  for (const struct ctl_option *option = options; option && option->name; option++) {
    char *word = base_asprintf("--%s", option->name);
    offer(typed, word, option->help);
    base_free(word);
  }
}

/* The next word of commands' names: the first; or, of a group that was typed, the second. */
static void offer_commands(struct typed *typed) {
  const char *group = typed->count > 0 ? typed->positional[0] : "";
  size_t skip = typed->count > 0 ? strlen(group) + 1 : 0;
  for (size_t i = 0; i < ctl_command_count; i++) {
    const char *name = ctl_commands[i].name;
    if (skip && (!str_starts_with(name, group) || name[skip - 1] != ' '))
      continue;
    size_t length = strcspn(name + skip, " ");
    bool again = i > 0 && strlen(ctl_commands[i - 1].name) > skip + length &&
                 memcmp(ctl_commands[i - 1].name, name, skip + length + 1) == 0; /* a group stands together */
    if (!again)
      offer_part(typed, name + skip, length, name[skip + length] ? "" : ctl_commands[i].summary);
  }
}

/* The next argument of the command: its placeholder is the word of that place in "KIND NAME", "[KIND...]". */
static void offer_argument(struct typed *typed) {
  size_t place = typed->count - typed->of_command;
  const char *at = typed->command->arguments;
  if (place >= typed->command->most)
    return;
  if (str_equal(typed->command->name, "help")) {
    const struct typed all = *typed;
    typed->positional++;
    typed->count--;
    offer_commands(typed);
    *typed = all;
    return;
  }
  size_t length;
  for (;;) { /* the last one stands for all that follow */
    at += strspn(at, " [");
    length = strcspn(at, " .]");
    const char *next = at + strcspn(at, " ");
    if (place == 0 || !*next)
      break;
    at = next;
    place--;
  }
  offer_value(typed, at, length);
}

static const struct ctl_option *option_in(const struct ctl_option *options, const char *name, size_t length) {
  for (const struct ctl_option *option = options; option && option->name; option++)
    if ((strlen(option->name) == length && memcmp(option->name, name, length) == 0))
      return option;
  return NULL;
}

/* The option that a word names, "--output" or "-o"; NULL: none. */
static const struct ctl_option *option_of(const struct typed *typed, const char *word, size_t length) {
  const struct ctl_option *const tables[] = {typed->command ? typed->command->options : NULL, ctl_global_options};
  for (size_t i = 0; i < 2; i++) {
    const struct ctl_option *option = length > 2 ? option_in(tables[i], word + 2, length - 2) : NULL;
    for (const struct ctl_option *at = tables[i]; !option && length == 2 && at && at->name; at++)
      option = at->letter && at->letter == word[1] ? at : NULL;
    if (option)
      return option;
  }
  return NULL;
}

/* Sorts the words before the last: what is positional, which command it is, and the option whose value is being typed,
 * which is returned (NULL: none). */
static const struct ctl_option *sort_words(struct typed *typed, char *const *words, size_t count) {
  const struct ctl_option *waiting = NULL; /* for its value */
  bool equals = false;
  for (size_t i = 0; i + 1 < count; i++) {
    const char *word = words[i];
    size_t length = strcspn(word, "=");
    if (waiting && str_equal(word, "=") && !equals) { /* bash's cut */
      equals = true;
      continue;
    }
    if (waiting) {
      if (str_equal(waiting->name, "run-dir") && !typed->ctl->run_dir)
        typed->ctl->run_dir = base_strdup(word);
      waiting = NULL;
    } else if (word[0] == '-' && word[1]) {
      const struct ctl_option *option = option_of(typed, word, length);
      waiting = option && option->value && !word[length] ? option : NULL;
      equals = false;
    } else {
      typed->positional[typed->count++] = words[i];
      if (!typed->command)
        typed->command = ctl_command_find(typed->positional, typed->count, &typed->of_command);
    }
  }
  return waiting;
}

void ctl_complete_write(struct ctl *ctl, char *const *words, size_t count, struct buf *target) {
  const char *last = count ? words[count - 1] : "";
  struct typed typed = {.ctl = ctl, .target = target, .lead = "", .prefix = last};
  typed.positional = base_calloc(count + 1, sizeof(char *));
  const struct ctl_option *waiting = sort_words(&typed, words, count);
  size_t length = strcspn(last, "=");
  char *lead = NULL;
  if (!waiting && last[0] == '-' && last[length]) { /* --output=js in one word */
    waiting = option_of(&typed, last, length);
    typed.lead = lead = base_asprintf("%.*s=", (int)length, last);
    typed.prefix = last + length + 1;
  } else if (waiting && str_equal(last, "=")) { /* bash's cut */
    typed.prefix = "";
  }
  if (waiting && waiting->value) {
    offer_value(&typed, waiting->value, strlen(waiting->value));
  } else if (last[0] == '-') {
    offer_options_of(&typed, typed.command ? typed.command->options : NULL);
    offer_options_of(&typed, ctl_global_options);
  } else if (!typed.command) {
    offer_commands(&typed);
  } else {
    offer_argument(&typed);
  }
  base_free(lead);
  base_free(typed.positional);
}

int ctl_run_complete(struct ctl *ctl) {
  struct buf text = {0};
  ctl_complete_write(ctl, ctl->arguments, ctl->argument_count, &text);
  int status = ctl_print(&text);
  buf_free(&text);
  return status;
}
