/* completion.c: shell completion from the command table. Each script knows the first words, the second words of groups
 * and the options of each command; files are completed by the shell itself. */
#include <string.h>

#include "sdk/base/str.h"
#include "supervisor/ctl/ctl_internal.h"

/* The first words, each once. */
static void write_first_words(struct buf *target) {
  for (size_t i = 0; i < ctl_command_count; i++) {
    const char *name = ctl_commands[i].name;
    size_t length = strcspn(name, " ");
    if (i > 0 && strlen(ctl_commands[i - 1].name) > length && memcmp(ctl_commands[i - 1].name, name, length + 1) == 0)
      continue; /* the commands of a group stand together */
    buf_append(target, name, length);
    buf_append_char(target, ' ');
  }
}

static void write_options(struct buf *target, const struct ctl_option *options) {
  for (const struct ctl_option *option = options; option && option->name; option++)
    buf_printf(target, "--%s ", option->name);
}

/* case branches "  token) words=… ;;" for the second words of each group. */
static void write_groups(struct buf *target, const char *variable) {
  for (size_t i = 0; i < ctl_command_count; i++) {
    const char *name = ctl_commands[i].name, *space = strchr(name, ' ');
    size_t length = space ? (size_t)(space - name) + 1 : 0;
    if (!space || (i > 0 && strncmp(ctl_commands[i - 1].name, name, length) == 0))
      continue;
    buf_printf(target, "    %.*s) %s='", (int)length - 1, name, variable);
    for (size_t k = i; k < ctl_command_count && strncmp(ctl_commands[k].name, name, length) == 0; k++)
      buf_printf(target, "%s ", ctl_commands[k].name + length);
    buf_append_text(target, "' ;;\n");
  }
}

static void write_commands(struct buf *target, const char *variable) {
  for (size_t i = 0; i < ctl_command_count; i++) {
    buf_printf(target, "    '%s') %s='", ctl_commands[i].name, variable);
    write_options(target, ctl_commands[i].options);
    buf_append_text(target, "' ;;\n");
  }
}

static void write_bash_body(struct buf *target) {
  buf_append_text(target, "_gatehouse() {\n"
                          "  local word first='' second='' words='' options='' current=${COMP_WORDS[COMP_CWORD]}\n"
                          "  for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
                          "    case $word in -*) continue ;; esac\n"
                          "    if [ -z \"$first\" ]; then first=$word; elif [ -z \"$second\" ]; then second=$word; fi\n"
                          "  done\n"
                          "  case $first in\n    '') words='");
  write_first_words(target);
  buf_append_text(target, "' ;;\n");
  write_groups(target, "words");
  buf_append_text(target, "    completion) words='bash zsh fish ' ;;\n  esac\n"
                          "  [ -n \"$second\" ] && words=''\n"
                          "  case \"$first $second\" in\n");
  for (size_t i = 0; i < ctl_command_count; i++) {
    buf_printf(target, "    '%s'%s) options='", ctl_commands[i].name, strchr(ctl_commands[i].name, ' ') ? "" : "' '*");
    write_options(target, ctl_commands[i].options);
    buf_append_text(target, "' ;;\n");
  }
  buf_append_text(target, "  esac\n  options=\"$options");
  write_options(target, ctl_global_options);
  buf_append_text(target, "\"\n"
                          "  case $current in\n"
                          "    -*) mapfile -t COMPREPLY < <(compgen -W \"$options\" -- \"$current\") ;;\n"
                          "    *) mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\") ;;\n"
                          "  esac\n}\n");
}

static void write_bash(struct buf *target) {
  buf_append_text(target, "# bash completion of gatehouse; use: source <(gatehouse completion bash)\n");
  write_bash_body(target);
  buf_append_text(target, "complete -o bashdefault -o default -F _gatehouse gatehouse\n");
}

