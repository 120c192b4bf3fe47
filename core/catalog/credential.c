/* credential.c: upstream credentials (SPI-14): taken out of a document before anything is kept, sealed for the record
 * that they belong to, opened for one call at a time. Plain values are wiped where they stood. */
#include <openssl/evp.h>
#include <string.h>

#include "core/catalog/catalog_internal.h"
#include "sdk/base/secret.h"

#define SECRET_NAME "credential"

Core__Admin__V1__Credential *catalog_credential_of(const struct catalog_document *document) {
  const Core__Admin__V1__ToolSpec *tool = catalog_tool_spec(document);
  const Core__Admin__V1__GatewaySpec *gateway = catalog_gateway_spec(document);
  if (tool && tool->integration_case == CORE__ADMIN__V1__TOOL_SPEC__INTEGRATION_REST && tool->rest)
    return tool->rest->credential;
  return gateway ? gateway->credential : NULL;
}

/* Calls visit for the place of each value. */
static void values_visit(Core__Admin__V1__Credential *credential, void (*visit)(char **value)) {
  switch (credential->credential_case) {
  case CORE__ADMIN__V1__CREDENTIAL__CREDENTIAL_BEARER_TOKEN:
    visit(&credential->bearer_token);
    break;
  case CORE__ADMIN__V1__CREDENTIAL__CREDENTIAL_BASIC:
    if (credential->basic)
      visit(&credential->basic->password);
    break;
  case CORE__ADMIN__V1__CREDENTIAL__CREDENTIAL_HEADERS:
    for (size_t i = 0; credential->headers && i < credential->headers->n_headers; i++)
      visit(&credential->headers->headers[i]->value);
    break;
  default:
    break;
  }
}

static void value_wipe(char **value) {
  if (*value && *value != protobuf_c_empty_string)
    secret_wipe(*value, strlen(*value)); /* an empty text stays */
}

static void credential_discard(Core__Admin__V1__Credential **credential) {
  if (*credential) {
    values_visit(*credential, value_wipe);
    core__admin__v1__credential__free_unpacked(*credential, NULL);
  }
  *credential = NULL;
}

static struct secret *credential_pack(const Core__Admin__V1__Credential *credential) {
  size_t length = core__admin__v1__credential__get_packed_size(credential);
  uint8_t *packed = base_alloc(length + 1);
  core__admin__v1__credential__pack(credential, packed);
  struct secret *secret = secret_create(packed, length);
  secret_wipe(packed, length);
  base_free(packed);
  return secret;
}

static Core__Admin__V1__Credential *credential_unpack(const struct secret *secret) {
  return core__admin__v1__credential__unpack(NULL, secret_length(secret),
                                             (const uint8_t *)(const void *)secret_reveal(secret));
}

void catalog_credential_take(struct catalog_document *document) {
  Core__Admin__V1__Credential *credential = catalog_credential_of(document);
  if (!credential)
    return;
  secret_free(&document->credential);
  document->credential = credential_pack(credential);
  values_visit(credential, value_wipe);
}

static struct secret *stored_open(const struct secrets *secrets, const struct catalog_document *document,
                                  struct error *err) {
  if (!document || !document->sealed.length) {
    error_set(err, ERR_CATALOG_INVALID, "the credential has no value");
    return NULL;
  }
  return secrets_open(secrets, document->id, SECRET_NAME, document->sealed.data, document->sealed.length, err);
}

/* ---- merging ---- */

/* Gives value what from holds, when it is empty. */
static void value_inherit(char **value, char **from) {
  if (!str_is_empty(*value) || str_is_empty(*from))
    return;
  if (*value != protobuf_c_empty_string)
    base_free(*value);
  *value = base_strdup(*from);
}

static void credential_inherit(Core__Admin__V1__Credential *credential, Core__Admin__V1__Credential *from) {
  if (credential->credential_case != from->credential_case)
    return;
  if (credential->credential_case == CORE__ADMIN__V1__CREDENTIAL__CREDENTIAL_BEARER_TOKEN) {
    value_inherit(&credential->bearer_token, &from->bearer_token);
  } else if (credential->credential_case == CORE__ADMIN__V1__CREDENTIAL__CREDENTIAL_BASIC) {
    value_inherit(&credential->basic->password, &from->basic->password);
  } else if (credential->credential_case == CORE__ADMIN__V1__CREDENTIAL__CREDENTIAL_HEADERS) {
    for (size_t i = 0; i < credential->headers->n_headers; i++)
      for (size_t k = 0; k < from->headers->n_headers; k++)
        if (strcasecmp(credential->headers->headers[i]->name, from->headers->headers[k]->name) == 0)
          value_inherit(&credential->headers->headers[i]->value, &from->headers->headers[k]->value);
  }
}

static bool value_missing(const Core__Admin__V1__Credential *credential) {
  if (credential->credential_case == CORE__ADMIN__V1__CREDENTIAL__CREDENTIAL_BEARER_TOKEN)
    return str_is_empty(credential->bearer_token);
  if (credential->credential_case == CORE__ADMIN__V1__CREDENTIAL__CREDENTIAL_BASIC)
    return str_is_empty(credential->basic->password);
  for (size_t i = 0; i < credential->headers->n_headers; i++)
    if (str_is_empty(credential->headers->headers[i]->value))
      return true;
  return false;
}

