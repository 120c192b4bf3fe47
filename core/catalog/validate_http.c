/* validate_http.c: URLs, headers and egress lists of documents. What passes here is checked again by the module that
 * makes the call, with the URL parser that fetches it; here an operator learns of mistakes when applying. */
#include <arpa/inet.h>
#include <ctype.h>
#include <string.h>

#include "core/catalog/catalog_internal.h"

#define URL_MAX_BYTES 2048
#define HEADER_NAME_MAX_BYTES 128
#define HEADER_VALUE_MAX_BYTES 8192
#define EGRESS_MAX 256
#define REDIRECTS_MAX 10

/* ---- URLs ---- */

static bool port_is_valid(const char *text, size_t length) {
  unsigned port = 0;
  if (length == 0 || length > 5)
    return false;
  for (size_t i = 0; i < length; i++) {
    if (!isdigit((unsigned char)text[i]))
      return false;
    port = port * 10 + (unsigned)(text[i] - '0');
  }
  return port > 0 && port <= 65535;
}

static bool address_is_valid(int family, const char *text, size_t length) {
  char copy[INET6_ADDRSTRLEN];
  struct in6_addr address;
  if (length == 0 || length >= sizeof(copy))
    return false;
  memcpy(copy, text, length);
  copy[length] = '\0';
  return inet_pton(family, copy, &address) == 1;
}

static bool host_is_valid(const char *host, size_t length) {
  if (length == 0 || length > 253 || !isalnum((unsigned char)host[0]) || !isalnum((unsigned char)host[length - 1]))
    return false;
  for (size_t i = 0; i < length; i++)
    if (!isalnum((unsigned char)host[i]) && host[i] != '-' && host[i] != '.' && host[i] != '_')
      return false;
  return memmem(host, length, "..", 2) == NULL;
}

/* "host", "host:port", "[v6]", "[v6]:port". */
static bool authority_is_valid(const char *text, size_t length) {
  const char *end = text + length, *colon;
  if (length && *text == '[') {
    const char *close = memchr(text, ']', length);
    if (!close || !address_is_valid(AF_INET6, text + 1, (size_t)(close - text - 1)))
      return false;
    return close + 1 == end || (close[1] == ':' && port_is_valid(close + 2, (size_t)(end - close - 2)));
  }
  colon = memchr(text, ':', length);
  return host_is_valid(text, colon ? (size_t)(colon - text) : length) &&
         (!colon || port_is_valid(colon + 1, (size_t)(end - colon - 1)));
}

