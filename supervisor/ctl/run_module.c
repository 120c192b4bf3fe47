/* run_module.c: `module describe|restart|drain|stop|start|release|upgrade|configure|rollback`. */
#include <stdio.h>
#include <string.h>

#include "sdk/base/str.h"
#include "supervisor/ctl/ctl_internal.h"
#include "wire/pbc/core/admin/v1/admin.pb-c.h"
#include "wire/pbc/core/module/v1/module.pb-c.h"

static void line(struct buf *target, const char *name, const char *text) {
  struct buf safe = {0};
  if (str_is_empty(text))
    return;
  ctl_text_append_safe(&safe, text, strlen(text));
  buf_printf(target, "%-12s %s\n", name, safe.data);
  buf_free(&safe);
}

static void instances_write(const Core__Admin__V1__DescribeModuleResponse *module, struct buf *target) {
  static const char *const heads[] = {"GENERATION", "VERSION", "STATE", "PID", "UPTIME", "RESTARTS", "REASON"};
  struct ctl_table *table = ctl_table_create(heads, sizeof(heads) / sizeof(heads[0]));
  for (size_t i = 0; i < module->n_instances; i++) {
    const Core__Admin__V1__ProcessStatus *process = module->instances[i];
    char uptime[32];
    ctl_duration_format(process->uptime_ms, uptime);
    ctl_table_cell_number(table, process->generation);
    ctl_table_cell(table, process->version);
    ctl_table_cell(table, process->state);
    ctl_table_cell_number(table, process->pid);
    ctl_table_cell(table, uptime);
    ctl_table_cell_number(table, process->restarts);
    ctl_table_cell(table, process->reason);
  }
  ctl_table_finish(&table, target);
}

static void history_write(const Core__Admin__V1__DescribeModuleResponse *module, struct buf *target) {
  static const char *const heads[] = {"WHEN (UTC)", "GENERATION", "FROM", "TO", "CAUSE"};
  struct ctl_table *table = ctl_table_create(heads, sizeof(heads) / sizeof(heads[0]));
  for (size_t i = 0; i < module->n_history; i++) {
    const Core__Admin__V1__ModuleTransition *transition = module->history[i];
    char when[32];
    ctl_time_format(transition->at_ms, when);
    ctl_table_cell(table, when);
    ctl_table_cell_number(table, transition->generation);
    ctl_table_cell(table, transition->from_state);
    ctl_table_cell(table, transition->to_state);
    ctl_table_cell(table, transition->cause);
  }
  ctl_table_finish(&table, target);
}

static void words_write(char *const *words, size_t count, struct buf *target) {
  for (size_t i = 0; i < count; i++) {
    buf_append_text(target, "  ");
    ctl_text_append_safe(target, words[i], strlen(words[i]));
    buf_append_char(target, '\n');
  }
}

/* Deaths that nobody ordered, with what each wrote last; the newest one's words are the module's last words. */
static void deaths_write(const Core__Admin__V1__DescribeModuleResponse *module, struct buf *target) {
  static const char *const heads[] = {"WHEN (UTC)", "GENERATION", "KIND", "CAUSE", "READY FOR", "DETAIL"};
  struct ctl_table *table = ctl_table_create(heads, sizeof(heads) / sizeof(heads[0]));
  for (size_t i = 0; i < module->n_deaths; i++) {
    const Core__Admin__V1__ModuleDeath *death = module->deaths[i];
    char when[32], ready[32];
    ctl_time_format(death->at_ms, when);
    ctl_duration_format(death->ready_ms, ready);
    ctl_table_cell(table, when);
    ctl_table_cell_number(table, death->generation);
    ctl_table_cell(table, death->kind);
    ctl_table_cell(table, death->cause);
    ctl_table_cell(table, death->ready_ms ? ready : "-");
    ctl_table_cell(table, death->detail);
  }
  buf_append_text(target, "\ndeaths:");
  for (size_t i = 0; i < module->n_death_counts; i++)
    buf_printf(target, "%s %s %u", i ? "," : "", module->death_counts[i]->cause, module->death_counts[i]->count);
  buf_append_char(target, '\n');
  ctl_table_finish(&table, target);
  for (size_t i = 0; i < module->n_deaths; i++) {
    if (module->deaths[i]->n_last_words == 0)
      continue;
    buf_printf(target, "\nlast words of generation %llu:\n", (unsigned long long)module->deaths[i]->generation);
    words_write(module->deaths[i]->last_words, module->deaths[i]->n_last_words, target);
  }
}

