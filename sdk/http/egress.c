/* egress.c: the egress policy. IPv4 addresses are held as IPv4-mapped IPv6, so that one comparison serves both; an IPv6
 * address that carries an IPv4 address inside is judged by both. */
#include "sdk/http/http_egress.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

/* Refused unless trusted. The IANA special-purpose registries, and what clouds answer metadata on. */
static const char *const default_denied[] = {
    "0.0.0.0/8",      "10.0.0.0/8",   "100.64.0.0/10",  "127.0.0.0/8",    "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/24",   "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",  "198.51.100.0/24",
    "203.0.113.0/24", "224.0.0.0/4",  "240.0.0.0/4",    "::/128",         "::1/128",        "64:ff9b:1::/48",
    "100::/64",       "2001::/23",    "2001:db8::/32",  "3fff::/20",      "5f00::/16",      "fc00::/7",
    "fe80::/10",      "fec0::/10",    "ff00::/8",
};

struct cidr {
  uint8_t address[16];
  unsigned bits;
};

struct cidr_list {
  struct cidr *items;
  size_t count;
};

struct http_egress_policy {
  char **hosts;
  char **trusted_hosts;
  uint16_t *ports;
  struct cidr_list trusted;
  struct cidr_list denied;
  struct cidr_list defaults;
  bool https_only;
  bool http_only;
  bool allow_all_addresses;
};

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static void map_v4(uint8_t target[static 16], const uint8_t v4[static 4]) {
  memcpy(target, mapped_prefix, sizeof(mapped_prefix));
  memcpy(target + 12, v4, 4);
}

static bool parse_address(const char *text, uint8_t target[static 16], bool *is_v4) {
  uint8_t v4[4];
  *is_v4 = inet_pton(AF_INET, text, v4) == 1;
  if (*is_v4)
    map_v4(target, v4);
  return *is_v4 || inet_pton(AF_INET6, text, target) == 1;
}

static bool parse_cidr(const char *text, struct cidr *cidr) {
  char address[INET6_ADDRSTRLEN];
  const char *slash = strchr(text, '/');
  size_t length = slash != NULL ? (size_t)(slash - text) : strlen(text);
  bool is_v4;
  if (length >= sizeof(address))
    return false;
  memcpy(address, text, length);
  address[length] = '\0';
  if (!parse_address(address, cidr->address, &is_v4))
    return false;
  uint64_t bits = is_v4 ? 32 : 128;
  if (slash != NULL && (!str_parse_u64(slash + 1, &bits) || bits > (is_v4 ? 32u : 128u)))
    return false;
  cidr->bits = (unsigned)bits + (is_v4 ? 96 : 0);
  return true;
}

static bool cidr_contains(const struct cidr *cidr, const uint8_t address[static 16]) {
  unsigned bytes = cidr->bits / 8, rest = cidr->bits % 8;
  if (memcmp(cidr->address, address, bytes) != 0)
    return false;
  return rest == 0 || ((cidr->address[bytes] ^ address[bytes]) >> (8 - rest)) == 0;
}

static bool list_contains(const struct cidr_list *list, const uint8_t address[static 16]) {
  for (size_t i = 0; i < list->count; i++)
    if (cidr_contains(&list->items[i], address))
      return true;
  return false;
}

static bool list_add(struct cidr_list *list, const char *text) {
  list->items = base_realloc_array(list->items, list->count + 1, sizeof(*list->items));
  return parse_cidr(text, &list->items[list->count++]);
}

static bool list_fill(struct cidr_list *list, const char *const *texts) {
  for (; texts != NULL && *texts != NULL; texts++)
    if (!list_add(list, *texts))
      return false;
  return true;
}

/* "host", "*.host", with allow_port also "host:port"; an IPv6 address stands without brackets, or in them with a port.
 */
static bool host_pattern_is_valid(const char *text) {
  return text[0] != '\0' && strpbrk(text, "/@ \t?#") == NULL &&
         (strchr(text, '*') == NULL || str_starts_with(text, "*."));
}

static bool copy_hosts(char ***target, const char *const *hosts) {
  size_t count = 0;
  while (hosts != NULL && hosts[count] != NULL)
    count++;
  *target = base_calloc(count + 1, sizeof(**target));
  for (size_t i = 0; i < count; i++) {
    if (!host_pattern_is_valid(hosts[i]))
      return false;
    (*target)[i] = base_strdup(hosts[i]);
  }
  return true;
}

static void copy_ports(struct http_egress_policy *policy, const uint16_t *ports) {
  size_t count = 0;
  while (ports != NULL && ports[count] != 0)
    count++;
  policy->ports = base_calloc(count + 1, sizeof(*policy->ports));
  if (count > 0)
    memcpy(policy->ports, ports, count * sizeof(*ports));
}

struct http_egress_policy *http_egress_policy_create(const struct http_egress_rules *rules, struct error *err) {
  static const struct http_egress_rules none = {0};
  if (rules == NULL)
    rules = &none;
  struct http_egress_policy *policy = BASE_NEW(struct http_egress_policy);
  policy->https_only = rules->https_only;
  policy->http_only = rules->http_only;
  policy->allow_all_addresses = rules->allow_all_addresses;
  copy_ports(policy, rules->ports);
  bool ok = copy_hosts(&policy->hosts, rules->hosts);
  ok = copy_hosts(&policy->trusted_hosts, rules->trusted_hosts) && ok;
  ok = list_fill(&policy->trusted, rules->trusted_cidrs) && ok;
  ok = list_fill(&policy->denied, rules->denied_cidrs) && ok;
  for (size_t i = 0; i < sizeof(default_denied) / sizeof(default_denied[0]); i++)
    BASE_CHECK(list_add(&policy->defaults, default_denied[i]));
  if (!ok) {
    http_egress_policy_free(&policy);
    error_set(err, ERR_ARGUMENT_INVALID,
              "An entry of the egress policy is neither a host pattern nor an address range.");
  }
  return policy;
}

