/* egress_test.c: RST-2: which URLs and which resolved addresses the policy lets through; and the URL helpers. */
#include "sdk/base/test.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "sdk/base/alloc.h"
#include "sdk/base/log.h"
#include "sdk/http/http_egress.h"

static bool url_allowed(const struct http_egress_policy *policy, const char *text) {
  struct http_url url;
  struct error err;
  if (!http_url_parse(text, &url, &err))
    return false;
  bool allowed = http_egress_check_url(policy, &url, &err);
  ck_assert(allowed || error_is(&err, ERR_HTTP_URL_BLOCKED));
  http_url_clear(&url);
  return allowed;
}

static bool address_allowed(const struct http_egress_policy *policy, const char *text, const char *address) {
  struct http_url url;
  ck_assert(http_url_parse(text, &url, NULL));
  struct sockaddr_in v4 = {.sin_family = AF_INET};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
  bool is_v4 = inet_pton(AF_INET, address, &v4.sin_addr) == 1;
  ck_assert(is_v4 || inet_pton(AF_INET6, address, &v6.sin6_addr) == 1);
  bool allowed = http_egress_check_address(policy, &url,
                                           is_v4 ? (const struct sockaddr *)&v4 : (const struct sockaddr *)&v6, NULL);
  http_url_clear(&url);
  return allowed;
}

static const struct {
  const char *address;
  bool allowed;
} addresses[] = {
    {"8.8.8.8", true},
    {"93.184.216.34", true},
    {"2606:4700::1111", true},
    {"2001:4860:4860::8888", true},
    {"127.0.0.1", false},
    {"127.255.0.9", false},
    {"0.0.0.0", false},
    {"0.1.2.3", false},
    {"10.0.0.1", false},
    {"172.16.0.1", false},
    {"172.31.255.255", false},
    {"172.32.0.1", true},
    {"192.168.1.1", false},
    {"169.254.169.254", false},
    {"169.254.0.1", false},
    {"100.64.0.1", false},
    {"100.127.255.255", false},
    {"100.128.0.1", true},
    {"192.0.0.192", false},
    {"198.18.0.1", false},
    {"224.0.0.1", false},
    {"255.255.255.255", false},
    {"240.0.0.1", false},
    {"::", false},
    {"::1", false},
    {"::ffff:127.0.0.1", false},
    {"::ffff:169.254.169.254", false},
    {"::ffff:8.8.8.8", true},
    {"::127.0.0.1", false},
    {"64:ff9b::10.0.0.1", false},
    {"64:ff9b::8.8.8.8", true},
    {"64:ff9b:1::1", false},
    {"2002:7f00:1::", false},
    {"2002:0808:0808::1", true},
    {"2001:0:1::1", false},
    {"fc00::1", false},
    {"fd00:ec2::254", false},
    {"fe80::1", false},
    {"fec0::1", false},
    {"ff02::1", false},
    {"2001:db8::1", false},
};

START_TEST(resolved_addresses_are_judged) {
  struct http_egress_policy *policy = http_egress_policy_create(NULL, NULL);
  for (size_t i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++)
    ck_assert_msg(address_allowed(policy, "http://name.example/", addresses[i].address) == addresses[i].allowed, "%s",
                  addresses[i].address);
  http_egress_policy_free(&policy);
}
END_TEST

static const struct {
  const char *url;
  bool allowed;
} urls[] = {
    {"https://api.example.com/", true},
    {"http://8.8.8.8/", true},
    {"http://127.0.0.1/", false},
    {"http://127.1/", false},
    {"http://0x7f.1/", false},
    {"http://0177.0.0.1/", false},
    {"http://2130706433/", false},
    {"http://[::1]/", false},
    {"http://[::ffff:7f00:1]/", false},
    {"http://[fe80::1%25eth0]/", false},
    {"http://169.254.169.254/latest/meta-data", false},
    {"ftp://8.8.8.8/", false},
    {"file:///etc/passwd", false},
    {"gopher://8.8.8.8/", false},
    {"http://", false},
    {"//8.8.8.8/", false},
    {"http://8.8.8.8:0/", false},
    {"http://8.8.8.8:99999/", false},
    {"http://a b/", false},
    {"http://a\\b/", false},
};

START_TEST(urls_are_judged) {
  struct http_egress_policy *policy = http_egress_policy_create(NULL, NULL);
  for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++)
    ck_assert_msg(url_allowed(policy, urls[i].url) == urls[i].allowed, "%s", urls[i].url);
  http_egress_policy_free(&policy);
}
END_TEST

