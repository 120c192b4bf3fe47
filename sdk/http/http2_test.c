/* http2_test.c: HTTP/2 by prior knowledge and over TLS by ALPN, with libcurl and the raw preface as clients; TLS
 * itself. */
#include "sdk/base/test.h"

#include <curl/curl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "sdk/http/http_client.h"
#include "sdk/http/http_internal.h"
#include "sdk/http/http_test_support.h"

/* A self-made certificate for 127.0.0.1. */
static void make_certificate(struct buf *certificate, struct buf *key) {
  EVP_PKEY *pair = EVP_EC_gen("P-256");
  X509 *x = X509_new();
  X509_set_version(x, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
  X509_gmtime_adj(X509_getm_notBefore(x), -60);
  X509_gmtime_adj(X509_getm_notAfter(x), 3600);
  X509_set_pubkey(x, pair);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, (const unsigned char *)"test", -1, -1, 0);
  X509_set_issuer_name(x, X509_get_subject_name(x));
  X509_EXTENSION *names = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "IP:127.0.0.1");
  X509_add_ext(x, names, -1);
  X509_EXTENSION_free(names);
  X509_sign(x, pair, EVP_sha256());
  BIO *bio = BIO_new(BIO_s_mem());
  char *text;
  PEM_write_bio_X509(bio, x);
  size_t length = (size_t)BIO_get_mem_data(bio, &text);
  buf_append(certificate, text, length);
  (void)BIO_reset(bio);
  PEM_write_bio_PrivateKey(bio, pair, NULL, NULL, 0, NULL, NULL);
  length = (size_t)BIO_get_mem_data(bio, &text);
  buf_append(key, text, length);
  BIO_free(bio);
  X509_free(x);
  EVP_PKEY_free(pair);
}

static size_t keep(char *data, size_t size, size_t count, void *context) {
  buf_append(context, data, size * count);
  return size * count;
}

/* One libcurl transfer while the loop turns; the status, 0 when it failed. */
struct transfer {
  CURLM *multi;
  CURL *easy;
  struct buf body;
  bool done;
  CURLcode code;
};

static void transfer_begin(struct transfer *t, const char *url, long version) {
  *t = (struct transfer){.multi = curl_multi_init(), .easy = curl_easy_init()};
  curl_easy_setopt(t->easy, CURLOPT_URL, url);
  curl_easy_setopt(t->easy, CURLOPT_HTTP_VERSION, version);
  curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, keep);
  curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, &t->body);
  curl_easy_setopt(t->easy, CURLOPT_PROXY, "");
}

static void transfer_step(struct transfer *t) {
  int running, left;
  curl_multi_perform(t->multi, &running);
  for (CURLMsg *m; (m = curl_multi_info_read(t->multi, &left)) != NULL;)
    if (m->msg == CURLMSG_DONE) {
      t->done = true;
      t->code = m->data.result;
    }
}

static long transfer_run(struct fixture *f, struct transfer *t) {
  curl_multi_add_handle(t->multi, t->easy);
  bool finished = TURN_UNTIL(f, (transfer_step(t), t->done));
  const char *url = NULL;
  curl_easy_getinfo(t->easy, CURLINFO_EFFECTIVE_URL, &url);
  ck_assert_msg(finished, "%s hangs after %zu bytes", url, t->body.length);
  long status = 0;
  if (t->code == CURLE_OK)
    curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
  return status;
}

static void transfer_end(struct transfer *t) {
  curl_multi_remove_handle(t->multi, t->easy);
  curl_easy_cleanup(t->easy);
  curl_multi_cleanup(t->multi);
  buf_free(&t->body);
}

static long get(struct fixture *f, const char *path, const char *method, const char *post, size_t post_bytes,
                struct buf *body) {
  char *url = base_asprintf("http://127.0.0.1:%u%s", f->port, path);
  struct transfer t;
  transfer_begin(&t, url, CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE);
  curl_easy_setopt(t.easy, CURLOPT_PATH_AS_IS, 1L);
  if (post != NULL) {
    curl_easy_setopt(t.easy, CURLOPT_POSTFIELDSIZE, (long)post_bytes);
    curl_easy_setopt(t.easy, CURLOPT_POSTFIELDS, post);
  }
  if (method != NULL)
    curl_easy_setopt(t.easy, CURLOPT_CUSTOMREQUEST, method);
  long status = transfer_run(f, &t);
  buf_clear(body);
  buf_append(body, t.body.data, t.body.length);
  transfer_end(&t);
  base_free(url);
  return status;
}

