/* validate.c: what a document may say, without regard to other documents (apply.c checks references). Each rule says
 * which field broke it. */
#include <ctype.h>
#include <string.h>

#include "core/catalog/catalog_internal.h"
#include "sdk/base/json.h"

#define NAME_MAX_BYTES 128
#define TITLE_MAX_BYTES 255
#define DESCRIPTION_MAX_BYTES 8192
#define TAGS_MAX 64
#define TAG_MAX_BYTES 64
#define URI_MAX_BYTES 2048
#define FILTER_MAX_BYTES 8192
#define LIST_MAX 5000
#define REFRESH_MIN_SECONDS 10
#define REFRESH_MAX_SECONDS 86400

bool catalog_refuse(struct error *err, const char *field, const char *why) {
  return error_set(err, ERR_CATALOG_INVALID, "%s: %s", field, why);
}

static bool length_check(const char *text, size_t max, const char *field, struct error *err) {
  return strlen(text) <= max || catalog_refuse(err, field, "longer than allowed");
}

bool catalog_name_is_valid(const char *name) {
  size_t length = strlen(name);
  if (length == 0 || length > NAME_MAX_BYTES || !(isalnum((unsigned char)*name) || *name == '_'))
    return false;
  return strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._/-") == length;
}

/* Names that become part of a path or a prefix. */
static bool plain_name_check(const struct catalog_document *document, struct error *err) {
  const char *name = document->metadata->name;
  return (catalog_name_is_valid(name) && !strchr(name, '/')) ||
         catalog_refuse(err, "metadata.name",
                        "must be 1 to 128 of A-Z a-z 0-9 . _ - and begin with a letter, digit or _");
}

static bool slash_name_check(const struct catalog_document *document, struct error *err) {
  return catalog_name_is_valid(document->metadata->name) ||
         catalog_refuse(err, "metadata.name",
                        "must be 1 to 128 of A-Z a-z 0-9 . _ / - and begin with a letter, digit or _");
}

static bool owner_check(const struct catalog_document *document, struct error *err) {
  const Core__Admin__V1__Metadata *metadata = document->metadata;
  const char *at = strchr(metadata->owner, '@');
  bool private_record = catalog_document_visibility(document) == POLICY_VISIBILITY_PRIVATE;
  if (*metadata->owner && (!at || at == metadata->owner || !at[1] || !str_is_visible_ascii(metadata->owner) ||
                           strlen(metadata->owner) > POLICY_NAME_MAX_BYTES))
    return catalog_refuse(err, "metadata.owner", "must be an e-mail address");
  return *metadata->owner || !private_record ||
         catalog_refuse(err, "metadata.owner", "a private record without an owner is seen by nobody");
}

/* Records have a visibility; users, teams and roles have none. */
static bool visibility_check(const struct catalog_document *document, struct error *err) {
  const Core__Admin__V1__Metadata *metadata = document->metadata;
  if (catalog_document_kinds[document->kind].record_kind == CATALOG_KIND_NONE) {
    if (*metadata->visibility || *metadata->team || *metadata->owner)
      return catalog_refuse(err, "metadata", "visibility, team and owner have no meaning for this kind");
    return !metadata->disabled || document->kind == CATALOG_DOCUMENT_User ||
           catalog_refuse(err, "metadata.disabled", "has no meaning for this kind");
  }
  if (*metadata->visibility && !str_equal(metadata->visibility, "public") && !str_equal(metadata->visibility, "team") &&
      !str_equal(metadata->visibility, "private"))
    return catalog_refuse(err, "metadata.visibility", "must be public, team or private");
  if (catalog_document_visibility(document) == POLICY_VISIBILITY_TEAM && !*metadata->team)
    return catalog_refuse(err, "metadata.team", "visibility team needs one");
  return owner_check(document, err);
}

bool catalog_validate_metadata(const struct catalog_document *document, struct error *err) {
  const Core__Admin__V1__Metadata *metadata = document->metadata;
  if (!*metadata->name)
    return error_set(err, ERR_ARGUMENT_MISSING, "metadata.name: is missing");
  if (metadata->n_tags > TAGS_MAX)
    return catalog_refuse(err, "metadata.tags", "too many");
  for (size_t i = 0; i < metadata->n_tags; i++)
    if (!*metadata->tags[i] || strlen(metadata->tags[i]) > TAG_MAX_BYTES)
      return catalog_refuse(err, "metadata.tags", "a tag is 1 to 64 bytes long");
  return length_check(metadata->name, POLICY_NAME_MAX_BYTES, "metadata.name", err) &&
         length_check(metadata->title, TITLE_MAX_BYTES, "metadata.title", err) &&
         length_check(metadata->description, DESCRIPTION_MAX_BYTES, "metadata.description", err) &&
         visibility_check(document, err);
}

