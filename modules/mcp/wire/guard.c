/* guard.c: what HTTP headers may say: Host and Origin against DNS rebinding, Accept, Content-Type, traceparent. */
#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "modules/mcp/wire/mcp_wire.h"
#include "sdk/base/str.h"

#define ANY "*"

/* A decimal port, or nothing behind the host. */
static bool port_is_valid(const char *text) {
  if (*text == 0)
    return true;
  if (*text != ':' || strlen(text) > 6)
    return false;
  for (const char *c = text + 1; *c; c++)
    if (!isdigit((unsigned char)*c))
      return false;
  return text[1] != 0;
}

/* Whether a host of this length is 127.0.0.0/8 in its usual form: four decimal numbers. */
static bool is_loopback_v4(const char *host, size_t length) {
  unsigned dots = 0, digits = 0;
  if (length < 4 || memcmp(host, "127.", 4) != 0)
    return false;
  for (size_t i = 0; i < length; i++) {
    if (host[i] == '.') {
      if (digits == 0)
        return false;
      dots++;
      digits = 0;
    } else if (!isdigit((unsigned char)host[i]) || ++digits > 3) {
      return false;
    }
  }
  return dots == 3 && digits > 0;
}

/* "host", "host:port", "[::1]:port" where the host is this machine. */
static bool authority_is_loopback(const char *authority) {
  size_t length = strcspn(authority, ":");
  if (authority[0] == '[')
    return strncmp(authority, "[::1]", 5) == 0 && port_is_valid(authority + 5);
  if (!port_is_valid(authority + length))
    return false;
  return (length == 9 && strncasecmp(authority, "localhost", 9) == 0) || is_loopback_v4(authority, length);
}

bool mcp_host_is_allowed(const char *host, const char *const *allowed) {
  if (str_is_empty(host))
    return false;
  if (authority_is_loopback(host))
    return true;
  for (; allowed && *allowed; allowed++) {
    size_t length = strlen(*allowed);
    if (str_equal(*allowed, ANY) || strcasecmp(host, *allowed) == 0)
      return true;
    if (strncasecmp(host, *allowed, length) == 0 && port_is_valid(host + length))
      return true;
  }
  return false;
}

bool mcp_origin_is_allowed(const char *origin, const char *const *allowed) {
  if (!origin)
    return true;
  const char *authority = str_starts_with(origin, "http://")    ? origin + 7
                          : str_starts_with(origin, "https://") ? origin + 8
                                                                : NULL;
  if (authority && authority_is_loopback(authority))
    return true;
  for (; allowed && *allowed; allowed++)
    if (str_equal(*allowed, ANY) || strcasecmp(origin, *allowed) == 0)
      return true;
  return false;
}

static size_t trimmed(const char *text, size_t length) {
  while (length && (text[length - 1] == ' ' || text[length - 1] == '\t'))
    length--;
  return length;
}

/* Whether the parameters of a media range say q=0: "not this". */
static bool quality_is_zero(const char *parameters, size_t length) {
  for (size_t i = 0; i + 3 < length; i++) {
    const char *at = parameters + i;
    if (!strchr("; \t", at[0]) || (at[1] != 'q' && at[1] != 'Q') || at[2] != '=')
      continue;
    char after = at[3 + strspn(at + 3, "0.")];
    return at[3] == '0' && !(after >= '1' && after <= '9');
  }
  return false;
}

bool mcp_accept_takes(const char *accept, const char *media_type) {
  size_t type_length = strcspn(media_type, "/"), media_length = strlen(media_type);
  if (!accept)
    return true;
  while (*accept) {
    while (*accept == ',' || *accept == ' ' || *accept == '\t')
      accept++;
    const char *comma = strchr(accept, ',');
    size_t item = comma ? (size_t)(comma - accept) : strlen(accept);
    const char *semicolon = memchr(accept, ';', item);
    size_t length = trimmed(accept, semicolon ? (size_t)(semicolon - accept) : item);
    bool matches = (length == media_length && strncasecmp(accept, media_type, length) == 0) ||
                   (length == 3 && memcmp(accept, "*/*", 3) == 0) ||
                   (length == type_length + 2 && strncasecmp(accept, media_type, type_length + 1) == 0 &&
                    accept[length - 1] == '*');
    if (matches && !(semicolon && quality_is_zero(semicolon, item - (size_t)(semicolon - accept))))
      return true;
    accept += item;
  }
  return false;
}

bool mcp_content_type_is_json(const char *content_type) {
  static const char json[] = "application/json";
  if (!content_type)
    return false;
  size_t length = trimmed(content_type, strcspn(content_type, ";"));
  return length == sizeof(json) - 1 && strncasecmp(content_type, json, length) == 0;
}

bool mcp_traceparent_is_valid(const char *text) {
  static const char form[] = "00-tttttttttttttttttttttttttttttttt-pppppppppppppppp-ff";
  bool trace = false, parent = false;
  if (!text || strlen(text) != sizeof(form) - 1)
    return false;
  for (size_t i = 0; i < sizeof(form) - 1; i++) {
    if (form[i] == '0' || form[i] == '-') {
      if (text[i] != form[i])
        return false;
      continue;
    }
    if (!strchr("0123456789abcdef", text[i]))
      return false;
    trace = trace || (form[i] == 't' && text[i] != '0');
    parent = parent || (form[i] == 'p' && text[i] != '0');
  }
  return trace && parent;
}