START_TEST(prior_knowledge_requests_work) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  struct buf body = {0};
  ck_assert_int_eq(get(&f, "/describe?q=a", "MADEUP", NULL, 0, &body), 200);
  ck_assert_int_eq(strncmp(body.data, "MADEUP|/describe|q=a|127.0.0.1:", 31), 0);
  ck_assert_ptr_nonnull(strstr(body.data, "|20"));
  ck_assert_int_eq(get(&f, "/echo", NULL, "abc", 3, &body), 200);
  ck_assert_str_eq(body.data, "abc");
  ck_assert_int_eq(get(&f, "/big", NULL, NULL, 0, &body), 200);
  ck_assert_uint_eq(body.length, 4000000);
  ck_assert_int_eq(get(&f, "/empty", NULL, NULL, 0, &body), 204);
  ck_assert_int_eq(get(&f, "/upload", NULL, "abcdef", 6, &body), 200);
  ck_assert_uint_eq(f.streamed_bytes, 6);
  ck_assert_int_eq(get(&f, "/%zz", NULL, NULL, 0, &body), 400);
  ck_assert_int_eq(get(&f, "/a/../b", NULL, NULL, 0, &body), 400);
  ck_assert_int_eq(get(&f, "/denied", NULL, "abc", 3, &body), 401);
  ck_assert_int_eq(get(&f, "/small", NULL, "12345678901", 11, &body), 413);
  ck_assert_ptr_nonnull(strstr(body.data, "http.body.too_large"));
  char *large = base_calloc(1, 9000001);
  memset(large, 'x', 9000000);
  ck_assert_int_eq(get(&f, "/echo", NULL, large, 8000000, &body), 200);
  ck_assert_uint_eq(body.length, 8000000);
  char path[9000];
  snprintf(path, sizeof(path), "/%.8500s", large);
  ck_assert_int_eq(get(&f, path, NULL, NULL, 0, &body), 414);
  ck_assert_int_eq(get(&f, "/abort", NULL, NULL, 0, &body), 0);
  base_free(large);
  ck_assert(TURN_UNTIL(&f, http_server_connection_count(f.server) == 0));
  ck_assert_uint_eq(http_server_in_flight(f.server), 0);
  buf_free(&body);
  fixture_close(&f);
}
END_TEST

START_TEST(a_streamed_reply_goes_out_as_it_is_written_and_a_vanished_client_is_told) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  char *url = base_asprintf("http://127.0.0.1:%u/stream", f.port);
  struct transfer t;
  transfer_begin(&t, url, CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE);
  curl_multi_add_handle(t.multi, t.easy);
  ck_assert(TURN_UNTIL(&f, (transfer_step(&t), f.pending != NULL)));
  ck_assert(http_response_write(f.pending, "one", 3));
  ck_assert(TURN_UNTIL(&f, (transfer_step(&t), t.body.length == 3)));
  ck_assert(http_response_write(f.pending, "two", 3));
  ck_assert(TURN_UNTIL(&f, (transfer_step(&t), t.body.length == 6)));
  ck_assert_uint_eq(f.closes, 0);
  transfer_end(&t);
  ck_assert(TURN_UNTIL(&f, f.closes == 1));
  ck_assert(http_request_is_gone(f.pending));
  ck_assert(!http_response_write(f.pending, "x", 1));
  http_response_end(f.pending);
  base_free(url);
  ck_assert(TURN_UNTIL(&f, http_server_connection_count(f.server) == 0));
  fixture_close(&f);
}
END_TEST

