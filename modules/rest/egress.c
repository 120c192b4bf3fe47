/* egress.c: one http_client per distinct egress policy, because pooled connections were checked against it. A bounded
 * list, the least recently used first to go; one with calls in flight stays until they are done. */
#include <arpa/inet.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>

#include "modules/rest/rest_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/str.h"

#define CLIENTS_MAX 32
#define ENTRIES_MAX 256

struct client_entry {
  TAILQ_ENTRY(client_entry) link;
  char *key; /* the policy as text */
  struct http_egress_policy *policy;
  struct http_client *client;
};

TAILQ_HEAD(client_list, client_entry);

struct rest_clients {
  struct event_base *base;
  struct client_list entries; /* most recently used first */
  size_t count;
};

struct rest_clients *rest_clients_create(struct event_base *base) {
  struct rest_clients *clients = BASE_NEW(struct rest_clients);
  clients->base = base;
  TAILQ_INIT(&clients->entries);
  return clients;
}

static void entry_free(struct rest_clients *clients, struct client_entry *entry) {
  TAILQ_REMOVE(&clients->entries, entry, link);
  clients->count--;
  http_client_free(&entry->client);
  http_egress_policy_free(&entry->policy);
  base_free(entry->key);
  base_free(entry);
}

void rest_clients_free(struct rest_clients **pointer) {
  struct rest_clients *clients = BASE_TAKE(*pointer);
  if (!clients)
    return;
  while (!TAILQ_EMPTY(&clients->entries))
    entry_free(clients, TAILQ_FIRST(&clients->entries));
  base_free(clients);
}

size_t rest_clients_count(const struct rest_clients *clients) {
  return clients->count;
}

/* ---- a policy made into rules ---- */

struct schemes {
  bool http;
  bool https;
};

static struct schemes schemes_of(const core_common_v1_EgressPolicy *policy) {
  struct schemes schemes = {true, true};
  if (!policy || policy->schemes_count == 0)
    return schemes;
  schemes = (struct schemes){false, false};
  for (pb_size_t i = 0; i < policy->schemes_count; i++) {
    const char *name = policy->schemes[i] ? policy->schemes[i] : "";
    schemes.http = schemes.http || strcasecmp(name, "http") == 0;
    schemes.https = schemes.https || strcasecmp(name, "https") == 0;
  }
  return schemes;
}

/* Whether `key` is what key_make makes of it. */
static bool key_equals(const char *key, const core_common_v1_EgressPolicy *policy, struct schemes schemes) {
  if (key[0] != '0' + schemes.http || key[1] != '0' + schemes.https)
    return false;
  key += 2;
  for (pb_size_t i = 0; policy && i < policy->allow_count; i++) {
    const char *text = policy->allow[i] ? policy->allow[i] : "";
    size_t length = strlen(text);
    if (*key++ != '\n' || strncmp(key, text, length) != 0)
      return false;
    key += length;
  }
  return !*key;
}

static char *key_make(const core_common_v1_EgressPolicy *policy, struct schemes schemes) {
  struct buf key = {0};
  buf_printf(&key, "%d%d", schemes.http, schemes.https);
  for (pb_size_t i = 0; policy && i < policy->allow_count; i++)
    buf_printf(&key, "\n%s", policy->allow[i] ? policy->allow[i] : "");
  return buf_take(&key);
}

/* An address or a block is trusted whatever name led to it; a name (or anything with a port) only as it is written. */
static bool is_range(const char *text) {
  unsigned char address[sizeof(struct in6_addr)];
  return strchr(text, '/') || inet_pton(AF_INET, text, address) == 1 || inet_pton(AF_INET6, text, address) == 1;
}

static struct http_egress_policy *policy_make(const core_common_v1_EgressPolicy *policy, struct schemes schemes,
                                              struct error *err) {
  const char *hosts[ENTRIES_MAX + 1] = {0}, *ranges[ENTRIES_MAX + 1] = {0};
  size_t host_count = 0, range_count = 0;
  if (policy && policy->allow_count > ENTRIES_MAX) {
    error_set(err, ERR_ARGUMENT_INVALID, "The egress policy has more than %d entries.", ENTRIES_MAX);
    return NULL;
  }
  for (pb_size_t i = 0; policy && i < policy->allow_count; i++) {
    const char *text = policy->allow[i] ? policy->allow[i] : "";
    if (is_range(text))
      ranges[range_count++] = text;
    else
      hosts[host_count++] = text;
  }
  struct http_egress_rules rules = {
      .trusted_hosts = hosts, .trusted_cidrs = ranges, .https_only = !schemes.http, .http_only = !schemes.https};
  return http_egress_policy_create(&rules, err);
}

/* ---- finding ---- */

/* Makes room for one more; clients that work stay, so the bound may be passed for as long as they do. */
static void trim(struct rest_clients *clients) {
  struct client_entry *entry = TAILQ_LAST(&clients->entries, client_list);
  while (entry && clients->count >= CLIENTS_MAX) {
    struct client_entry *newer = TAILQ_PREV(entry, client_list, link);
    if (http_client_in_flight(entry->client) == 0)
      entry_free(clients, entry);
    entry = newer;
  }
}

struct http_client *rest_clients_get(struct rest_clients *clients, const core_common_v1_EgressPolicy *policy,
                                     struct error *err) {
  struct schemes schemes = schemes_of(policy);
  if (!schemes.http && !schemes.https) {
    error_set(err, ERR_HTTP_URL_BLOCKED, NULL);
    return NULL;
  }
  struct client_entry *entry;
  TAILQ_FOREACH(entry, &clients->entries, link) {
    if (key_equals(entry->key, policy, schemes))
      break;
  }
  if (entry) {
    TAILQ_REMOVE(&clients->entries, entry, link);
    TAILQ_INSERT_HEAD(&clients->entries, entry, link);
    return entry->client;
  }
  struct http_egress_policy *rules = policy_make(policy, schemes, err);
  if (!rules)
    return NULL;
  trim(clients);
  entry = BASE_NEW(struct client_entry);
  entry->key = key_make(policy, schemes);
  entry->policy = rules;
  entry->client = http_client_create(clients->base, &(struct http_client_options){.egress = rules});
  TAILQ_INSERT_HEAD(&clients->entries, entry, link);
  clients->count++;
  return entry->client;
}