bool catalog_credential_merge(const struct secrets *secrets, struct catalog_document *document,
                              const struct catalog_document *old, struct error *err) {
  if (!document->credential)
    return true;
  Core__Admin__V1__Credential *credential = credential_unpack(document->credential), *stored = NULL;
  struct secret *opened = NULL;
  bool ok = credential != NULL;
  BASE_CHECK(ok); /* we packed it */
  if (value_missing(credential)) {
    opened = stored_open(secrets, old, err);
    stored = opened ? credential_unpack(opened) : NULL;
    ok = stored != NULL;
    if (ok)
      credential_inherit(credential, stored);
    if (ok && value_missing(credential))
      ok = error_set(err, ERR_CATALOG_INVALID, "the credential has no value");
    if (ok) {
      secret_free(&document->credential);
      document->credential = credential_pack(credential);
    }
  }
  secret_free(&opened);
  credential_discard(&credential);
  credential_discard(&stored);
  return ok;
}

bool catalog_credential_equal(const struct secrets *secrets, const struct catalog_document *document,
                              const struct catalog_document *old) {
  if (!document->credential || !old->sealed.length)
    return !document->credential && !old->sealed.length;
  struct secret *opened = stored_open(secrets, old, NULL);
  bool same = opened && secret_equal(document->credential, secret_reveal(opened), secret_length(opened));
  secret_free(&opened);
  return same;
}

bool catalog_credential_seal(const struct secrets *secrets, struct catalog_document *document, struct error *err) {
  buf_free(&document->sealed);
  bool ok =
      !document->credential || secrets_seal(secrets, document->id, SECRET_NAME, secret_reveal(document->credential),
                                            secret_length(document->credential), &document->sealed, err);
  secret_free(&document->credential);
  return ok;
}

/* ---- the headers of one call ---- */

static void header_add(struct catalog_headers *headers, const char *name, char *value) {
  headers->items = base_realloc_array(headers->items, headers->count + 1, sizeof(*headers->items));
  headers->items[headers->count].name = base_strdup(name);
  headers->items[headers->count++].value = value;
}

static char *basic_value(const Core__Admin__V1__BasicCredential *basic) {
  char *pair = base_asprintf("%s:%s", basic->username, basic->password);
  size_t length = strlen(pair);
  char *value = base_alloc(sizeof("Basic ") + 4 * ((length + 2) / 3));
  memcpy(value, "Basic ", 6);
  EVP_EncodeBlock((unsigned char *)value + 6, (const unsigned char *)pair, (int)length);
  secret_wipe(pair, length);
  base_free(pair);
  return value;
}

static void credential_headers(const Core__Admin__V1__Credential *credential, struct catalog_headers *headers) {
  switch (credential->credential_case) {
  case CORE__ADMIN__V1__CREDENTIAL__CREDENTIAL_BEARER_TOKEN:
    header_add(headers, "authorization", base_asprintf("Bearer %s", credential->bearer_token));
    break;
  case CORE__ADMIN__V1__CREDENTIAL__CREDENTIAL_BASIC:
    header_add(headers, "authorization", basic_value(credential->basic));
    break;
  case CORE__ADMIN__V1__CREDENTIAL__CREDENTIAL_HEADERS:
    for (size_t i = 0; i < credential->headers->n_headers; i++)
      header_add(headers, credential->headers->headers[i]->name, base_strdup(credential->headers->headers[i]->value));
    break;
  default:
    break;
  }
}

bool catalog_call_headers(struct catalog *catalog, const struct catalog_record *record, struct catalog_headers *headers,
                          struct error *err) {
  BASE_CHECK_MAGIC(catalog, CATALOG_MAGIC);
  const struct catalog_document *document = ((const struct catalog_entry *)(const void *)record)->document;
  struct catalog_headers made = {0};
  for (size_t i = 0; record->rest && i < record->rest->n_headers; i++)
    header_add(&made, record->rest->headers[i]->name, base_strdup(record->rest->headers[i]->value));
  if (document->sealed.length) {
    struct secret *opened = stored_open(catalog->secrets, document, err);
    Core__Admin__V1__Credential *credential = opened ? credential_unpack(opened) : NULL;
    secret_free(&opened);
    if (!credential) {
      log_event(LOG_ERROR, CATALOG_ROOM, "a credential cannot be opened", LOG_TEXT("record", record->id));
      catalog_headers_free(&made);
      return err && error_is_set(err) ? false : error_set(err, ERR_SECRET_UNREADABLE, NULL);
    }
    credential_headers(credential, &made);
    credential_discard(&credential);
  }
  for (size_t i = 0; i < made.count; i++)
    header_add(headers, made.items[i].name, BASE_TAKE(made.items[i].value));
  catalog_headers_free(&made);
  return true;
}

void catalog_headers_free(struct catalog_headers *headers) {
  for (size_t i = 0; i < headers->count; i++) {
    if (headers->items[i].value)
      secret_wipe(headers->items[i].value, strlen(headers->items[i].value));
    base_free(headers->items[i].value);
    base_free(headers->items[i].name);
  }
  base_free(headers->items);
  *headers = (struct catalog_headers){0};
}
