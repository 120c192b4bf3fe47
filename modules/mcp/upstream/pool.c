/* pool.c: the upstreams that are known: one for each gateway record, URL, credential and egress policy. The policy
 * belongs to the HTTP client, because pooled connections were checked against it; so an upstream has a client of its
 * own. */
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "modules/mcp/upstream/upstream_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/clock.h"
#include "sdk/base/str.h"

#define UPSTREAMS_MAX 1000
#define IDLE_MS 300000
#define SWEEP_SECONDS 30
#define ERA_TTL_MS 600000

/* ---- what an origin speaks ---- */

enum mcp_era upstream_era_known(const struct upstream *upstream) {
  struct origin_era *known = NULL;
  HASH_FIND_STR(upstream->pool->eras, upstream->origin, known);
  return known && clock_monotonic_ms() - known->learned_ms < ERA_TTL_MS ? known->era : 0;
}

void upstream_era_learn(struct upstream *upstream, enum mcp_era era) {
  struct origin_era *known = NULL;
  HASH_FIND_STR(upstream->pool->eras, upstream->origin, known);
  if (!known) {
    known = BASE_NEW(struct origin_era);
    known->origin = base_strdup(upstream->origin);
    HASH_ADD_KEYPTR(hh, upstream->pool->eras, known->origin, strlen(known->origin), known);
  }
  known->era = era;
  known->learned_ms = clock_monotonic_ms();
}

static void era_free(struct mcp_upstream_pool *pool, struct origin_era *known) {
  HASH_DEL(pool->eras, known);
  base_free(known->origin);
  base_free(known);
}

void upstream_era_forget(struct upstream *upstream) {
  struct origin_era *known = NULL;
  HASH_FIND_STR(upstream->pool->eras, upstream->origin, known);
  if (known)
    era_free(upstream->pool, known);
}

/* ---- one upstream ---- */

static void upstream_free(struct upstream *upstream) {
  struct mcp_upstream_call *call;
  struct post *post;
  HASH_DEL(upstream->pool->upstreams, upstream);
  while ((call = TAILQ_FIRST(&upstream->waiting)) || (call = TAILQ_FIRST(&upstream->calls)))
    upstream_call_discard(call);
  upstream->connect_post = NULL;
  while ((post = LIST_FIRST(&upstream->posts)))
    post_cancel(post);
  http_client_free(&upstream->http);
  http_egress_policy_free(&upstream->egress);
  header_list_clear(&upstream->connect_headers);
  base_free(upstream->url);
  base_free(upstream->origin);
  base_free(upstream->session_id);
  base_free(upstream->server_name);
  base_free(upstream->server_version);
  base_free(upstream->instructions);
  base_free(upstream->capabilities);
  base_free(upstream);
}

static void digest_text(EVP_MD_CTX *digest, const char *text) {
  text = text ? text : "";
  BASE_CHECK(EVP_DigestUpdate(digest, text, strlen(text) + 1) == 1);
}

static void key_make(const core_common_v1_InvocationPlan *plan, uint8_t key[static UPSTREAM_KEY_BYTES]) {
  EVP_MD_CTX *digest = EVP_MD_CTX_new();
  char numbers[64];
  BASE_CHECK(digest && EVP_DigestInit_ex(digest, EVP_sha256(), NULL) == 1);
  digest_text(digest, plan->call.mcp->gateway_id);
  digest_text(digest, plan->call.mcp->url);
  for (pb_size_t i = 0; i < plan->headers_count; i++) {
    digest_text(digest, plan->headers[i].name);
    digest_text(digest, plan->headers[i].value);
  }
  const core_common_v1_EgressPolicy *egress = plan->egress;
  if (egress) {
    snprintf(numbers, sizeof(numbers), "%u %llu %u %u", egress->redirects_max,
             (unsigned long long)egress->response_bytes_max, (unsigned)egress->allow_count,
             (unsigned)egress->schemes_count);
    digest_text(digest, numbers);
    for (pb_size_t i = 0; i < egress->allow_count; i++)
      digest_text(digest, egress->allow[i]);
    for (pb_size_t i = 0; i < egress->schemes_count; i++)
      digest_text(digest, egress->schemes[i]);
  }
  BASE_CHECK(EVP_DigestFinal_ex(digest, key, NULL) == 1);
  EVP_MD_CTX_free(digest);
}

/* The plan's policy as the HTTP client enforces it. */
static struct http_egress_policy *egress_make(const core_common_v1_EgressPolicy *egress, const struct http_url *url,
                                              struct error *err) {
  struct http_egress_rules rules = {0};
  size_t allow_count = egress ? egress->allow_count : 0, hosts = 0, cidrs = 0;
  bool scheme_ok = !egress || egress->schemes_count == 0, plain = scheme_ok;
  for (pb_size_t i = 0; egress && i < egress->schemes_count; i++) {
    scheme_ok = scheme_ok || str_equal(egress->schemes[i], url->scheme);
    plain = plain || str_equal(egress->schemes[i], "http");
  }
  if (!scheme_ok) {
    error_set(err, ERR_HTTP_URL_BLOCKED, NULL);
    return NULL;
  }
  const char **trusted_hosts = base_calloc(allow_count + 1, sizeof(char *));
  const char **trusted_cidrs = base_calloc(allow_count + 1, sizeof(char *));
  for (size_t i = 0; i < allow_count; i++) {
    if (strchr(egress->allow[i], '/'))
      trusted_cidrs[cidrs++] = egress->allow[i];
    else
      trusted_hosts[hosts++] = egress->allow[i];
  }
  rules.trusted_hosts = trusted_hosts;
  rules.trusted_cidrs = trusted_cidrs;
  rules.https_only = !plain;
  struct http_egress_policy *policy = http_egress_policy_create(&rules, err);
  base_free(trusted_hosts);
  base_free(trusted_cidrs);
  return policy;
}

