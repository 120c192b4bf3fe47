/* http_url.h: URLs, read and written by libcurl's URL API so that what is checked is what is fetched. Any thread. */
#ifndef GATEHOUSE_HTTP_URL_H
#define GATEHOUSE_HTTP_URL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sdk/base/buf.h"
#include "sdk/base/error.h"

struct http_url {
  char *scheme;         /* lower case: "http" or "https" */
  char *host;           /* lower case, IDN as xn--; IPv6 without brackets; IPv4 in dotted form whatever was written */
  uint16_t port;        /* the scheme's default when none was given */
  char *path;           /* raw, starts with '/' */
  char *query;          /* raw, without '?'; NULL when absent */
  bool has_credentials; /* user:password@ was there; it is not kept */
};

/* An absolute http or https URL. ERR_HTTP_URL_INVALID otherwise. Free with http_url_clear. */
bool http_url_parse(const char *text, struct http_url *url, struct error *err);
void http_url_clear(struct http_url *url);

/* "https://host:port", port always present, IPv6 in brackets; caller frees with base_free. */
char *http_url_origin(const struct http_url *url);
bool http_url_same_origin(const struct http_url *a, const struct http_url *b);

/* The target of a redirect: reference resolved against base. Owned text; NULL with ERR_HTTP_URL_INVALID. */
char *http_url_resolve(const char *base, const char *reference, struct error *err);

/* Appends text percent-encoded: everything but unreserved characters, so that it stays one path segment or one query
 * value. The segments "." and ".." come out as "%2E" and "%2E%2E", which still mean the same to many servers: refuse
 * them before, with http_url_segment_is_safe. */
void http_url_encode(struct buf *target, const char *text, size_t length);
bool http_url_segment_is_safe(const char *text, size_t length);

/* Appends "name=value" to the query of the URL in target (adds '?' or '&', keeps a fragment away: there must be none).
 */
void http_url_query_append(struct buf *target, const char *name, const char *value);

#endif