START_TEST(a_stream_that_is_ended_on_a_doomed_connection_is_forgotten) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  char *url = base_asprintf("http://127.0.0.1:%u/stream", f.port);
  void (*const ends[])(struct http_request *) = {http_response_end, http_request_abort};
  for (size_t i = 0; i < 2; i++) {
    struct transfer t;
    transfer_begin(&t, url, CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE);
    curl_multi_add_handle(t.multi, t.easy);
    ck_assert(TURN_UNTIL(&f, (transfer_step(&t), f.pending != NULL)));
    connection_doom(f.pending->connection, HTTP_CLOSE_PEER); /* as a failed write does; it is freed a turn later */
    ck_assert(!http_response_write(f.pending, "x", 1));
    ends[i](BASE_TAKE(f.pending));
    ck_assert_uint_eq(http_server_in_flight(f.server), 0);
    ck_assert(TURN_UNTIL(&f, (transfer_step(&t), http_server_connection_count(f.server) == 0)));
    ck_assert_uint_eq(f.closes, 0);
    transfer_end(&t);
  }
  base_free(url);
  fixture_close(&f);
}
END_TEST

START_TEST(a_stream_that_is_not_read_is_bounded) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  char *url = base_asprintf("http://127.0.0.1:%u/stream", f.port);
  struct transfer t;
  transfer_begin(&t, url, CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE);
  curl_multi_add_handle(t.multi, t.easy);
  ck_assert(TURN_UNTIL(&f, (transfer_step(&t), f.pending != NULL)));
  static char data[65536];
  unsigned writes = 0;
  bool congested = false;
  while (writes < 5000 && http_response_write(f.pending, data, sizeof(data))) {
    writes++;
    congested = congested || http_response_is_congested(f.pending);
    turn(&f); /* and the client is not turned */
  }
  ck_assert_uint_lt(writes, 5000);
  ck_assert(congested);
  ck_assert_uint_eq(f.closes, 0);
  ck_assert(TURN_UNTIL(&f, (transfer_step(&t), f.closes == 1)));
  ck_assert_int_eq(f.close_reason, HTTP_CLOSE_SLOW);
  http_request_abort(f.pending);
  transfer_end(&t);
  base_free(url);
  fixture_close(&f);
}
END_TEST

START_TEST(drain_says_goaway_and_finishes_streams) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  char *url = base_asprintf("http://127.0.0.1:%u/pending", f.port);
  struct transfer t;
  transfer_begin(&t, url, CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE);
  curl_multi_add_handle(t.multi, t.easy);
  ck_assert(TURN_UNTIL(&f, (transfer_step(&t), f.pending != NULL)));
  http_server_drain(f.server, 5000, fixture_on_server_drained, &f);
  for (int i = 0; i < 20; i++) {
    turn(&f);
    transfer_step(&t);
  }
  ck_assert(!f.server_drained);
  http_response_send(f.pending, 200, NULL, "done", 4);
  ck_assert(TURN_UNTIL(&f, (transfer_step(&t), t.done)));
  ck_assert_int_eq(t.code, CURLE_OK);
  ck_assert(TURN_UNTIL(&f, (transfer_step(&t), f.server_drained)));
  transfer_end(&t);
  base_free(url);
  fixture_close(&f);
}
END_TEST

/* ---- frames as they are ---- */

enum { FRAME_HEAD_BYTES = 9, FRAME_SETTINGS = 4, FRAME_PING = 6, FRAME_GOAWAY = 7, HIGHEST_STREAM = 0x7fffffff };

static uint32_t number_at(const uint8_t *data) {
  return (uint32_t)data[0] << 24 | (uint32_t)data[1] << 16 | (uint32_t)data[2] << 8 | data[3];
}

/* The payload of the frame of this type that comes behind `skip` others; NULL: it has not come yet. */
static const uint8_t *frame_find(const struct buf *bytes, uint8_t type, unsigned skip) {
  const uint8_t *at = (const uint8_t *)bytes->data, *end = at + bytes->length;
  while (bytes->length > 0 && end - at >= FRAME_HEAD_BYTES) {
    size_t length = number_at(at) >> 8;
    if ((size_t)(end - at) < FRAME_HEAD_BYTES + length)
      return NULL;
    if (at[3] == type && skip-- == 0)
      return at + FRAME_HEAD_BYTES;
    at += FRAME_HEAD_BYTES + length;
  }
  return NULL;
}

/* What a client sends that knows nothing of the drain yet, and a request that was on its way. */
static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
static const char get_root[] = "\0\0\16\1\5\0\0\0\1\x82\x86\x84\x41\x09localhost";

