/* run_catalog.c: `apply`, `export`, `delete` and `refresh`: documents in, documents out. */
#include <stdio.h>
#include <string.h>

#include "sdk/base/json.h"
#include "sdk/base/str.h"
#include "supervisor/ctl/ctl_internal.h"
#include "wire/pbc/core/admin/v1/admin.pb-c.h"

/* APPLY_ACTION_… to the word that people read; the second when nothing of it was written. */
static const char *const action_words[] = {"?", "created", "updated", "unchanged", "deleted", "refused"};
static const char *const action_would_words[] = {"?",         "would be created", "would be updated",
                                                 "unchanged", "would be deleted", "refused"};

static const char *action_word(Core__Admin__V1__ApplyAction action, bool applied) {
  size_t index = (size_t)action < sizeof(action_words) / sizeof(action_words[0]) ? (size_t)action : 0;
  return applied ? action_words[index] : action_would_words[index];
}

/* What went wrong with a document stands on stderr, with the place of the document. */
static void refusal_note(const Core__Admin__V1__ApplyOutcome *outcome, const struct ctl_documents *documents) {
  const Core__Common__V1__ErrorEnvelope *error = outcome->error;
  const char *message = error ? error->message : "refused", *code = error ? error->code : "catalog.record.invalid";
  if (outcome->document_index < documents->count) {
    const struct ctl_document *document = &documents->items[outcome->document_index];
    ctl_note("%s:%u: %s %s: %s (%s)", document->file, document->line, outcome->kind, outcome->name, message, code);
  } else {
    ctl_note("%s %s: %s (%s)", outcome->kind, outcome->name, message, code);
  }
}

static void outcome_write(const Core__Admin__V1__ApplyOutcome *outcome, bool applied, struct buf *target) {
  struct buf line = {0};
  buf_printf(&line, applied ? "%-9s %s %s" : "%-16s %s %s", action_word(outcome->action, applied), outcome->kind,
             outcome->name);
  for (size_t i = 0; i < outcome->n_changed_fields; i++)
    buf_printf(&line, "%s%s", i ? ", " : ": ", outcome->changed_fields[i]);
  ctl_text_append_safe(target, line.data, line.length);
  buf_append_char(target, '\n');
  buf_free(&line);
}

static int outcomes_show(const struct ctl *ctl, const Core__Admin__V1__ApplyResponse *reply,
                         const struct ctl_documents *documents, bool dry_run) {
  unsigned counts[sizeof(action_words) / sizeof(action_words[0])] = {0};
  struct buf text = {0};
  for (size_t i = 0; i < reply->n_outcomes; i++) {
    const Core__Admin__V1__ApplyOutcome *outcome = reply->outcomes[i];
    if ((size_t)outcome->action < sizeof(counts) / sizeof(counts[0]))
      counts[outcome->action]++;
    outcome_write(outcome, reply->applied, &text);
    if (outcome->action == CORE__ADMIN__V1__APPLY_ACTION__APPLY_ACTION_REFUSED)
      refusal_note(outcome, documents);
  }
  unsigned refused = counts[CORE__ADMIN__V1__APPLY_ACTION__APPLY_ACTION_REFUSED];
  for (size_t i = 1; i < sizeof(counts) / sizeof(counts[0]); i++)
    if (counts[i])
      buf_printf(&text, "%u %s, ", counts[i], action_word((Core__Admin__V1__ApplyAction)i, reply->applied));
  if (refused || !reply->applied)
    buf_append_text(&text, refused   ? "nothing was changed\n"
                           : dry_run ? "nothing was changed (dry run)\n"
                                     : "nothing to change\n");
  else
    buf_printf(&text, "revision %llu\n", (unsigned long long)reply->revision);
  int status = ctl->output == CTL_OUTPUT_TABLE ? ctl_print(&text) : ctl_print_message(ctl, &reply->base);
  buf_free(&text);
  return status != CTL_EXIT_OK ? status : refused ? CTL_EXIT_REFUSED : CTL_EXIT_OK;
}