static bool room_make(struct mcp_upstream_pool *pool, struct error *err) {
  struct upstream *upstream, *next, *oldest = NULL;
  if (HASH_COUNT(pool->upstreams) < UPSTREAMS_MAX)
    return true;
  HASH_ITER(hh, pool->upstreams, upstream, next) {
    bool idle = LIST_EMPTY(&upstream->posts) && TAILQ_EMPTY(&upstream->waiting) && TAILQ_EMPTY(&upstream->calls);
    if (idle && http_client_in_flight(upstream->http) == 0 && (!oldest || upstream->used_ms < oldest->used_ms))
      oldest = upstream;
  }
  if (!oldest)
    return error_set(err, ERR_UNAVAILABLE, "too many upstreams are in use; retry");
  oldest->used_ms = INT64_MIN; /* the sweep takes it: a client is not freed in a callback */
  event_active(pool->sweep_timer, EV_TIMEOUT, 0);
  return HASH_COUNT(pool->upstreams) < 2 * UPSTREAMS_MAX ||
         error_set(err, ERR_UNAVAILABLE, "too many upstreams are in use; retry");
}

struct upstream *upstream_get(struct mcp_upstream_pool *pool, const core_common_v1_InvocationPlan *plan,
                              struct error *err) {
  uint8_t key[UPSTREAM_KEY_BYTES];
  struct upstream *upstream = NULL;
  struct http_url url = {0};
  key_make(plan, key);
  HASH_FIND(hh, pool->upstreams, key, UPSTREAM_KEY_BYTES, upstream);
  if (upstream) {
    upstream->used_ms = clock_monotonic_ms();
    return upstream;
  }
  if (!room_make(pool, err) || !http_url_parse(plan->call.mcp->url ? plan->call.mcp->url : "", &url, err))
    return NULL;
  struct http_egress_policy *egress = egress_make(plan->egress, &url, err);
  if (egress) {
    upstream = BASE_NEW(struct upstream);
    memcpy(upstream->key, key, sizeof(key));
    upstream->pool = pool;
    upstream->egress = egress;
    upstream->http = http_client_create(pool->base, &(struct http_client_options){.egress = egress});
    upstream->url = base_strdup(plan->call.mcp->url);
    upstream->origin = http_url_origin(&url);
    upstream->redirects_max = plan->egress ? plan->egress->redirects_max : 0;
    uint64_t bytes_max = plan->egress ? plan->egress->response_bytes_max : 0;
    upstream->response_bytes_max = bytes_max && bytes_max < SIZE_MAX ? (size_t)bytes_max : UPSTREAM_RESPONSE_BYTES_MAX;
    upstream->used_ms = clock_monotonic_ms();
    TAILQ_INIT(&upstream->waiting);
    TAILQ_INIT(&upstream->calls);
    LIST_INIT(&upstream->posts);
    HASH_ADD(hh, pool->upstreams, key, UPSTREAM_KEY_BYTES, upstream);
  }
  http_url_clear(&url);
  return upstream;
}

/* ---- the pool ---- */

static void on_sweep(evutil_socket_t fd, short what, void *arg) {
  struct mcp_upstream_pool *pool = arg;
  struct upstream *upstream, *next;
  int64_t now_ms = clock_monotonic_ms();
  (void)fd, (void)what;
  HASH_ITER(hh, pool->upstreams, upstream, next) {
    if (LIST_EMPTY(&upstream->posts) && TAILQ_EMPTY(&upstream->waiting) && TAILQ_EMPTY(&upstream->calls) &&
        upstream->used_ms < now_ms - IDLE_MS)
      upstream_free(upstream);
  }
}

struct mcp_upstream_pool *mcp_upstream_pool_create(struct event_base *base) {
  const struct timeval period = {.tv_sec = SWEEP_SECONDS};
  struct mcp_upstream_pool *pool = BASE_NEW(struct mcp_upstream_pool);
  pool->base = base;
  pool->sweep_timer = event_new(base, -1, EV_PERSIST, on_sweep, pool);
  event_add(pool->sweep_timer, &period);
  return pool;
}

void mcp_upstream_pool_free(struct mcp_upstream_pool **holder) {
  struct mcp_upstream_pool *pool = BASE_TAKE(*holder);
  struct upstream *upstream, *next;
  struct origin_era *known, *next_known;
  if (!pool)
    return;
  HASH_ITER(hh, pool->upstreams, upstream, next) upstream_free(upstream);
  HASH_ITER(hh, pool->eras, known, next_known) era_free(pool, known);
  event_free(pool->sweep_timer);
  base_free(pool);
}

size_t mcp_upstream_pool_count(const struct mcp_upstream_pool *pool) {
  return HASH_COUNT(pool->upstreams);
}