static void drain_is_told(bool speaks_first) {
  struct fixture f = {0};
  struct buf bytes = {0};
  const uint8_t *ping = NULL, *goaway = NULL;
  fixture_open_with(&f, NULL, NULL);
  int fd = raw_connect(&f);
  ck_assert(TURN_UNTIL(&f, http_server_connection_count(f.server) == 1));
  if (speaks_first) {
    raw_send(&f, fd, preface, sizeof(preface) - 1, 0);
    ck_assert(TURN_UNTIL(&f, (raw_read(&f, fd, &bytes, NULL, 2), frame_find(&bytes, FRAME_SETTINGS, 0) != NULL)));
  }
  http_server_hand_over(f.server, 5000, fixture_on_server_drained, &f);
  if (!speaks_first)
    raw_send(&f, fd, preface, sizeof(preface) - 1, 0);
  ck_assert(TURN_UNTIL(&f, (raw_read(&f, fd, &bytes, NULL, 2), (ping = frame_find(&bytes, FRAME_PING, 0)) != NULL)));
  ck_assert_ptr_nonnull(goaway = frame_find(&bytes, FRAME_GOAWAY, 0));
  ck_assert(goaway < ping);
  ck_assert_uint_eq(number_at(goaway), HIGHEST_STREAM);
  char answer[FRAME_HEAD_BYTES + 8] = "\0\0\10\6\1\0\0\0";
  memcpy(answer + FRAME_HEAD_BYTES, ping, 8);
  raw_send(&f, fd, get_root, sizeof(get_root) - 1, 0); /* before the notice was read */
  raw_send(&f, fd, answer, sizeof(answer), 0);
  ck_assert(raw_read(&f, fd, &bytes, NULL, 3000)); /* served, and then closed by the server */
  ck_assert_uint_eq(f.handled, 1);
  ck_assert_ptr_nonnull(goaway = frame_find(&bytes, FRAME_GOAWAY, 1));
  ck_assert_uint_eq(number_at(goaway), 1);
  close(fd);
  ck_assert(TURN_UNTIL(&f, f.server_drained));
  buf_free(&bytes);
  fixture_close(&f);
}

START_TEST(a_drain_names_the_highest_stream_and_when_that_is_heard_the_last_one) {
  drain_is_told(true);
}
END_TEST

START_TEST(a_connection_that_was_silent_until_the_drain_is_told_as_well) {
  drain_is_told(false);
}
END_TEST

START_TEST(rubbish_after_the_preface_ends_the_connection) {
  struct fixture f = {0};
  fixture_open_with(&f, NULL, NULL);
  int fd = raw_connect(&f);
  const char *text = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nrubbish rubbish rubbish rubbish";
  raw_send(&f, fd, text, strlen(text), 1);
  struct buf reply = {0};
  ck_assert(raw_read(&f, fd, &reply, NULL, 3000));
  close(fd);
  buf_free(&reply);
  ck_assert(TURN_UNTIL(&f, http_server_connection_count(f.server) == 0));
  fixture_close(&f);
}
END_TEST

static struct http_tls *tls_create(struct buf *certificate) {
  struct buf key = {0};
  make_certificate(certificate, &key);
  struct secret *secret = secret_create(key.data, key.length);
  struct http_tls *tls = http_tls_create(certificate->data, secret, NULL);
  ck_assert_ptr_nonnull(tls);
  secret_free(&secret);
  buf_free(&key);
  return tls;
}

START_TEST(tls_serves_both_protocols) {
  struct fixture f = {0};
  struct buf certificate = {0};
  fixture_open_with(&f, NULL, tls_create(&certificate));
  static const char *const paths[] = {"/describe", "/big"};
  for (size_t i = 0; i < 4; i++) {
    char *url = base_asprintf("https://127.0.0.1:%u%s", f.port, paths[i % 2]);
    struct transfer t;
    transfer_begin(&t, url, i < 2 ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1);
    struct curl_blob ca = {certificate.data, certificate.length, CURL_BLOB_COPY};
    curl_easy_setopt(t.easy, CURLOPT_CAINFO_BLOB, &ca);
    ck_assert_int_eq(transfer_run(&f, &t), 200);
    if (i % 2 == 0)
      ck_assert_ptr_nonnull(strstr(t.body.data, i < 2 ? "|20" : "|11"));
    else
      ck_assert_uint_eq(t.body.length, 4000000);
    transfer_end(&t);
    base_free(url);
  }
  buf_free(&certificate);
  ck_assert(TURN_UNTIL(&f, http_server_connection_count(f.server) == 0));
  fixture_close(&f);
}
END_TEST