START_TEST(lists_narrow_and_widen) {
  const char *hosts[] = {"*.example.com", "10.1.2.3", "internal", NULL};
  const char *trusted_hosts[] = {"internal:8080", NULL};
  const char *trusted[] = {"10.1.0.0/16", NULL};
  const char *denied[] = {"10.1.9.0/24", "93.184.216.34", NULL};
  uint16_t ports[] = {80, 443, 8080, 0};
  struct http_egress_rules rules = {
      .hosts = hosts, .trusted_hosts = trusted_hosts, .trusted_cidrs = trusted, .denied_cidrs = denied, .ports = ports};
  struct http_egress_policy *policy = http_egress_policy_create(&rules, NULL);
  ck_assert_ptr_nonnull(policy);
  ck_assert(url_allowed(policy, "http://a.example.com/"));
  ck_assert(url_allowed(policy, "http://A.Example.COM./"));
  ck_assert(!url_allowed(policy, "http://example.com/"));
  ck_assert(!url_allowed(policy, "http://evil-example.com/"));
  ck_assert(!url_allowed(policy, "http://a.example.com:81/"));
  ck_assert(url_allowed(policy, "http://10.1.2.3/"));
  ck_assert(address_allowed(policy, "http://a.example.com/", "10.1.2.3"));
  ck_assert(!address_allowed(policy, "http://a.example.com/", "10.2.0.1"));
  ck_assert(!address_allowed(policy, "http://a.example.com/", "10.1.9.1"));
  ck_assert(!address_allowed(policy, "http://a.example.com/", "93.184.216.34"));
  ck_assert(address_allowed(policy, "http://internal:8080/", "192.168.0.1"));
  ck_assert(!address_allowed(policy, "http://internal/", "192.168.0.1"));
  http_egress_policy_free(&policy);
}
END_TEST

START_TEST(https_only_and_bad_entries) {
  struct http_egress_policy *policy = http_egress_policy_create(&(struct http_egress_rules){.https_only = true}, NULL);
  ck_assert(url_allowed(policy, "https://a.example/"));
  ck_assert(!url_allowed(policy, "http://a.example/"));
  http_egress_policy_free(&policy);
  policy = http_egress_policy_create(&(struct http_egress_rules){.http_only = true}, NULL);
  ck_assert(url_allowed(policy, "http://a.example/"));
  ck_assert(!url_allowed(policy, "https://a.example/"));
  http_egress_policy_free(&policy);
  const char *bad[][2] = {{"10.0.0.0/33", NULL}, {"x", NULL}, {"1.2.3.4/", NULL}, {"::/129", NULL}};
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    struct error err;
    ck_assert_ptr_null(http_egress_policy_create(&(struct http_egress_rules){.trusted_cidrs = bad[i]}, &err));
    ck_assert(error_is(&err, ERR_ARGUMENT_INVALID));
  }
}
END_TEST

START_TEST(url_helpers) {
  struct http_url url;
  ck_assert(http_url_parse("HTTPS://Api.Example/x/../y?a=b", &url, NULL));
  ck_assert_str_eq(url.path, "/x/../y");
  ck_assert_str_eq(url.query, "a=b");
  char *origin = http_url_origin(&url);
  ck_assert_str_eq(origin, "https://api.example:443");
  base_free(origin);
  http_url_clear(&url);
  char *target = http_url_resolve("http://a.example/x/y?z", "../w", NULL);
  ck_assert_str_eq(target, "http://a.example/w");
  base_free(target);
  struct buf text = {0};
  buf_append_text(&text, "http://a/");
  http_url_encode(&text, "a/b ?\xc3\xa4", 7);
  http_url_query_append(&text, "k", "v&w");
  http_url_query_append(&text, "l", "1");
  ck_assert_str_eq(text.data, "http://a/a%2Fb%20%3F%C3%A4?k=v%26w&l=1");
  ck_assert(!http_url_segment_is_safe("..", 2) && !http_url_segment_is_safe("", 0) && http_url_segment_is_safe("a", 1));
  buf_free(&text);
}
END_TEST

TEST_MAIN("http.egress", resolved_addresses_are_judged, urls_are_judged, lists_narrow_and_widen,
          https_only_and_bad_entries, url_helpers)