static bool placeholders_check(const char *text, catalog_placeholder_visit *placeholder, void *arg, struct error *err) {
  for (const char *at = text; (at = strpbrk(at, "{}"));) {
    const char *end = *at == '{' ? strpbrk(at + 1, "{}") : NULL;
    size_t length = end && *end == '}' ? (size_t)(end - at - 1) : 0;
    if (!placeholder || length == 0 ||
        strspn(at + 1, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != length)
      return catalog_refuse(err, "url", "a {placeholder} is malformed or not allowed here");
    if (!placeholder(arg, at + 1, length, err))
      return false;
    at = end + 1;
  }
  return true;
}

bool catalog_url_check(const char *url, catalog_placeholder_visit *placeholder, void *arg, struct error *err) {
  const char *rest = str_starts_with(url, "https://") ? url + 8 : str_starts_with(url, "http://") ? url + 7 : NULL;
  if (!*url)
    return error_set(err, ERR_ARGUMENT_MISSING, "url: is missing");
  if (!rest || strlen(url) > URL_MAX_BYTES || !str_is_visible_ascii(url) || strpbrk(url, "\\\"<>^`|#"))
    return catalog_refuse(err, "url", "must be an absolute http or https URL of at most 2048 bytes without a fragment");
  size_t authority = strcspn(rest, "/?");
  if (memchr(rest, '@', authority))
    return catalog_refuse(err, "url", "user and password belong into the credential");
  if (!authority_is_valid(rest, authority))
    return catalog_refuse(err, "url", "host or port is not valid; placeholders stand in path and query only");
  return placeholders_check(rest + authority, placeholder, arg, err);
}

/* ---- egress ---- */

static bool digits_at_most(const char *text, unsigned max) {
  uint64_t value;
  return str_parse_u64(text, &value) && value <= max;
}

/* Host, address or CIDR block, with or without a port. */
static bool egress_entry_is_valid(const char *entry) {
  const char *slash = strchr(entry, '/');
  if (slash) {
    size_t length = (size_t)(slash - entry);
    return (address_is_valid(AF_INET, entry, length) && digits_at_most(slash + 1, 32)) ||
           (address_is_valid(AF_INET6, entry, length) && digits_at_most(slash + 1, 128));
  }
  return address_is_valid(AF_INET6, entry, strlen(entry)) || authority_is_valid(entry, strlen(entry));
}

bool catalog_egress_check(const Core__Common__V1__EgressPolicy *egress, struct error *err) {
  if (!egress)
    return true;
  if (egress->n_allow > EGRESS_MAX || egress->n_schemes > 2)
    return catalog_refuse(err, "egress", "too many entries");
  for (size_t i = 0; i < egress->n_allow; i++)
    if (!egress_entry_is_valid(egress->allow[i]))
      return catalog_refuse(err, "egress.allow", "must be a host, an address or a CIDR block, with or without a port");
  for (size_t i = 0; i < egress->n_schemes; i++)
    if (!str_equal(egress->schemes[i], "http") && !str_equal(egress->schemes[i], "https"))
      return catalog_refuse(err, "egress.schemes", "must be http or https");
  return egress->redirects_max <= REDIRECTS_MAX || catalog_refuse(err, "egress.redirectsMax", "at most 10");
}

/* ---- headers ---- */

static bool is_token(const char *name) {
  return *name && strlen(name) <= HEADER_NAME_MAX_BYTES &&
         strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~") == strlen(name);
}

static bool is_field_value(const char *value) {
  if (strlen(value) > HEADER_VALUE_MAX_BYTES)
    return false;
  for (; *value; value++)
    if (((unsigned char)*value < 0x20 && *value != '\t') || *value == 0x7f)
      return false;
  return true;
}

/* The connection's own: never from a document. */
static const char *const framing_names[] = {
    "host", "transfer-encoding", "content-length", "connection", "upgrade",         "content-type",
    "te",   "trailer",           "expect",         "keep-alive", "proxy-connection"};
/* Those that carry credentials: only as the credential. */
static const char *const secret_names[] = {"authorization", "proxy-authorization", "x-api-key", "api-key",
                                           "cookie",        "set-cookie"};
static const char *const secret_endings[] = {"-token", "-secret", "-key"};

static bool is_among(const char *name, const char *const *names, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (strcasecmp(name, names[i]) == 0)
      return true;
  return false;
}

static bool is_secret_name(const char *name) {
  size_t length = strlen(name);
  for (size_t i = 0; i < sizeof(secret_endings) / sizeof(secret_endings[0]); i++) {
    size_t ending = strlen(secret_endings[i]);
    if (length >= ending && strcasecmp(name + length - ending, secret_endings[i]) == 0)
      return true;
  }
  return is_among(name, secret_names, sizeof(secret_names) / sizeof(secret_names[0]));
}

bool catalog_header_check(const char *name, const char *value, enum catalog_header_use use, struct error *err) {
  if (!is_token(name))
    return catalog_refuse(err, "headers", "a name is not a header name");
  if (!is_field_value(value))
    return error_set(err, ERR_CATALOG_INVALID, "headers: the value of \"%.64s\" is not a header value", name);
  if (is_among(name, framing_names, sizeof(framing_names) / sizeof(framing_names[0])))
    return error_set(err, ERR_CATALOG_INVALID, "headers: \"%.64s\" cannot be set", name);
  if (use != CATALOG_HEADER_CREDENTIAL && is_secret_name(name))
    return error_set(err, ERR_CATALOG_INVALID, "headers: \"%.64s\" carries credentials; use spec.…credential", name);
  return true;
}

bool catalog_credential_check(const Core__Admin__V1__Credential *credential, struct error *err) {
  if (!credential)
    return true;
  switch (credential->credential_case) {
  case CORE__ADMIN__V1__CREDENTIAL__CREDENTIAL_BEARER_TOKEN:
    return (is_field_value(credential->bearer_token) && !strpbrk(credential->bearer_token, " \t")) ||
           catalog_refuse(err, "credential.bearerToken", "is not a header value");
  case CORE__ADMIN__V1__CREDENTIAL__CREDENTIAL_BASIC:
    return (*credential->basic->username && !strchr(credential->basic->username, ':') &&
            is_field_value(credential->basic->username) && strlen(credential->basic->username) <= 255 &&
            is_field_value(credential->basic->password)) ||
           catalog_refuse(err, "credential.basic", "user name or password is missing or not allowed");
  case CORE__ADMIN__V1__CREDENTIAL__CREDENTIAL_HEADERS:
    if (!credential->headers->n_headers || credential->headers->n_headers > 16)
      return catalog_refuse(err, "credential.headers", "must be 1 to 16 headers");
    for (size_t i = 0; i < credential->headers->n_headers; i++)
      if (!catalog_header_check(credential->headers->headers[i]->name, credential->headers->headers[i]->value,
                                CATALOG_HEADER_CREDENTIAL, err))
        return false;
    return true;
  case CORE__ADMIN__V1__CREDENTIAL__CREDENTIAL_SECRET_REFERENCE:
    return error_set(err, ERR_UNSUPPORTED, "credential.secretReference: there are no stored secrets to refer to.");
  default:
    return catalog_refuse(err, "credential", "says nothing");
  }
}
