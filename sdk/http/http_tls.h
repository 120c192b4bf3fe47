/* http_tls.h: a server's certificate and key (TLS 1.2 and later, ALPN "h2" and "http/1.1"). One object may serve
 * several listeners. Replacing the certificate affects new connections only; running ones keep the old one. Loop thread
 * only. */
#ifndef GATEHOUSE_HTTP_TLS_H
#define GATEHOUSE_HTTP_TLS_H

#include <stdbool.h>

#include "sdk/base/error.h"
#include "sdk/base/secret.h"

struct http_tls;

/* PEM text: the certificate with its chain, and the unencrypted private key. NULL with ERR_HTTP_TLS_CERTIFICATE when
 * they cannot be read or do not belong together. */
struct http_tls *http_tls_create(const char *certificate_pem, const struct secret *key_pem, struct error *err);

/* The same from files; http_tls_reload reads the same files again. */
struct http_tls *http_tls_create_from_files(const char *certificate_path, const char *key_path, struct error *err);

/* Takes the new certificate and key; on failure the old ones stay in use. */
bool http_tls_replace(struct http_tls *tls, const char *certificate_pem, const struct secret *key_pem,
                      struct error *err);
bool http_tls_reload(struct http_tls *tls, struct error *err);

void http_tls_free(struct http_tls **tls); /* nulls; NULL-safe */

#endif
