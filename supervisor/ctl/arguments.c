/* arguments.c: argv against the command table. Options may stand anywhere after the program's name; those before the
 * command are the global ones. getopt_long does the reading, the messages are ours. */
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sdk/base/log.h"
#include "sdk/base/str.h"
#include "sdk/config/config.h"
#include "supervisor/ctl/ctl_internal.h"

#define TIMEOUT_STANDARD_MS 30000
#define OPTIONS_MAX 32
#define LONG_ONLY 256 /* getopt's values of options without a letter begin here */

extern char **environ;

/* ---- messages ---- */

int ctl_fail(const struct error *err) {
  struct buf line = {0};
  ctl_text_append_safe(&line, err->message, strlen(err->message));
  fprintf(stderr, "gatehouse: %s (%s)\n", line.data ? line.data : "", err->code);
  buf_free(&line);
  return ctl_error_is_unreachable(err) ? CTL_EXIT_UNREACHABLE : CTL_EXIT_REFUSED;
}

int ctl_fail_code(enum error_code code, const char *format, ...) {
  char message[ERROR_MESSAGE_MAX];
  struct error err = {0};
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof(message), format, arguments);
  va_end(arguments);
  error_set(&err, code, "%s", message);
  return ctl_fail(&err);
}

static void say(const char *format, va_list arguments, const char *hint) {
  struct buf message = {0}, line = {0};
  buf_vprintf(&message, format, arguments);
  ctl_text_append_safe(&line, message.data, message.length);
  fprintf(stderr, "gatehouse: %s%s\n", line.data ? line.data : "", hint);
  buf_free(&message);
  buf_free(&line);
}

int ctl_fail_usage(const char *format, ...) {
  char hint[64];
  va_list arguments;
  snprintf(hint, sizeof(hint), "; try --help (%s)", error_code_text(ERR_ARGUMENT_INVALID));
  va_start(arguments, format);
  say(format, arguments, hint);
  va_end(arguments);
  return CTL_EXIT_USAGE;
}

void ctl_note(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  say(format, arguments, "");
  va_end(arguments);
}

/* ---- reading ---- */

struct reader {
  const struct ctl_option *known[OPTIONS_MAX];
  struct option options[OPTIONS_MAX + 1];
  char letters[2 * OPTIONS_MAX + 4];
  size_t count;
};

static void reader_add(struct reader *reader, const struct ctl_option *options) {
  for (const struct ctl_option *option = options; option && option->name; option++) {
    if (reader->count == OPTIONS_MAX)
      abort();
    int value = option->letter ? option->letter : LONG_ONLY + (int)reader->count;
    reader->options[reader->count] =
        (struct option){option->name, option->value ? required_argument : no_argument, NULL, value};
    reader->known[reader->count++] = option;
    if (option->letter) {
      size_t used = strlen(reader->letters);
      snprintf(reader->letters + used, sizeof(reader->letters) - used, "%c%s", option->letter,
               option->value ? ":" : "");
    }
  }
}

static const struct ctl_option *reader_find(const struct reader *reader, int value) {
  for (size_t i = 0; i < reader->count; i++)
    if (reader->options[i].val == value)
      return reader->known[i];
  return NULL;
}

static void value_add(struct ctl *ctl, const struct ctl_option *option, const char *text) {
  ctl->values = base_realloc_array(ctl->values, ctl->value_count + 1, sizeof(struct ctl_value));
  ctl->values[ctl->value_count++] = (struct ctl_value){option, text ? text : ""};
}

/* Reads options; first: '+' to stop at the first other argument, ':' in any case for our own messages. argv[0] is
 * skipped. -1: go on, optind tells where. */
static int read_options(struct ctl *ctl, struct reader *reader, int argc, char **argv) {
  int value;
  opterr = 0;
  optind = 0; /* glibc: begin anew */
  while ((value = getopt_long(argc, argv, reader->letters, reader->options, NULL)) != -1) {
    if (value == ':')
      return ctl_fail_usage("option %s needs a value", argv[optind - 1]);
    const struct ctl_option *option = reader_find(reader, value);
    if (!option && optopt && reader_find(reader, optopt))
      return ctl_fail_usage("option --%s takes no value", reader_find(reader, optopt)->name);
    if (!option && optopt)
      return ctl_fail_usage("there is no option -%c", optopt);
    if (!option)
      return ctl_fail_usage("there is no option %s, or it is ambiguous", argv[optind - 1]);
    if (!option->repeats && ctl_has(ctl, option->name))
      return ctl_fail_usage("option --%s was given twice", option->name);
    value_add(ctl, option, optarg);
  }
  return -1;
}

static int read_global_values(struct ctl *ctl) {
  static const char *const outputs[] = {"table", "json", "yaml"};
  const char *output = ctl_text(ctl, "output"), *timeout = ctl_text(ctl, "timeout"), *run = ctl_text(ctl, "run-dir");
  uint64_t ms;
  if (output) {
    ctl->output_given = true;
    for (ctl->output = 0; ctl->output < 3 && !str_equal(outputs[ctl->output], output);)
      ctl->output++;
    if (ctl->output == 3)
      return ctl_fail_usage("--output is table, json or yaml, not \"%.60s\"", output);
  }
  if (timeout) {
    if (!ctl_duration_parse(timeout, &ms) || ms == 0 || ms > INT32_MAX)
      return ctl_fail_usage("--timeout is a time such as 500ms, 30s or 2m, not \"%.60s\"", timeout);
    ctl->timeout_ms = (uint32_t)ms;
  }
  if (run && !*run)
    return ctl_fail_usage("--run-dir is a directory, not nothing");
  return -1;
}