/* ---- policy documents ---- */

bool catalog_validate_team(const struct catalog_document *document, struct error *err) {
  return policy_team_validate(document->metadata->name, err);
}

bool catalog_policy_role(const struct catalog_document *document,
                         bool (*visit)(void *arg, const struct policy_role *role, struct error *err), void *arg,
                         struct error *err) {
  const Core__Admin__V1__RoleSpec *spec = catalog_role_spec(document);
  const struct policy_role role = {.name = document->metadata->name,
                                   .permissions = (const char *const *)spec->permissions,
                                   .permission_count = spec->n_permissions};
  return visit(arg, &role, err);
}

bool catalog_policy_user(const struct catalog_document *document,
                         bool (*visit)(void *arg, const struct policy_user *user, struct error *err), void *arg,
                         struct error *err) {
  const Core__Admin__V1__UserSpec *spec = catalog_user_spec(document);
  struct policy_team_role *team_roles = base_calloc(spec->n_team_roles + 1, sizeof(*team_roles));
  for (size_t i = 0; i < spec->n_team_roles; i++)
    team_roles[i] = (struct policy_team_role){spec->team_roles[i]->team, spec->team_roles[i]->role};
  const struct policy_user user = {.email = document->metadata->name,
                                   .is_admin = spec->is_admin,
                                   .teams = (const char *const *)spec->teams,
                                   .team_count = spec->n_teams,
                                   .roles = (const char *const *)spec->roles,
                                   .role_count = spec->n_roles,
                                   .team_roles = team_roles,
                                   .team_role_count = spec->n_team_roles};
  bool ok = visit(arg, &user, err);
  base_free(team_roles);
  return ok;
}

static bool role_validate(void *arg, const struct policy_role *role, struct error *err) {
  (void)arg;
  return policy_role_validate(role, err);
}

static bool user_validate(void *arg, const struct policy_user *user, struct error *err) {
  (void)arg;
  return policy_user_validate(user, err);
}

bool catalog_validate_role(const struct catalog_document *document, struct error *err) {
  return catalog_policy_role(document, role_validate, NULL, err);
}

bool catalog_validate_user(const struct catalog_document *document, struct error *err) {
  return length_check(catalog_user_spec(document)->full_name, TITLE_MAX_BYTES, "spec.fullName", err) &&
         catalog_policy_user(document, user_validate, NULL, err);
}

bool catalog_validate_plugin(const struct catalog_document *document, struct error *err) {
  (void)document;
  return error_set(err, ERR_UNSUPPORTED, "Nothing would enforce a plugin: there is no plugin engine.");
}

/* ---- tools ---- */

static bool json_opens_with(const ProtobufCBinaryData *data, char open) {
  return data->len == 0 || data->data[0] == (uint8_t)open;
}

static bool schemas_check(const Core__Admin__V1__ToolSpec *spec, struct catalog_schema **input, struct error *err) {
  const char *type;
  size_t length;
  if (!json_opens_with(&spec->annotations_json, '{'))
    return catalog_refuse(err, "spec.annotationsJson", "must be an object");
  if (!json_opens_with(&spec->icons_json, '['))
    return catalog_refuse(err, "spec.iconsJson", "must be an array");
  if (!json_opens_with(&spec->output_schema_json, '{'))
    return catalog_refuse(err, "spec.outputSchemaJson", "must be an object");
  if (spec->output_schema_json.len) {
    struct catalog_schema *output =
        catalog_schema_compile((const char *)spec->output_schema_json.data, spec->output_schema_json.len, err);
    if (!output)
      return false;
    catalog_schema_free(&output);
  }
  if (!spec->input_schema_json.len)
    return true;
  const char *json = (const char *)spec->input_schema_json.data;
  if (!json_opens_with(&spec->input_schema_json, '{') ||
      !json_member(json, spec->input_schema_json.len, "type", &type, &length) || length != 8 ||
      memcmp(type, "\"object\"", 8) != 0)
    return catalog_refuse(err, "spec.inputSchemaJson", "must be a schema of type object");
  *input = catalog_schema_compile(json, spec->input_schema_json.len, err);
  return *input != NULL;
}

