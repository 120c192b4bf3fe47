/* commands.c: the table of commands. Dispatch, --help, shell completion and docs/cli.md come from it: adding a command
 * is adding a row and its ctl_run_… function. */
#include <limits.h>
#include <string.h>

#include "sdk/base/str.h"
#include "supervisor/ctl/ctl_internal.h"

#define END                                                                                                            \
  { 0 }
#define OPTIONS(...) ((const struct ctl_option[]){__VA_ARGS__, END})
#define ANY UINT_MAX

const struct ctl_option ctl_global_options[] = {
    {"run-dir", 0, false, "DIR",
     "directory of the gateway's sockets; else $GATEHOUSE_RUN, else as the configuration says"},
    {"output", 'o', false, "FORM", "table (default), json or yaml"},
    {"timeout", 0, false, "TIME", "how long the core may take to answer, such as 500ms, 30s (default) or 2m"},
    {"help", 'h', false, NULL, "show help"},
    {"version", 'V', false, NULL, "show the version"},
    END};

#define CONFIG_OPTIONS                                                                                                 \
  {"config", 'c', false, "FILE",                                                                                       \
   "read this file; else $GATEHOUSE_CONFIG, ./gatehouse.yaml, /etc/gatehouse/gatehouse.yaml, else the built-in one"},  \
  {                                                                                                                    \
    "set", 's', true, "KEY=VALUE", "override one key of the file; may be given often"                                  \
  }