static void write_zsh(struct buf *target) {
  buf_append_text(target, "#compdef gatehouse\n"
                          "# zsh completion of gatehouse; use: source <(gatehouse completion zsh)\n"
                          "_gatehouse() {\n"
                          "  local first='' second='' words_next='' options='' word\n"
                          "  for word in \"${(@)words[2,CURRENT-1]}\"; do\n"
                          "    [[ $word == -* ]] && continue\n"
                          "    if [[ -z $first ]]; then first=$word; elif [[ -z $second ]]; then second=$word; fi\n"
                          "  done\n"
                          "  case $first in\n    '') words_next='");
  write_first_words(target);
  buf_append_text(target, "' ;;\n");
  write_groups(target, "words_next");
  buf_append_text(target, "    completion) words_next='bash zsh fish ' ;;\n  esac\n"
                          "  [[ -n $second ]] && words_next=''\n"
                          "  case \"$first${second:+ $second}\" in\n");
  write_commands(target, "options");
  buf_append_text(target, "  esac\n  options=\"$options");
  write_options(target, ctl_global_options);
  buf_append_text(target, "\"\n"
                          "  if [[ ${words[CURRENT]} == -* ]]; then compadd -- ${=options}\n"
                          "  elif [[ -n $words_next ]]; then compadd -- ${=words_next}\n"
                          "  else _files; fi\n}\n"
                          "compdef _gatehouse gatehouse\n");
}

/* Single-quoted for fish. */
static void write_fish_text(struct buf *target, const char *text) {
  buf_append_char(target, '\'');
  for (; *text; text++) {
    if (*text == '\'' || *text == '\\')
      buf_append_char(target, '\\');
    buf_append_char(target, *text);
  }
  buf_append_char(target, '\'');
}

static void write_fish_options(struct buf *target, const char *condition, const struct ctl_option *options) {
  for (const struct ctl_option *option = options; option && option->name; option++) {
    buf_printf(target, "complete -c gatehouse%s -l %s", condition, option->name);
    if (option->letter)
      buf_printf(target, " -s %c", option->letter);
    buf_printf(target, "%s -d ", option->value ? " -r" : "");
    write_fish_text(target, option->help);
    buf_append_char(target, '\n');
  }
}

static void write_fish(struct buf *target) {
  buf_append_text(target, "# fish completion of gatehouse; use: gatehouse completion fish | source\n"
                          "complete -c gatehouse -n __fish_use_subcommand -f\n");
  write_fish_options(target, "", ctl_global_options);
  for (size_t i = 0; i < ctl_command_count; i++) {
    const char *name = ctl_commands[i].name, *space = strchr(name, ' ');
    struct buf condition = {0};
    int first = (int)strcspn(name, " ");
    if (space) {
      buf_printf(target, "complete -c gatehouse -n __fish_use_subcommand -a %.*s\n", first, name);
      buf_printf(target, "complete -c gatehouse -f -n '__fish_seen_subcommand_from %.*s' -a %s -d ", first, name,
                 space + 1);
      buf_printf(&condition, " -n '__fish_seen_subcommand_from %.*s; and __fish_seen_subcommand_from %s'", first, name,
                 space + 1);
    } else {
      buf_printf(target, "complete -c gatehouse -n __fish_use_subcommand -a %s -d ", name);
      buf_printf(&condition, " -n '__fish_seen_subcommand_from %s'", name);
    }
    write_fish_text(target, ctl_commands[i].summary);
    buf_append_char(target, '\n');
    write_fish_options(target, condition.data, ctl_commands[i].options);
    buf_free(&condition);
  }
}

bool ctl_completion_write(const char *shell, struct buf *target) {
  static const struct {
    const char *name;
    void (*write)(struct buf *target);
  } shells[] = {{"bash", write_bash}, {"zsh", write_zsh}, {"fish", write_fish}};
  for (size_t i = 0; i < sizeof(shells) / sizeof(shells[0]); i++)
    if (str_equal(shells[i].name, shell)) {
      shells[i].write(target);
      return true;
    }
  return false;
}

int ctl_run_completion(struct ctl *ctl) {
  struct buf text = {0};
  if (!ctl_completion_write(ctl->arguments[0], &text))
    return ctl_fail_usage("completion is for bash, zsh or fish, not \"%.60s\"", ctl->arguments[0]);
  int status = ctl_print(&text);
  buf_free(&text);
  return status;
}
