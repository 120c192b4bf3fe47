/* config_reference.c: the key table as Markdown. docs/configuration.md is exactly this; a test compares them. */
#include <string.h>

#include "sdk/config/config_internal.h"

static const char intro[] =
    "# Configuration: `gatehouse.yaml`\n"
    "\n"
    "<!-- Generated from sdk/config/config_keys.def by docs/generate/configuration.c; edit that table. -->\n"
    "\n"
    "One file for processes, listeners and stores; everything that is content (tools, teams, tokens, …) is catalog "
    "state and\n"
    "is applied with `gatehouse apply`. The file is looked for at `--config`, `$GATEHOUSE_CONFIG`, `./gatehouse.yaml` "
    "and\n"
    "`/etc/gatehouse/gatehouse.yaml`; without any, a built-in quick start runs. `gatehouse-supervisor --check` reads "
    "it and says\n"
    "everything that is wrong, with line, column and the key's path.\n"
    "\n"
    "It is strict: unknown or doubled keys, wrong types and values out of range are errors. Later sources win: file,\n"
    "environment variables, the lines of `GATEHOUSE_SET` (`key=value`), then `--set key=value`. Elements of lists are "
    "named by their\n"
    "id or name: `--set modules.mcp.restart=never`, `--set listeners.mcp.port=0`. Lists and mappings are given to "
    "`--set` as\n"
    "YAML: `--set 'modules.mcp.args=[-v, --trace]'`.\n"
    "\n"
    "```yaml\n"
    "version: 1\n"
    "listeners:\n"
    "  - name: mcp\n"
    "    port: 4444\n"
    "modules:\n"
    "  - id: mcp\n"
    "    listeners: [mcp]\n"
    "  - id: rest\n"
    "    family: rest-grpc\n"
    "    config:\n"
    "      egress:\n"
    "        allow: [\"127.0.0.1/32\"]\n"
    "```\n";

static void write_scope(struct buf *target, const char *title, const char *lead, const struct config_scope *scope) {
  buf_printf(target, "\n## %s\n\n%s\n\n| key | expects | default | environment | meaning |\n|---|---|---|---|---|\n",
             title, lead);
  for (size_t i = 0; i < scope->count; i++) {
    const struct config_key *key = &scope->keys[i];
    char expected[128];
    config_key_expectation(key, expected, sizeof(expected));
    buf_printf(target, "| `%s` | %s | ", key->path, expected);
    if (!key->standard)
      buf_append_text(target, "required");
    else if (*key->standard)
      buf_printf(target, "`%s`", key->standard);
    buf_printf(target, " | %s%s%s | %s |\n", key->environment ? "`" : "", key->environment ? key->environment : "",
               key->environment ? "`" : "", key->doc);
  }
}

void config_reference_write(struct buf *target) {
  buf_append_text(target, intro);
  write_scope(target, "Keys of the file", "A dot means nesting: `log.level` is the key `level` of the mapping `log`.",
              &config_root_scope);
  write_scope(target, "Keys of a listener (`listeners[]`)",
              "Bound once by the supervisor, handed to modules by the socket-activation convention (`LISTEN_FDS`,\n"
              "`LISTEN_FDNAMES`), and kept while modules restart.",
              &config_listener_scope);
  write_scope(target, "Keys of a module (`modules[]`)", "Each is one process under the supervisor.",
              &config_module_scope);
}