static void protections_write(const Core__Admin__V1__DescribeModuleResponse *module, struct buf *target) {
  static const char *const heads[] = {"PROTECTION", "STATE", "WHAT / WHY NOT"};
  struct ctl_table *table = ctl_table_create(heads, sizeof(heads) / sizeof(heads[0]));
  for (size_t i = 0; i < module->n_protections; i++) {
    const Core__Admin__V1__ModuleProtection *protection = module->protections[i];
    ctl_table_cell(table, protection->name);
    ctl_table_cell_coloured(table, protection->state,
                            str_equal(protection->state, "in force") ? CTL_COLOUR_GOOD : CTL_COLOUR_WARN);
    ctl_table_cell(table, protection->why);
  }
  ctl_table_finish(&table, target);
}

static const char *program_text(const char *program) {
  return program[0] ? program : "as configured";
}

/* "1.3 /opt/gatehouse/gatehouse-mcp, configuration 2", or one half of it; both when neither is asked for. */
static char *edition_text(const char *program, const char *version, uint64_t config, bool of_program, bool of_config) {
  bool both = of_program == of_config;
  if (!both && of_config)
    return base_asprintf("configuration %llu", (unsigned long long)config);
  const char *space = version[0] ? " " : "";
  return both && config ? base_asprintf("%s%s%s, configuration %llu", version, space, program_text(program),
                                        (unsigned long long)config)
                        : base_asprintf("%s%s%s", version, space, program_text(program));
}

static void edition_line(struct buf *target, const char *name, const char *program, const char *version,
                         uint64_t config) {
  char *text = edition_text(program, version, config, true, true);
  line(target, name, text);
  base_free(text);
}

static void known_write(const Core__Admin__V1__ModuleVersions *versions, struct buf *target) {
  static const char *const heads[] = {"VERSION", "PROGRAM", ""};
  struct ctl_table *table = ctl_table_create(heads, sizeof(heads) / sizeof(heads[0]));
  for (size_t i = 0; i < versions->n_known; i++) {
    const Core__Admin__V1__KnownVersion *known = versions->known[i];
    bool current = str_equal(known->program, versions->program) && str_equal(known->version, versions->version);
    ctl_table_cell(table, known->version);
    ctl_table_cell(table, program_text(known->program));
    ctl_table_cell(table, current ? "current" : "");
  }
  ctl_table_finish(&table, target);
  buf_append_char(target, '\n');
}

static void change_write(struct ctl_table *table, const Core__Admin__V1__ModuleVersionChange *change) {
  bool program = !str_equal(change->from, change->to) || !str_equal(change->from_version, change->to_version);
  bool config = change->from_config != change->to_config;
  char when[32];
  char *from = edition_text(change->from, change->from_version, change->from_config, program, config);
  char *to = edition_text(change->to, change->to_version, change->to_config, program, config);
  ctl_time_format(change->at_ms, when);
  ctl_table_cell(table, when);
  ctl_table_cell_coloured(table, change->verdict,
                          str_equal(change->verdict, "promoted") ? CTL_COLOUR_GOOD : CTL_COLOUR_WARN);
  ctl_table_cell(table, from);
  ctl_table_cell(table, to);
  ctl_table_cell(table, change->who);
  ctl_table_cell(table, change->cause);
  base_free(from);
  base_free(to);
}

static void versions_write(const Core__Admin__V1__ModuleVersions *versions, struct buf *target) {
  static const char *const heads[] = {"WHEN (UTC)", "VERDICT", "FROM", "TO", "BY", "WHY"};
  if (!versions)
    return;
  edition_line(target, "runs", versions->program, versions->version, versions->config);
  if (versions->has_previous)
    edition_line(target, "before it", versions->previous, versions->previous_version, versions->previous_config);
  if (versions->file_config && versions->file_config != versions->config)
    buf_printf(target, "%-12s configuration %llu\n", "gatehouse.yaml", (unsigned long long)versions->file_config);
  if (versions->phase[0])
    line(target, "upgrade", versions->phase);
  buf_append_char(target, '\n');
  if (versions->n_known > 1)
    known_write(versions, target);
  if (versions->n_changes == 0)
    return;
  struct ctl_table *table = ctl_table_create(heads, sizeof(heads) / sizeof(heads[0]));
  for (size_t i = 0; i < versions->n_changes; i++)
    change_write(table, versions->changes[i]);
  ctl_table_finish(&table, target);
  buf_append_char(target, '\n');
}

static void quarantine_write(const Core__Admin__V1__ModuleQuarantine *quarantine, struct buf *target) {
  char when[32], pause[32], told[96];
  if (!quarantine)
    return;
  ctl_time_format(quarantine->trial_at_ms, when);
  ctl_duration_format(quarantine->pause_ms, pause);
  if (quarantine->on_trial)
    str_copy(told, sizeof(told), "on trial: one more death, and it is held again");
  else if (quarantine->pause_ms)
    snprintf(told, sizeof(told), "for %s, until a trial start at %s UTC", pause, when);
  else
    str_copy(told, sizeof(told), "until `gatehouse module release`");
  line(target, "quarantine", told);
}