static int apply_documents(struct ctl *ctl, const struct ctl_documents *documents) {
  Core__Admin__V1__ApplyRequest request = CORE__ADMIN__V1__APPLY_REQUEST__INIT;
  Core__Admin__V1__Document *messages = base_calloc(documents->count, sizeof(*messages)),
                            **list = base_calloc(documents->count, sizeof(*list));
  for (size_t i = 0; i < documents->count; i++) {
    core__admin__v1__document__init(&messages[i]);
    messages[i].document_json = (ProtobufCBinaryData){documents->items[i].length, (uint8_t *)documents->items[i].json};
    list[i] = &messages[i];
  }
  request.documents = list;
  request.n_documents = documents->count;
  request.dry_run = ctl_has(ctl, "dry-run");
  request.prune = ctl_has(ctl, "prune");
  int status;
  Core__Admin__V1__ApplyResponse *reply = ctl_call_or_fail(ctl, "CatalogAdminService/Apply", &request.base, &status);
  if (reply)
    status = outcomes_show(ctl, reply, documents, request.dry_run);
  ctl_message_free(reply);
  base_free(messages);
  base_free(list);
  return status;
}

int ctl_run_apply(struct ctl *ctl) {
  struct ctl_documents documents = {0};
  struct error err = {0};
  size_t count;
  int status = CTL_EXIT_OK;
  char **files = ctl_texts(ctl, "file", &count);
  if (count == 0)
    status = ctl_fail_usage("apply needs -f FILE, -f DIRECTORY or -f -");
  for (size_t i = 0; i < count && status == CTL_EXIT_OK; i++)
    if (!ctl_documents_load(files[i], &documents, &err))
      status = ctl_fail(&err);
  if (status == CTL_EXIT_OK && documents.count == 0)
    status = ctl_fail_code(ERR_ARGUMENT_MISSING, "there is no document in %.150s", files[0]);
  if (status == CTL_EXIT_OK)
    status = apply_documents(ctl, &documents);
  ctl_documents_free(&documents);
  base_free(files);
  return status;
}

/* ---- export ---- */

struct export {
  const struct ctl *ctl;
  int status;
};

static bool export_visit(void *arg, const ProtobufCMessage *message) {
  const Core__Admin__V1__Document *document = (const void *)message;
  const char *json = (const char *)document->document_json.data;
  struct export *export = arg;
  struct buf text = {0};
  if (!json || !json_check(json, document->document_json.len, JSON_DEPTH_MAX, NULL)) {
    export->status = ctl_fail_code(ERR_JSON_MALFORMED, "the core sent a document that is no JSON");
    return false;
  }
  if (export->ctl->output == CTL_OUTPUT_JSON) {
    buf_append(&text, json, document->document_json.len);
    buf_append_char(&text, '\n');
  } else {
    ctl_yaml_write(json, document->document_json.len, &text);
  }
  export->status = ctl_print(&text);
  buf_free(&text);
  return export->status == CTL_EXIT_OK;
}

int ctl_run_export(struct ctl *ctl) {
  Core__Admin__V1__ExportRequest request = CORE__ADMIN__V1__EXPORT_REQUEST__INIT;
  struct export export = {.ctl = ctl};
  struct error err = {0};
  request.kinds = ctl->arguments;
  request.n_kinds = ctl->argument_count;
  if (!ctl_stream(ctl, "CatalogAdminService/Export", &request.base, ctl->timeout_ms, export_visit, &export, &err))
    return ctl_fail(&err);
  return export.status;
}

/* ---- delete, refresh ---- */

int ctl_run_delete(struct ctl *ctl) {
  Core__Admin__V1__DeleteRequest request = CORE__ADMIN__V1__DELETE_REQUEST__INIT;
  int status;
  request.kind = ctl->arguments[0];
  request.name = ctl->arguments[1];
  Core__Admin__V1__DeleteResponse *reply = ctl_call_or_fail(ctl, "CatalogAdminService/Delete", &request.base, &status);
  if (!reply)
    return status;
  struct buf text = {0};
  buf_printf(&text, "deleted   %s %s\n", request.kind, request.name);
  return ctl_answer(ctl, reply, &text);
}

int ctl_run_refresh(struct ctl *ctl) {
  Core__Admin__V1__RefreshGatewayRequest request = CORE__ADMIN__V1__REFRESH_GATEWAY_REQUEST__INIT;
  int status;
  if (ctl->argument_count)
    request.name = ctl->arguments[0];
  Core__Admin__V1__RefreshGatewayResponse *reply =
      ctl_call_or_fail(ctl, "CatalogAdminService/RefreshGateway", &request.base, &status);
  if (!reply)
    return status;
  struct buf text = {0};
  buf_printf(&text, "%u created, %u updated, %u deleted\n", reply->created, reply->updated, reply->deleted);
  return ctl_answer(ctl, reply, &text);
}
