/* http_egress.h: where outgoing HTTP may go (RST-2). Enforced three times: on the URL before the call, on every address
 * that is about to be connected (after name resolution, so DNS rebinding gains nothing), and again for every redirect.
 *
 * By default refused: loopback, link-local, private (RFC 1918, ULA, site-local), carrier-grade NAT, multicast,
 * broadcast, unspecified, documentation, benchmarking and reserved ranges, metadata addresses (169.254.169.254,
 * fd00:ec2::254), and every IPv6 form that embeds an IPv4 address that is refused (IPv4-mapped, IPv4-compatible, NAT64,
 * 6to4, Teredo). Lists are arrays of C strings ended by NULL; NULL is an empty list. Any thread once created;
 * immutable. */
#ifndef GATEHOUSE_HTTP_EGRESS_H
#define GATEHOUSE_HTTP_EGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "sdk/base/error.h"
#include "sdk/http/http_url.h"

struct sockaddr;
struct http_egress_policy;

struct http_egress_rules {
  const char *const *hosts; /* when not empty: only these hosts ("api.example.com", "*.example.com", an address) */
  const char *const *trusted_hosts; /* hosts that may resolve to addresses refused by default; "host" or "host:port" */
  const char *const *trusted_cidrs; /* addresses allowed though refused by default: "10.1.0.0/16", "::1/128" */
  const char *const *denied_cidrs;  /* refused whatever the other lists say */
  const uint16_t *ports;            /* when not empty (ended by 0): only these ports */
  bool https_only;                  /* refuse http */
  bool http_only;                   /* refuse https */
  bool allow_all_addresses;         /* no default refusals: for tests and closed networks; denied_cidrs still hold */
};

/* Copies the rules (NULL: the defaults). NULL with ERR_ARGUMENT_INVALID when a CIDR or host pattern cannot be read. */
struct http_egress_policy *http_egress_policy_create(const struct http_egress_rules *rules, struct error *err);
void http_egress_policy_free(struct http_egress_policy **policy); /* nulls; NULL-safe */

/* The URL alone: scheme, port, host lists, and the address when the host is one. ERR_HTTP_URL_BLOCKED. */
bool http_egress_check_url(const struct http_egress_policy *policy, const struct http_url *url, struct error *err);

/* An address about to be connected for that URL. ERR_HTTP_URL_BLOCKED. */
bool http_egress_check_address(const struct http_egress_policy *policy, const struct http_url *url,
                               const struct sockaddr *address, struct error *err);

#endif
