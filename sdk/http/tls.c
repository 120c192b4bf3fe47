/* tls.c: server-side TLS: one SSL_CTX per certificate; replacing it swaps the pointer, sessions in use keep their own
 * reference to the old one. TLS 1.2 at least, no compression, no renegotiation, ALPN h2 and http/1.1. */
#include "sdk/http/http_tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <string.h>

#include "sdk/base/buf.h"
#include "sdk/http/http_internal.h"

struct http_tls {
  SSL_CTX *context;
  char *certificate_path;
  char *key_path;
};

static bool refuse(struct error *err, const char *what) {
  char detail[160];
  ERR_error_string_n(ERR_get_error(), detail, sizeof(detail));
  ERR_clear_error();
  log_event(LOG_ERROR, "http", "TLS certificate refused", LOG_TEXT("step", what), LOG_TEXT("detail", detail));
  return error_set(err, ERR_HTTP_TLS_CERTIFICATE, NULL);
}

static int select_protocol(SSL *session, const unsigned char **out, unsigned char *out_length, const unsigned char *in,
                           unsigned int in_length, void *context) {
  static const unsigned char ours[] = "\x02h2\x08http/1.1";
  (void)session, (void)context;
  unsigned char *selected = NULL;
  if (SSL_select_next_proto(&selected, out_length, ours, sizeof(ours) - 1, in, in_length) != OPENSSL_NPN_NEGOTIATED)
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  *out = selected;
  return SSL_TLSEXT_ERR_OK;
}

static bool use_chain(SSL_CTX *context, const char *certificate_pem, struct error *err) {
  BIO *bio = BIO_new_mem_buf(certificate_pem, -1);
  X509 *leaf = bio == NULL ? NULL : PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL);
  bool ok = leaf != NULL && SSL_CTX_use_certificate(context, leaf) == 1;
  for (X509 *link; ok && (link = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL;) {
    ok = SSL_CTX_add0_chain_cert(context, link) == 1;
    if (!ok)
      X509_free(link);
  }
  if (!ok)
    refuse(err, "certificate");
  ERR_clear_error(); /* the end of the chain reads as an error */
  X509_free(leaf);
  BIO_free(bio);
  return ok;
}

static bool use_key(SSL_CTX *context, const struct secret *key_pem, struct error *err) {
  BIO *bio = BIO_new_mem_buf(secret_reveal(key_pem), (int)secret_length(key_pem));
  /* An empty passphrase: an encrypted key fails instead of asking the terminal. */
  EVP_PKEY *key = bio == NULL ? NULL : PEM_read_bio_PrivateKey(bio, NULL, NULL, (void *)(uintptr_t) "");
  bool ok = key != NULL && SSL_CTX_use_PrivateKey(context, key) == 1 && SSL_CTX_check_private_key(context) == 1;
  if (!ok)
    refuse(err, "key");
  EVP_PKEY_free(key);
  BIO_free(bio);
  return ok;
}

static SSL_CTX *context_create(const char *certificate_pem, const struct secret *key_pem, struct error *err) {
  SSL_CTX *context = SSL_CTX_new(TLS_server_method());
  if (context == NULL) {
    refuse(err, "context");
    return NULL;
  }
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_alpn_select_cb(context, select_protocol, NULL);
  if (!use_chain(context, certificate_pem, err) || !use_key(context, key_pem, err)) {
    SSL_CTX_free(context);
    return NULL;
  }
  return context;
}

struct http_tls *http_tls_create(const char *certificate_pem, const struct secret *key_pem, struct error *err) {
  SSL_CTX *context = context_create(certificate_pem, key_pem, err);
  if (context == NULL)
    return NULL;
  struct http_tls *tls = BASE_NEW(struct http_tls);
  tls->context = context;
  return tls;
}

bool http_tls_replace(struct http_tls *tls, const char *certificate_pem, const struct secret *key_pem,
                      struct error *err) {
  SSL_CTX *context = context_create(certificate_pem, key_pem, err);
  if (context == NULL)
    return false;
  SSL_CTX_free(tls->context);
  tls->context = context;
  return true;
}

/* A PEM file, at most 1 MiB. */
static bool read_file(const char *path, struct buf *text, struct error *err) {
  FILE *file = fopen(path, "re");
  bool ok = file != NULL;
  buf_reserve(text, 64 * 1024); /* a key does not grow its buffer, which would leave copies behind */
  while (ok && text->length <= 1024 * 1024) {
    char *room = buf_reserve(text, 4096);
    size_t got = fread(room, 1, 4096, file);
    text->length += got;
    room[got] = '\0';
    if (got < 4096)
      break;
  }
  ok = ok && ferror(file) == 0 && text->length > 0 && text->length <= 1024 * 1024;
  if (file != NULL)
    fclose(file);
  if (!ok) {
    log_event(LOG_ERROR, "http", "TLS file cannot be read", LOG_TEXT("path", path));
    error_set(err, ERR_HTTP_TLS_CERTIFICATE, NULL);
  }
  return ok;
}

static SSL_CTX *context_from_files(const char *certificate_path, const char *key_path, struct error *err) {
  struct buf certificate = {0};
  struct buf key = {0};
  SSL_CTX *context = NULL;
  if (read_file(certificate_path, &certificate, err) && read_file(key_path, &key, err)) {
    struct secret *secret = secret_create(key.data, key.length);
    context = context_create(certificate.data, secret, err);
    secret_free(&secret);
  }
  if (key.data != NULL)
    secret_wipe(key.data, key.capacity);
  buf_free(&key);
  buf_free(&certificate);
  return context;
}

struct http_tls *http_tls_create_from_files(const char *certificate_path, const char *key_path, struct error *err) {
  SSL_CTX *context = context_from_files(certificate_path, key_path, err);
  if (context == NULL)
    return NULL;
  struct http_tls *tls = BASE_NEW(struct http_tls);
  tls->context = context;
  tls->certificate_path = base_strdup(certificate_path);
  tls->key_path = base_strdup(key_path);
  return tls;
}

bool http_tls_reload(struct http_tls *tls, struct error *err) {
  if (tls->certificate_path == NULL)
    return error_set(err, ERR_HTTP_TLS_CERTIFICATE, "This certificate did not come from files.");
  SSL_CTX *context = context_from_files(tls->certificate_path, tls->key_path, err);
  if (context == NULL)
    return false;
  SSL_CTX_free(tls->context);
  tls->context = context;
  return true;
}

void http_tls_free(struct http_tls **tls) {
  if (*tls == NULL)
    return;
  SSL_CTX_free((*tls)->context);
  base_free((*tls)->certificate_path);
  base_free((*tls)->key_path);
  base_free(BASE_TAKE(*tls));
}

struct ssl_st *tls_session_new(struct http_tls *tls) {
  return SSL_new(tls->context);
}

bool tls_session_is_h2(struct ssl_st *session) {
  const unsigned char *name = NULL;
  unsigned int length = 0;
  SSL_get0_alpn_selected(session, &name, &length);
  return length == 2 && memcmp(name, "h2", 2) == 0;
}
