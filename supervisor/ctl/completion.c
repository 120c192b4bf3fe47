/* completion.c: the completion scripts for bash, zsh and fish. They know nothing: each hands the words of the line to
 * `gatehouse complete`, which answers what may follow (complete.c), or that a file does, which the shell itself
 * completes. */
#include "sdk/base/str.h"
#include "supervisor/ctl/ctl_internal.h"

static const char bash[] =
    "# bash completion of gatehouse; use: source <(gatehouse completion bash)\n"
    "_gatehouse() {\n"
    "  mapfile -t COMPREPLY < <(\"${COMP_WORDS[0]}\" complete -- \"${COMP_WORDS[@]:1:COMP_CWORD}\" 2>/dev/null)\n"
    "  if [ \"${COMPREPLY[0]}\" = :files ]; then\n"
    "    COMPREPLY=()\n"
    "    compopt -o bashdefault -o default 2>/dev/null\n"
    "  fi\n"
    "  COMPREPLY=(\"${COMPREPLY[@]%%$'\\t'*}\")\n"
    "}\n"
    "complete -F _gatehouse gatehouse\n";

static const char zsh[] = "#compdef gatehouse\n"
                          "# zsh completion of gatehouse; use: source <(gatehouse completion zsh)\n"
                          "_gatehouse() {\n"
                          "  local -a found\n"
                          "  found=(\"${(@f)$(\"${words[1]}\" complete -- \"${(@)words[2,CURRENT]}\" 2>/dev/null)}\")\n"
                          "  if [[ ${found[1]} == :files ]]; then _files\n"
                          "  elif [[ -n ${found[1]} ]]; then compadd -- \"${(@)found%%$'\\t'*}\"\n"
                          "  fi\n"
                          "}\n"
                          "compdef _gatehouse gatehouse\n";

static const char fish[] = "# fish completion of gatehouse; use: gatehouse completion fish | source\n"
                           "function __gatehouse_complete\n"
                           "  set -l line (commandline -opc) (commandline -ct)\n"
                           "  set -l found (command $line[1] complete -- $line[2..-1] 2>/dev/null)\n"
                           "  if test \"$found[1]\" = :files\n"
                           "    __fish_complete_path (commandline -ct)\n"
                           "  else if set -q found[1]\n"
                           "    printf '%s\\n' $found\n"
                           "  end\n"
                           "end\n"
                           "complete -c gatehouse -f -a '(__gatehouse_complete)'\n";

bool ctl_completion_write(const char *shell, struct buf *target) {
  static const struct { const char *name, *script; } shells[] = {{"bash", bash}, {"zsh", zsh}, {"fish", fish}};
  for (size_t i = 0; i < sizeof(shells) / sizeof(shells[0]); i++)
    if (str_equal(shells[i].name, shell)) {
      buf_append_text(target, shells[i].script);
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