static int described(const char *id, const Core__Admin__V1__DescribeModuleResponse *module) {
  struct buf text = {0};
  line(&text, "module", id);
  if (module->descriptor) {
    line(&text, "version", module->descriptor->module_version);
    line(&text, "family", module->descriptor->protocol_family);
  }
  quarantine_write(module->quarantine, &text);
  buf_append_char(&text, '\n');
  instances_write(module, &text);
  buf_append_char(&text, '\n');
  if (module->n_protections) {
    protections_write(module, &text);
    buf_append_char(&text, '\n');
  }
  versions_write(module->versions, &text);
  history_write(module, &text);
  if (module->n_last_words)
    buf_append_text(&text, "\nlast words of the instance before:\n");
  words_write(module->last_words, module->n_last_words, &text);
  if (module->n_deaths)
    deaths_write(module, &text);
  int status = ctl_print(&text);
  buf_free(&text);
  return status;
}

int ctl_run_module_describe(struct ctl *ctl) {
  Core__Admin__V1__DescribeModuleRequest request = CORE__ADMIN__V1__DESCRIBE_MODULE_REQUEST__INIT;
  int status;
  request.module_id = ctl->arguments[0];
  Core__Admin__V1__DescribeModuleResponse *reply =
      ctl_call_or_fail(ctl, "ModuleAdminService/DescribeModule", &request.base, &status);
  if (reply)
    status =
        ctl->output == CTL_OUTPUT_TABLE ? described(request.module_id, reply) : ctl_print_message(ctl, &reply->base);
  ctl_message_free(reply);
  return status;
}

/* "restarting mcp (generation 7)", or the message; generation 0: not known yet. */
static int under_way(const struct ctl *ctl, const char *what, uint64_t generation, const ProtobufCMessage *reply) {
  struct buf text = {0};
  if (ctl->output != CTL_OUTPUT_TABLE)
    return ctl_print_message(ctl, reply);
  buf_printf(&text, "%s %s", what, ctl->arguments[0]);
  if (generation > 0)
    buf_printf(&text, " (generation %llu)", (unsigned long long)generation);
  buf_append_char(&text, '\n');
  int status = ctl_print(&text);
  buf_free(&text);
  return status;
}

/* A time given as an option, in milliseconds; 0: none was. False: it is no time, and that was said. */
static bool drain_time(const struct ctl *ctl, const char *option, uint32_t *drain_ms) {
  const char *text = ctl_text(ctl, option);
  uint64_t given_ms = 0;
  if (text && (!ctl_duration_parse(text, &given_ms) || given_ms == 0 || given_ms > INT32_MAX)) {
    ctl_fail_usage("--%s is a time such as 5s or 2m, not \"%.60s\"", option, text);
    return false;
  }
  *drain_ms = (uint32_t)given_ms;
  return true;
}

int ctl_run_module_restart(struct ctl *ctl) {
  Core__Admin__V1__RestartModuleRequest request = CORE__ADMIN__V1__RESTART_MODULE_REQUEST__INIT;
  int status;
  request.module_id = ctl->arguments[0];
  if (!drain_time(ctl, "drain", &request.drain_deadline_ms))
    return CTL_EXIT_USAGE;
  Core__Admin__V1__RestartModuleResponse *reply =
      ctl_call_or_fail(ctl, "ModuleAdminService/RestartModule", &request.base, &status);
  if (reply)
    status = under_way(ctl, "restarting", reply->generation, &reply->base);
  ctl_message_free(reply);
  return status;
}

int ctl_run_module_drain(struct ctl *ctl) {
  Core__Admin__V1__DrainModuleRequest request = CORE__ADMIN__V1__DRAIN_MODULE_REQUEST__INIT;
  int status;
  request.module_id = ctl->arguments[0];
  if (!drain_time(ctl, "deadline", &request.deadline_ms))
    return CTL_EXIT_USAGE;
  Core__Admin__V1__DrainModuleResponse *reply =
      ctl_call_or_fail(ctl, "ModuleAdminService/DrainModule", &request.base, &status);
  if (reply)
    status = under_way(ctl, "draining", reply->generation, &reply->base);
  ctl_message_free(reply);
  return status;
}

int ctl_run_module_stop(struct ctl *ctl) {
  Core__Admin__V1__StopModuleRequest request = CORE__ADMIN__V1__STOP_MODULE_REQUEST__INIT;
  int status;
  request.module_id = ctl->arguments[0];
  if (!drain_time(ctl, "drain", &request.drain_deadline_ms))
    return CTL_EXIT_USAGE;
  Core__Admin__V1__StopModuleResponse *reply =
      ctl_call_or_fail(ctl, "ModuleAdminService/StopModule", &request.base, &status);
  if (reply)
    status = under_way(ctl, "stopping", reply->generation, &reply->base);
  ctl_message_free(reply);
  return status;
}

