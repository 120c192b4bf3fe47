/* help.c: the command table for people: --help and docs/cli.md. */
#include <stdio.h>
#include <string.h>

#include "sdk/base/str.h"
#include "supervisor/ctl/ctl_internal.h"

#define HELP_WIDTH 100

/* Words from the column `indent` on, broken before HELP_WIDTH. */
static void write_wrapped(struct buf *target, const char *text, size_t indent) {
  size_t column = indent;
  while (*text) {
    size_t word = strcspn(text, " ");
    if (column > indent && column + 1 + word > HELP_WIDTH) {
      buf_printf(target, "\n%*s", (int)indent, "");
      column = indent;
    } else if (column > indent) {
      buf_append_char(target, ' ');
      column++;
    }
    buf_append(target, text, word);
    column += word;
    text += word + (text[word] == ' ');
  }
  buf_append_char(target, '\n');
}

static void write_option_name(struct buf *target, const struct ctl_option *option) {
  if (option->letter)
    buf_printf(target, "-%c, ", option->letter);
  buf_printf(target, "--%s%s%s", option->name, option->value ? " " : "", option->value ? option->value : "");
}

static void write_options(struct buf *target, const struct ctl_option *options) {
  for (const struct ctl_option *option = options; option && option->name; option++) {
    struct buf name = {0};
    write_option_name(&name, option);
    buf_printf(target, "  %s%-*s  ", option->letter ? "" : "    ", option->letter ? 26 : 22, name.data);
    write_wrapped(target, option->help, 30);
    buf_free(&name);
  }
}

void ctl_help_write(struct buf *target) {
  buf_append_text(target, "usage: gatehouse [OPTION...] COMMAND [ARGUMENT...]\n\n"
                          "Starts, shows and changes a Gatehouse gateway.\n\nCommands:\n");
  for (size_t i = 0; i < ctl_command_count; i++) {
    struct buf usage = {0};
    buf_printf(&usage, "%s%s%s", ctl_commands[i].name, *ctl_commands[i].arguments ? " " : "",
               ctl_commands[i].arguments);
    buf_printf(target, "  %-26s  ", usage.data);
    write_wrapped(target, ctl_commands[i].summary, 30);
    buf_free(&usage);
  }
  buf_append_text(target, "\nOptions of every command:\n");
  write_options(target, ctl_global_options);
  buf_append_text(target, "\nExit status:\n");
#define CTL_EXIT(name, value, meaning) buf_printf(target, "  %3d  %s\n", value, meaning);
#include "supervisor/ctl/exit_codes.def"
#undef CTL_EXIT
  buf_append_text(target, "\n`gatehouse COMMAND --help` shows more about a command.\n");
}

static void write_usage(const struct ctl_command *command, struct buf *target) {
  buf_printf(target, "gatehouse %s%s%s%s", command->name, command->options ? " [OPTION...]" : "",
             *command->arguments ? " " : "", command->arguments);
}

void ctl_help_command_write(const struct ctl_command *command, struct buf *target) {
  buf_append_text(target, "usage: ");
  write_usage(command, target);
  buf_append_text(target, "\n\n");
  write_wrapped(target, command->summary, 0);
  if (command->details) {
    buf_append_char(target, '\n');
    write_wrapped(target, command->details, 0);
  }
  if (command->options) {
    buf_append_text(target, "\nOptions:\n");
    write_options(target, command->options);
  }
  buf_append_text(target, "\nOptions of every command:\n");
  write_options(target, ctl_global_options);
}

/* ---- docs/cli.md ---- */

static void reference_options(struct buf *target, const struct ctl_option *options) {
  buf_append_text(target, "| option | meaning |\n|---|---|\n");
  for (const struct ctl_option *option = options; option && option->name; option++) {
    buf_append_text(target, "| `");
    write_option_name(target, option);
    buf_printf(target, "` | %s |\n", option->help);
  }
}

void ctl_reference_write(struct buf *target) {
  buf_append_text(
      target,
      "# The command `gatehouse`\n\n"
      "Generated from the command table in `supervisor/ctl/commands.c` by `cli_reference`; do not edit.\n\n"
      "The operator's command. `gatehouse up` becomes the supervisor; everything else asks the core on "
      "`core/admin.sock` in the run directory, which belongs to the core's user. Tables are for people and may "
      "change; `--output json` is for programs: proto3 JSON of the messages in `proto/core/admin/v1/admin.proto`, "
      "with members named `…Json` inline. Errors are one line on standard error, "
      "`gatehouse: message (code)`, with a code of [errors.md](errors.md).\n\n"
      "## Options of every command\n\n");
  reference_options(target, ctl_global_options);
  buf_append_text(target, "\n## Exit status\n\n| status | meaning |\n|---|---|\n");
#define CTL_EXIT(name, value, meaning) buf_printf(target, "| %d | %s |\n", value, meaning);
#include "supervisor/ctl/exit_codes.def"
#undef CTL_EXIT
  for (size_t i = 0; i < ctl_command_count; i++) {
    const struct ctl_command *command = &ctl_commands[i];
    buf_printf(target, "\n## %s\n\n    ", command->name);
    write_usage(command, target);
    buf_printf(target, "\n\n%c%s.", command->summary[0] - 'a' + 'A', command->summary + 1);
    if (command->details)
      buf_printf(target, " %s", command->details);
    buf_append_char(target, '\n');
    if (command->options) {
      buf_append_char(target, '\n');
      reference_options(target, command->options);
    }
  }
}

/* ---- commands ---- */

int ctl_run_help(struct ctl *ctl) {
  struct buf text = {0};
  unsigned words;
  const struct ctl_command *command = ctl_command_find(ctl->arguments, ctl->argument_count, &words);
  if (!command && ctl->argument_count > 0)
    return ctl_fail_usage("there is no command \"%.60s\"", ctl->arguments[0]);
  if (command)
    ctl_help_command_write(command, &text);
  else
    ctl_help_write(&text);
  int status = ctl_print(&text);
  buf_free(&text);
  return status;
}

int ctl_run_version(struct ctl *ctl) {
  struct buf text = {0};
  (void)ctl;
  buf_append_text(&text, "gatehouse " GATEHOUSE_VERSION "\n");
  int status = ctl_print(&text);
  buf_free(&text);
  return status;
}