static bool placeholder_check(void *arg, const char *name, size_t length, struct error *err) {
  return catalog_schema_has_property(arg, name, length) ||
         error_set(err, ERR_CATALOG_INVALID, "spec.rest.url: the schema has no property \"%.*s\"",
                   (int)(length < 64 ? length : 64), name);
}

static bool mapping_check(const Core__Common__V1__NameMapping *mapping, const struct catalog_schema *input, bool header,
                          struct error *err) {
  const char *field = header ? "spec.rest.headerMapping" : "spec.rest.queryMapping";
  if (!catalog_schema_has_property(input, mapping->argument, strlen(mapping->argument)))
    return catalog_refuse(err, field, "the schema has no property of that name");
  if (!*mapping->target || strlen(mapping->target) > TITLE_MAX_BYTES)
    return catalog_refuse(err, field, "the target is missing or too long");
  return header
             ? catalog_header_check(mapping->target, "", CATALOG_HEADER_MAPPED, err)
             : str_is_visible_ascii(mapping->target) || catalog_refuse(err, field, "the target must be visible ASCII");
}

static bool content_type_is_known(const char *type) {
  static const char *const known[] = {"", "application/json", "application/x-www-form-urlencoded",
                                      "multipart/form-data"};
  for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
    if (strcmp(type, known[i]) == 0)
      return true;
  return false;
}

static bool method_is_known(const char *method) {
  static const char *const known[] = {"", "GET", "POST", "PUT", "PATCH", "DELETE"};
  for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
    if (strcmp(method, known[i]) == 0)
      return true;
  return false;
}

static bool rest_check(const Core__Admin__V1__RestSpec *rest, struct catalog_schema *input, struct error *err) {
  if (!method_is_known(rest->method))
    return catalog_refuse(err, "spec.rest.method", "must be GET, POST, PUT, PATCH or DELETE");
  if (!content_type_is_known(rest->content_type))
    return catalog_refuse(err, "spec.rest.contentType",
                          "must be application/json, application/x-www-form-urlencoded or multipart/form-data");
  if (rest->n_headers > TAGS_MAX || rest->n_query_mapping > 256 || rest->n_header_mapping > TAGS_MAX)
    return catalog_refuse(err, "spec.rest", "too many headers or mappings");
  if (!catalog_url_check(rest->url, placeholder_check, input, err))
    return false;
  for (size_t i = 0; i < rest->n_headers; i++)
    if (!catalog_header_check(rest->headers[i]->name, rest->headers[i]->value, CATALOG_HEADER_STATIC, err))
      return false;
  for (size_t i = 0; i < rest->n_query_mapping; i++)
    if (!mapping_check(rest->query_mapping[i], input, false, err))
      return false;
  for (size_t i = 0; i < rest->n_header_mapping; i++)
    if (!mapping_check(rest->header_mapping[i], input, true, err))
      return false;
  return length_check(rest->response_filter, FILTER_MAX_BYTES, "spec.rest.responseFilter", err) &&
         catalog_egress_check(rest->egress, err) && catalog_credential_check(rest->credential, err);
}

static bool timeout_check(uint32_t timeout_ms, struct error *err) {
  return timeout_ms <= CATALOG_TIMEOUT_MAX_MS || catalog_refuse(err, "spec.timeoutMs", "at most 600000");
}

bool catalog_validate_tool(const struct catalog_document *document, struct error *err) {
  const Core__Admin__V1__ToolSpec *spec = catalog_tool_spec(document);
  struct catalog_schema *input = NULL;
  bool ok = slash_name_check(document, err) && timeout_check(spec->timeout_ms, err) && schemas_check(spec, &input, err);
  if (ok && spec->integration_case != CORE__ADMIN__V1__TOOL_SPEC__INTEGRATION_REST)
    ok = catalog_refuse(err, "spec.rest", "is missing: nothing says how the tool is carried out");
  ok = ok && rest_check(spec->rest, input, err);
  catalog_schema_free(&input);
  return ok;
}

/* ---- the others ---- */