const struct ctl_command ctl_commands[] = {
    {"up", "", 0, 0, "start the gateway and stay in the foreground",
     "Becomes gatehouse-supervisor, which is looked for beside this program, then in PATH. Its exit statuses are its "
     "own.",
     OPTIONS(CONFIG_OPTIONS), ctl_run_up},
    {"status", "", 0, 0, "show every process, the listeners and the store",
     "Answers 0 when everything is ready, 3 when something is not, 4 when the core cannot be reached.",
     OPTIONS({"watch", 'w', false, NULL, "show it again every two seconds, until interrupted"}), ctl_run_status},
    {"apply", "", 0, 0, "declare documents: create and change what they say",
     "Reads YAML or JSON: tools, gateways, servers, users, teams, roles, plugins. All documents are applied, or none "
     "is. "
     "Applying the same documents again changes nothing. A directory stands for its *.yaml, *.yml and *.json files in "
     "the "
     "order of their names.",
     OPTIONS({"file", 'f', true, "PATH", "file, directory, or - for standard input; may be given often"},
             {"dry-run", 'n', false, NULL, "say what would happen, change nothing"},
             {"prune", 0, false, NULL, "delete documents of the applied kinds that are not among them"}),
     ctl_run_apply},
    {"export", "[KIND...]", 0, ANY, "print the documents as they are, without secrets",
     "The answer can be applied again. YAML, or with --output json one document a line.", NULL, ctl_run_export},
    {"delete", "KIND NAME", 2, 2, "delete one document", NULL, NULL, ctl_run_delete},
    {"refresh", "[GATEWAY]", 0, 1, "look anew at what federated gateways offer", NULL, NULL, ctl_run_refresh},
    {"token create", "", 0, 0, "make an API token; it is shown this once",
     "Without --team and --all-teams the token sees public records only. The value is printed on standard output and "
     "never "
     "again.",
     OPTIONS({"user", 'u', false, "EMAIL", "the user it is for"},
             {"team", 't', true, "TEAM", "a team whose records it may see; may be given often"},
             {"all-teams", 0, false, NULL, "no team filter; administrators only"},
             {"name", 0, false, "TEXT", "what people call it"},
             {"server", 0, false, "NAME", "good for this virtual server only"},
             {"permission", 0, true, "PERMISSION", "narrows the user's roles to this permission; may be given often"},
             {"ip", 0, true, "CIDR", "good from these addresses only; may be given often"},
             {"ttl", 0, false, "TIME", "ends after this time, such as 8h or 30d; else it does not end by itself"}),
     ctl_run_token_create},
    {"token list", "", 0, 0, "list the tokens, without their values", NULL,
     OPTIONS({"user", 'u', false, "EMAIL", "of this user only"}), ctl_run_token_list},
    {"token revoke", "ID", 1, 1, "end a token at once", NULL, NULL, ctl_run_token_revoke},
    {"events", "", 0, 0, "show the state graph's events",
     "One line an event: time, sequence, family, type, subject. With --output json the raw events, one a line. "
     "With --follow it goes on, also after a restart of the core, and says so on standard error.",
     OPTIONS({"follow", 'f', false, NULL, "go on with new events as they happen"},
             {"tail", 'n', false, "N", "begin with the newest N events (default: 20)"},
             {"after", 0, false, "SEQUENCE", "begin after this sequence number instead"},
             {"trace", 0, false, "ID", "only of this trace"},
             {"family", 0, true, "FAMILY", "only of this family, such as runtime_execution; may be given often"}),
     ctl_run_events},
    {"module list", "", 0, 0, "list the modules", NULL, NULL, ctl_run_module_list},
    {"module describe", "ID", 1, 1, "show a module's instances, what it declares and what happened to it", NULL, NULL,
     ctl_run_module_describe},
    {"module restart", "ID", 1, 1, "let a module finish what it does, and start it anew", NULL,
     OPTIONS({"drain", 0, false, "TIME", "time for what is in flight; else the core's default"}),
     ctl_run_module_restart},
    {"module drain", "ID", 1, 1, "take a module out of service: it finishes what it does, and stays",
     "New requests are refused in the protocol's own form. `module start` or `module restart` brings a new instance, "
     "`module stop` ends it.",
     OPTIONS({"deadline", 0, false, "TIME", "time for what is in flight; else as configured"}), ctl_run_module_drain},
    {"module stop", "ID", 1, 1, "let a module finish what it does, and keep it down",
     "It stays down until `module start`, or until the gateway is started anew.",
     OPTIONS({"drain", 0, false, "TIME", "time for what is in flight; else as configured"}), ctl_run_module_stop},
    {"module start", "ID", 1, 1, "start a module that was stopped or drained, or waits for its restart", NULL, NULL,
     ctl_run_module_start},
    {"module release", "ID", 1, 1, "end a module's quarantine and start it",
     "A module that keeps dying, or is again and again not ready in time, is quarantined: it stays down, also after a "
     "restart of the gateway, until this.",
     NULL, ctl_run_module_release},
    {"module upgrade", "ID", 1, 1, "start another version of a module and hand over",
     "Versions are looked for in `versions_dir`, as `<program>-<version>` or `<version>/<program>`, and among those "
     "that the module ran; `module describe` lists them. The program must then say that it is of that version. "
     "ID `core` is the core itself: it is replaced in place, watched, and taken back when it does not hold.",
     OPTIONS({"to", 0, false, "PATH|VERSION", "the new program: an absolute path, or a version"},
             {"path", 0, false, "PATH", "the same, a path only"},
             {"probation", 0, false, "TIME", "how long both are watched before the old one leaves, such as 10s"},
             {"no-rollback", 0, false, NULL, "of the core: take a program that changes the store, with no way back"}),
     ctl_run_module_upgrade},
    {"module configure", "ID", 1, 1, "give a module another configuration and hand over",
     "The file has what stands below `config` in gatehouse.yaml, as YAML or JSON; without one, what gatehouse.yaml "
     "says now. A new process takes it, or refuses it, and serves beside the old one first, as with `module upgrade`.",
     OPTIONS({"file", 'f', false, "FILE", "the new configuration; - is standard input"},
             {"probation", 0, false, "TIME", "how long both are watched before the old one leaves, such as 10s"}),
     ctl_run_module_configure},
    {"module rollback", "ID", 1, 1, "go back to the version and configuration before", NULL, NULL,
     ctl_run_module_rollback},
    {"metrics", "", 0, 0, "print the metrics in Prometheus' text format", NULL, NULL, ctl_run_metrics},
    {"psg query", "[TYPE]", 0, 1, "show nodes of the state graph",
     "A filter is FIELD=VALUE, FIELD!=VALUE, FIELD>VALUE or FIELD<VALUE; a value that is not JSON is a text.",
     OPTIONS({"filter", 0, true, "FILTER", "only nodes for which this holds; may be given often"},
             {"limit", 0, false, "N", "at most so many (default: 100)"}, {"offset", 0, false, "N", "skip so many"}),
     ctl_run_psg_query},
    {"psg hash", "", 0, 0, "show the state graph's hash and counts", NULL, NULL, ctl_run_psg_hash},
    {"config check", "", 0, 0, "say everything that is wrong with a configuration",
     "Each problem with file, line, column, key and code, on standard error. Answers 0 or 100.",
     OPTIONS(CONFIG_OPTIONS), ctl_run_config_check},
    {"config show", "", 0, 0, "print the effective configuration",
     "What the file, the environment, --set and the defaults together say; YAML, or with --output json JSON.",
     OPTIONS(CONFIG_OPTIONS), ctl_run_config_show},
    {"completion", "SHELL", 1, 1, "print a completion script for bash, zsh or fish",
     "For instance: source <(gatehouse completion bash). What there is, ids and versions among it, is asked of the "
     "running gateway.",
     NULL, ctl_run_completion},
    {"complete", "[WORD...]", 0, ANY, "print what may follow these words; for completion scripts",
     "The last word is the one that is being typed. Give the words behind --. A line is a word, a tab and what it "
     "means; \":files\" stands for the names of files. Without a gateway nothing that only it knows is printed.",
     NULL, ctl_run_complete},
    {"version", "", 0, 0, "show the version", NULL, NULL, ctl_run_version},
    {"help", "[COMMAND]", 0, 2, "show help", NULL, NULL, ctl_run_help},
};
const size_t ctl_command_count = sizeof(ctl_commands) / sizeof(ctl_commands[0]);

/* "token create" is two words of argv. */
static bool names(const struct ctl_command *command, char *const *words, size_t count, unsigned *used) {
  const char *space = strchr(command->name, ' ');
  size_t first = space ? (size_t)(space - command->name) : strlen(command->name);
  *used = space ? 2 : 1;
  return count >= *used && strlen(words[0]) == first && memcmp(words[0], command->name, first) == 0 &&
         (!space || str_equal(space + 1, words[1]));
}

const struct ctl_command *ctl_command_find(char *const *words, size_t count, unsigned *words_used) {
  for (size_t i = 0; i < ctl_command_count; i++)
    if (names(&ctl_commands[i], words, count, words_used))
      return &ctl_commands[i];
  return NULL;
}

bool ctl_group_exists(const char *word) {
  size_t length = strlen(word);
  for (size_t i = 0; i < ctl_command_count; i++)
    if (str_starts_with(ctl_commands[i].name, word) && ctl_commands[i].name[length] == ' ')
      return true;
  return false;
}