int ctl_run_module_start(struct ctl *ctl) {
  Core__Admin__V1__StartModuleRequest request = CORE__ADMIN__V1__START_MODULE_REQUEST__INIT;
  int status;
  request.module_id = ctl->arguments[0];
  Core__Admin__V1__StartModuleResponse *reply =
      ctl_call_or_fail(ctl, "ModuleAdminService/StartModule", &request.base, &status);
  if (reply)
    status = under_way(ctl, "starting", 0, &reply->base);
  ctl_message_free(reply);
  return status;
}

int ctl_run_module_release(struct ctl *ctl) {
  Core__Admin__V1__ReleaseModuleRequest request = CORE__ADMIN__V1__RELEASE_MODULE_REQUEST__INIT;
  int status;
  request.module_id = ctl->arguments[0];
  Core__Admin__V1__ReleaseModuleResponse *reply =
      ctl_call_or_fail(ctl, "ModuleAdminService/ReleaseModule", &request.base, &status);
  if (reply)
    status = under_way(ctl, "released; starting", 0, &reply->base);
  ctl_message_free(reply);
  return status;
}

int ctl_run_module_upgrade(struct ctl *ctl) {
  Core__Admin__V1__UpgradeModuleRequest request = CORE__ADMIN__V1__UPGRADE_MODULE_REQUEST__INIT;
  int status;
  if (ctl_has(ctl, "path") == ctl_has(ctl, "to"))
    return ctl_fail_usage("module upgrade needs either --path or --to");
  request.module_id = ctl->arguments[0];
  const char *to = ctl_text(ctl, ctl_has(ctl, "to") ? "to" : "path");
  if (ctl_has(ctl, "path") || strchr(to, '/'))
    request.path = ctl_borrow(to);
  else
    request.version = ctl_borrow(to);
  if (!drain_time(ctl, "probation", &request.probation_ms))
    return CTL_EXIT_USAGE;
  request.no_rollback = ctl_has(ctl, "no-rollback");
  Core__Admin__V1__UpgradeModuleResponse *reply =
      ctl_call_or_fail(ctl, "ModuleAdminService/UpgradeModule", &request.base, &status);
  if (reply)
    status = under_way(ctl, "upgrading", reply->generation, &reply->base);
  ctl_message_free(reply);
  return status;
}

/* The file's one document, as JSON; NULL: *status says why. */
static bool config_load(const char *path, struct ctl_documents *documents, int *status) {
  struct error err = {0};
  if (!ctl_documents_load(path, documents, &err))
    *status = ctl_fail(&err);
  else if (documents->count != 1)
    *status = ctl_fail_code(ERR_MODULE_CONFIG, "%.180s: %zu documents; a configuration is one", path, documents->count);
  else
    return true;
  return false;
}

int ctl_run_module_configure(struct ctl *ctl) {
  Core__Admin__V1__ConfigureModuleRequest request = CORE__ADMIN__V1__CONFIGURE_MODULE_REQUEST__INIT;
  struct ctl_documents documents = {0};
  int status = CTL_EXIT_USAGE;
  request.module_id = ctl->arguments[0];
  if (!drain_time(ctl, "probation", &request.probation_ms))
    return status;
  if (!ctl_has(ctl, "file") || config_load(ctl_text(ctl, "file"), &documents, &status)) {
    if (documents.count)
      request.config_json = (ProtobufCBinaryData){documents.items[0].length, (uint8_t *)documents.items[0].json};
    Core__Admin__V1__ConfigureModuleResponse *reply =
        ctl_call_or_fail(ctl, "ModuleAdminService/ConfigureModule", &request.base, &status);
    char what[64];
    if (reply) {
      snprintf(what, sizeof(what), "configuration %llu goes to", (unsigned long long)reply->revision);
      status = under_way(ctl, what, reply->generation, &reply->base);
    }
    ctl_message_free(reply);
  }
  ctl_documents_free(&documents);
  return status;
}

int ctl_run_module_rollback(struct ctl *ctl) {
  Core__Admin__V1__RollbackModuleRequest request = CORE__ADMIN__V1__ROLLBACK_MODULE_REQUEST__INIT;
  int status;
  request.module_id = ctl->arguments[0];
  Core__Admin__V1__RollbackModuleResponse *reply =
      ctl_call_or_fail(ctl, "ModuleAdminService/RollbackModule", &request.base, &status);
  if (reply)
    status = under_way(ctl, "rolling back", reply->generation, &reply->base);
  ctl_message_free(reply);
  return status;
}