bool catalog_validate_gateway(const struct catalog_document *document, struct error *err) {
  const Core__Admin__V1__GatewaySpec *spec = catalog_gateway_spec(document);
  if (*spec->transport && !str_equal(spec->transport, "streamable-http") && !str_equal(spec->transport, "sse"))
    return catalog_refuse(err, "spec.transport", "must be streamable-http or sse");
  if (*spec->name_prefix && (!catalog_name_is_valid(spec->name_prefix) || strlen(spec->name_prefix) > 64))
    return catalog_refuse(err, "spec.namePrefix", "must be at most 64 of A-Z a-z 0-9 . _ / - and begin like a name");
  if (spec->refresh_interval_seconds &&
      (spec->refresh_interval_seconds < REFRESH_MIN_SECONDS || spec->refresh_interval_seconds > REFRESH_MAX_SECONDS))
    return catalog_refuse(err, "spec.refreshIntervalSeconds", "must be 10 to 86400, or 0 for the default");
  return plain_name_check(document, err) && timeout_check(spec->timeout_ms, err) &&
         catalog_url_check(spec->url, NULL, NULL, err) && catalog_egress_check(spec->egress, err) &&
         catalog_credential_check(spec->credential, err);
}

/* scheme ":" something, visible ASCII. */
static bool uri_check(const char *uri, struct error *err) {
  size_t scheme = strspn(uri, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-.");
  if (!isalpha((unsigned char)*uri) || uri[scheme] != ':' || !uri[scheme + 1] || !str_is_visible_ascii(uri) ||
      strlen(uri) > URI_MAX_BYTES)
    return catalog_refuse(err, "spec.uri", "must be an absolute URI of at most 2048 bytes");
  return true;
}

bool catalog_validate_resource(const struct catalog_document *document, struct error *err) {
  const Core__Admin__V1__ResourceSpec *spec = catalog_resource_spec(document);
  if (*spec->text && spec->blob.len)
    return catalog_refuse(err, "spec.blob", "excludes spec.text");
  return slash_name_check(document, err) && uri_check(spec->uri, err) &&
         length_check(spec->mime_type, TITLE_MAX_BYTES, "spec.mimeType", err);
}

/* Each item an object with a name that is not empty. */
static bool prompt_arguments_check(const ProtobufCBinaryData *arguments, struct error *err) {
  struct json_cursor cursor;
  struct catalog_span key, item, name;
  if (!arguments->len)
    return true;
  if (!json_walk((const char *)arguments->data, arguments->len, '[', &cursor))
    return catalog_refuse(err, "spec.argumentsJson", "must be an array");
  while (json_next(&cursor, &key.data, &key.length, &item.data, &item.length))
    if (item.data[0] != '{' || !json_member(item.data, item.length, "name", &name.data, &name.length) ||
        name.data[0] != '"' || name.length < 3)
      return catalog_refuse(err, "spec.argumentsJson", "each argument is an object with a name");
  return true;
}

bool catalog_validate_prompt(const struct catalog_document *document, struct error *err) {
  const Core__Admin__V1__PromptSpec *spec = catalog_prompt_spec(document);
  if (!spec->messages_json.len || !json_opens_with(&spec->messages_json, '['))
    return catalog_refuse(err, "spec.messagesJson", "must be an array");
  return slash_name_check(document, err) && prompt_arguments_check(&spec->arguments_json, err);
}

static bool list_check(char *const *names, size_t count, const char *field, struct error *err) {
  if (count > LIST_MAX)
    return catalog_refuse(err, field, "too many");
  for (size_t i = 0; i < count; i++)
    if (!*names[i] || strlen(names[i]) > URI_MAX_BYTES)
      return catalog_refuse(err, field, "a name is empty or too long");
  return true;
}

bool catalog_validate_server(const struct catalog_document *document, struct error *err) {
  const Core__Admin__V1__ServerSpec *spec = catalog_server_spec(document);
  return plain_name_check(document, err) && list_check(spec->tools, spec->n_tools, "spec.tools", err) &&
         list_check(spec->resources, spec->n_resources, "spec.resources", err) &&
         list_check(spec->prompts, spec->n_prompts, "spec.prompts", err) &&
         list_check(spec->gateways, spec->n_gateways, "spec.gateways", err) &&
         length_check(spec->instructions, DESCRIPTION_MAX_BYTES, "spec.instructions", err);
}