static int print_and_end(struct buf *text) {
  int status = ctl_print(text);
  buf_free(text);
  return status;
}

static int unknown_command(char *const *words, size_t count) {
  struct buf seconds = {0};
  if (!ctl_group_exists(words[0]))
    return ctl_fail_usage("there is no command \"%.60s\"", words[0]);
  for (size_t i = 0; i < ctl_command_count; i++)
    if (str_starts_with(ctl_commands[i].name, words[0]) && ctl_commands[i].name[strlen(words[0])] == ' ')
      buf_printf(&seconds, "%s%s", seconds.length ? ", " : "", ctl_commands[i].name + strlen(words[0]) + 1);
  int status = count > 1 && words[1][0] != '-'
                   ? ctl_fail_usage("there is no command \"%.60s %.60s\"; %.60s has %s", words[0], words[1], words[0],
                                    seconds.data)
                   : ctl_fail_usage("\"%.60s\" needs a second word: %s", words[0], seconds.data);
  buf_free(&seconds);
  return status;
}

/* The command's own options and arguments; argv begins with its last word. */
static int read_command(struct ctl *ctl, int argc, char **argv) {
  struct reader reader = {.letters = ":"};
  reader_add(&reader, ctl_global_options);
  reader_add(&reader, ctl->command->options);
  int status = read_options(ctl, &reader, argc, argv);
  if (status >= 0)
    return status;
  if (ctl_has(ctl, "help")) {
    struct buf text = {0};
    ctl_help_command_write(ctl->command, &text);
    return print_and_end(&text);
  }
  ctl->arguments = argv + optind;
  ctl->argument_count = (size_t)(argc - optind);
  if (ctl->argument_count < ctl->command->least)
    return ctl_fail_usage("usage: gatehouse %s %s", ctl->command->name, ctl->command->arguments);
  if (ctl->argument_count > ctl->command->most)
    return ctl_fail_usage("unexpected argument \"%.60s\"", ctl->arguments[ctl->command->most]);
  return read_global_values(ctl);
}

int ctl_arguments_read(struct ctl *ctl, int argc, char **argv) {
  struct reader reader = {.letters = "+:"};
  unsigned words;
  ctl->timeout_ms = TIMEOUT_STANDARD_MS;
  reader_add(&reader, ctl_global_options);
  int status = read_options(ctl, &reader, argc, argv);
  if (status >= 0)
    return status;
  char **rest = argv + optind;
  size_t count = (size_t)(argc - optind);
  if (ctl_has(ctl, "version"))
    return ctl_run_version(ctl);
  if (count == 0 && !ctl_has(ctl, "help"))
    return ctl_fail_usage("no command was given");
  if (count == 0 || (count == 1 && str_equal(rest[0], "help"))) {
    struct buf text = {0};
    ctl_help_write(&text);
    return print_and_end(&text);
  }
  ctl->command = ctl_command_find(rest, count, &words);
  if (!ctl->command)
    return unknown_command(rest, count);
  return read_command(ctl, (int)count - (int)words + 1, rest + words - 1);
}

void ctl_arguments_free(struct ctl *ctl) {
  base_free(BASE_TAKE(ctl->values));
  base_free(BASE_TAKE(ctl->run_dir));
  ctl->value_count = 0;
}

/* ---- looking up ---- */

const char *ctl_text(const struct ctl *ctl, const char *option) {
  const char *text = NULL;
  for (size_t i = 0; i < ctl->value_count; i++)
    if (str_equal(ctl->values[i].option->name, option))
      text = ctl->values[i].text;
  return text;
}

bool ctl_has(const struct ctl *ctl, const char *option) {
  return ctl_text(ctl, option) != NULL;
}

char **ctl_texts(const struct ctl *ctl, const char *option, size_t *count) {
  char **texts = base_calloc(ctl->value_count + 1, sizeof(char *));
  *count = 0;
  for (size_t i = 0; i < ctl->value_count; i++)
    if (str_equal(ctl->values[i].option->name, option))
      texts[(*count)++] = ctl_borrow(ctl->values[i].text);
  return texts;
}

bool ctl_number(const struct ctl *ctl, const char *option, uint64_t standard, uint64_t *value, struct error *err) {
  const char *text = ctl_text(ctl, option);
  *value = standard;
  if (!text || str_parse_u64(text, value))
    return true;
  return error_set(err, ERR_ARGUMENT_INVALID, "--%s is a whole number, not \"%.60s\"", option, text);
}

/* An operator looks at a running gateway also when its file has been broken since: then the place is the default one.
 */
static char *configured_run_dir(void) {
  struct config_problems *problems = BASE_NEW(struct config_problems);
  struct config *config = config_load(&(struct config_source){.environment = environ}, problems);
  if (!config) {
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    char *variable = base_asprintf("XDG_RUNTIME_DIR=%s", runtime ? runtime : "");
    ctl_note("the configuration has problems (see `gatehouse config check`); looking in the default place");
    config = config_load(&(struct config_source){.path = "/dev/null", .environment = (char *const[]){variable, NULL}},
                         problems);
    base_free(variable);
  }
  char *run_dir = base_strdup(config ? config->run_dir : "/run/gatehouse");
  config_free(&config);
  base_free(problems);
  return run_dir;
}

const char *ctl_run_dir(struct ctl *ctl) {
  const char *given = ctl_text(ctl, "run-dir");
  if (!ctl->run_dir && !given)
    given = getenv("GATEHOUSE_RUN");
  if (!ctl->run_dir)
    ctl->run_dir = str_is_empty(given) ? configured_run_dir() : base_strdup(given);
  return ctl->run_dir;
}