static void free_hosts(char **hosts) {
  for (char **at = hosts; at != NULL && *at != NULL; at++)
    base_free(*at);
  base_free(hosts);
}

void http_egress_policy_free(struct http_egress_policy **pointer) {
  struct http_egress_policy *policy = *pointer;
  if (policy == NULL)
    return;
  *pointer = NULL;
  free_hosts(policy->hosts);
  free_hosts(policy->trusted_hosts);
  base_free(policy->ports);
  base_free(policy->trusted.items);
  base_free(policy->denied.items);
  base_free(policy->defaults.items);
  base_free(policy);
}

/* ---- judging ---- */

static bool equal_text(const char *text, size_t length, const char *other) {
  return strlen(other) == length && strncasecmp(text, other, length) == 0;
}

static bool host_matches(const char *pattern, const char *host, uint16_t port) {
  size_t host_bytes = strlen(host);
  if (host_bytes > 1 && host[host_bytes - 1] == '.') /* "localhost." is localhost */
    host_bytes--;
  if (str_starts_with(pattern, "*.")) {
    size_t suffix = strlen(pattern) - 1;
    return host_bytes > suffix && strncasecmp(host + host_bytes - suffix, pattern + 1, suffix) == 0;
  }
  if (equal_text(host, host_bytes, pattern))
    return true;
  const char *colon = strrchr(pattern, ':');
  uint64_t number;
  if (colon == NULL || !str_parse_u64(colon + 1, &number) || number != port)
    return false;
  size_t bytes = (size_t)(colon - pattern);
  if (pattern[0] == '[' && bytes > 2 && colon[-1] == ']')
    return host_bytes == bytes - 2 && strncasecmp(pattern + 1, host, host_bytes) == 0;
  return host_bytes == bytes && strncasecmp(pattern, host, host_bytes) == 0;
}

static bool any_host_matches(char *const *patterns, const struct http_url *url) {
  for (; *patterns != NULL; patterns++)
    if (host_matches(*patterns, url->host, url->port))
      return true;
  return false;
}

/* The IPv4 address inside an IPv6 one: compatible (::a.b.c.d), NAT64 (64:ff9b::/96), 6to4 (2002::/16). Teredo lies in a
 * refused range altogether. */
static bool embedded_v4(const uint8_t address[static 16], uint8_t target[static 16]) {
  static const uint8_t compatible[12] = {0};
  static const uint8_t nat64[12] = {0, 0x64, 0xff, 0x9b};
  if (memcmp(address, compatible, 12) == 0 || memcmp(address, nat64, 12) == 0)
    map_v4(target, address + 12);
  else if (address[0] == 0x20 && address[1] == 0x02)
    map_v4(target, address + 2);
  else
    return false;
  return true;
}

static bool bytes_allowed(const struct http_egress_policy *policy, const struct http_url *url,
                          const uint8_t address[static 16]) {
  if (list_contains(&policy->denied, address))
    return false;
  if (policy->allow_all_addresses || list_contains(&policy->trusted, address))
    return true;
  return !list_contains(&policy->defaults, address) || any_host_matches(policy->trusted_hosts, url);
}

static bool address_allowed(const struct http_egress_policy *policy, const struct http_url *url,
                            const uint8_t address[static 16]) {
  uint8_t inner[16];
  return bytes_allowed(policy, url, address) &&
         (!embedded_v4(address, inner) || bytes_allowed(policy, url, inner) ||
          (list_contains(&policy->trusted, address) && !list_contains(&policy->denied, inner)));
}

static bool blocked(const struct http_url *url, const char *why, struct error *err) {
  log_event(LOG_WARN, "http", "egress blocked", LOG_TEXT("host", url->host), LOG_INT("port", url->port),
            LOG_TEXT("reason", why));
  return error_set(err, ERR_HTTP_URL_BLOCKED, NULL);
}

bool http_egress_check_url(const struct http_egress_policy *policy, const struct http_url *url, struct error *err) {
  if ((policy->https_only && strcmp(url->scheme, "https") != 0) ||
      (policy->http_only && strcmp(url->scheme, "http") != 0))
    return blocked(url, "scheme", err);
  bool port_ok = policy->ports[0] == 0;
  for (const uint16_t *port = policy->ports; *port != 0; port++)
    port_ok = port_ok || *port == url->port;
  if (!port_ok)
    return blocked(url, "port", err);
  if (policy->hosts[0] != NULL && !any_host_matches(policy->hosts, url))
    return blocked(url, "host", err);
  uint8_t address[16];
  bool is_v4;
  if (parse_address(url->host, address, &is_v4) && !address_allowed(policy, url, address))
    return blocked(url, "address", err);
  return true;
}

bool http_egress_check_address(const struct http_egress_policy *policy, const struct http_url *url,
                               const struct sockaddr *address, struct error *err) {
  uint8_t bytes[16];
  if (address->sa_family == AF_INET)
    map_v4(bytes, (const uint8_t *)&((const struct sockaddr_in *)(const void *)address)->sin_addr);
  else if (address->sa_family == AF_INET6)
    memcpy(bytes, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, sizeof(bytes));
  else
    return blocked(url, "family", err);
  return address_allowed(policy, url, bytes) || blocked(url, "resolved address", err);
}