static void note_done(void *context, struct http_call *call, const struct http_client_response *response,
                      const struct error *err) {
  (void)call, (void)response;
  *(int *)context = err == NULL ? 1 : error_is(err, ERR_HTTP_UPSTREAM_TLS) ? 2 : 3;
}

START_TEST(the_client_verifies_certificates) {
  struct fixture f = {0};
  struct buf certificate = {0};
  fixture_open_with(&f, NULL, tls_create(&certificate));
  char path[] = "/tmp/gatehouse-http-test-XXXXXX";
  int fd = mkstemp(path);
  ck_assert_int_eq(write(fd, certificate.data, certificate.length), (ssize_t)certificate.length);
  close(fd);
  const char *cidrs[] = {"127.0.0.0/8", NULL};
  struct http_egress_policy *policy =
      http_egress_policy_create(&(struct http_egress_rules){.trusted_cidrs = cidrs}, NULL);
  char *url = base_asprintf("https://127.0.0.1:%u/", f.port);
  for (int known = 0; known < 2; known++) {
    struct http_client *client =
        http_client_create(f.base, &(struct http_client_options){.egress = policy, .ca_file = known ? path : NULL});
    int result = 0;
    ck_assert_ptr_nonnull(http_client_start(
        client, &(struct http_client_request){.url = url, .on_done = note_done, .context = &result}, NULL));
    ck_assert(TURN_UNTIL(&f, result != 0));
    ck_assert_int_eq(result, known ? 1 : 2);
    http_client_free(&client);
  }
  unlink(path);
  base_free(url);
  http_egress_policy_free(&policy);
  buf_free(&certificate);
  fixture_close(&f);
}
END_TEST

START_TEST(certificates_are_checked_and_replaced) {
  struct buf one = {0}, other = {0}, key = {0};
  struct http_tls *tls = tls_create(&one);
  make_certificate(&other, &key);
  struct secret *secret = secret_create(key.data, key.length);
  struct error err;
  ck_assert(http_tls_replace(tls, other.data, secret, NULL));
  ck_assert(!http_tls_replace(tls, one.data, secret, &err)); /* not a pair */
  ck_assert(error_is(&err, ERR_HTTP_TLS_CERTIFICATE));
  ck_assert(!http_tls_replace(tls, "rubbish", secret, &err));
  ck_assert(!http_tls_reload(tls, &err));
  ck_assert_ptr_null(http_tls_create_from_files("/nonexistent", "/nonexistent", &err));
  secret_free(&secret);
  http_tls_free(&tls);
  buf_free(&one);
  buf_free(&other);
  buf_free(&key);
}
END_TEST

START_TEST(plain_text_to_a_tls_port_is_dropped) {
  struct fixture f = {0};
  struct buf certificate = {0};
  fixture_open_with(&f, NULL, tls_create(&certificate));
  int fd = raw_connect(&f);
  const char *text = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
  raw_send(&f, fd, text, strlen(text), 0);
  struct buf reply = {0};
  ck_assert(raw_read(&f, fd, &reply, NULL, 3000));
  ck_assert(TURN_UNTIL(&f, http_server_connection_count(f.server) == 0));
  close(fd);
  buf_free(&reply);
  buf_free(&certificate);
  fixture_close(&f);
}
END_TEST

TEST_MAIN("http.http2", prior_knowledge_requests_work, a_stream_that_is_ended_on_a_doomed_connection_is_forgotten,
          a_streamed_reply_goes_out_as_it_is_written_and_a_vanished_client_is_told,
          a_stream_that_is_not_read_is_bounded, drain_says_goaway_and_finishes_streams,
          a_drain_names_the_highest_stream_and_when_that_is_heard_the_last_one,
          a_connection_that_was_silent_until_the_drain_is_told_as_well, rubbish_after_the_preface_ends_the_connection,
          tls_serves_both_protocols, the_client_verifies_certificates, certificates_are_checked_and_replaced,
          plain_text_to_a_tls_port_is_dropped)
