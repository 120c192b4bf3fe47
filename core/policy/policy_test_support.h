/* policy_test_support.h: what the tests of this room share: a clock that stands still until it is moved, short ways to
 * declare users and tokens, and a JWT mint. Included by *_test.c only. */
#ifndef GATEHOUSE_CORE_POLICY_TEST_SUPPORT_H
#define GATEHOUSE_CORE_POLICY_TEST_SUPPORT_H

#include <openssl/hmac.h>
#include <stdio.h>
#include <string.h>

#include "core/policy/policy_internal.h"
#include "sdk/base/buf.h"
#include "sdk/base/test.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define NAMES(...) .ids = (const char *const[]){__VA_ARGS__}, .count = COUNT(((const char *const[]){__VA_ARGS__}))
#define JWT_KEY "0123456789abcdef0123456789abcdef"
/* 2026-07-28T10:00:00Z, a Tuesday. */
#define NOW_S INT64_C(1785232800)
#define SECOND_US INT64_C(1000000)

struct test_clock {
  int64_t wall_us;
  int64_t monotonic_us;
};

__attribute__((unused)) static int64_t test_wall(void *arg) {
  return ((struct test_clock *)arg)->wall_us;
}
__attribute__((unused)) static int64_t test_monotonic(void *arg) {
  return ((struct test_clock *)arg)->monotonic_us;
}

static struct test_clock test_clock = {NOW_S * SECOND_US, 5 * SECOND_US};
static const struct policy_clock test_policy_clock = {test_wall, test_monotonic, &test_clock};

__attribute__((unused)) static void clock_move_ms(int64_t ms) {
  test_clock.wall_us += ms * 1000;
  test_clock.monotonic_us += ms * 1000;
}

__attribute__((unused)) static struct policy *policy_start(struct policy_options options) {
  static const struct policy_jwt_key key = {.algorithm = "HS256", .key = JWT_KEY, .key_length = 32};
  struct error err = {0};
  options.clock = &test_policy_clock;
  if (options.jwt_keys == NULL) {
    options.jwt_keys = &key;
    options.jwt_key_count = 1;
  }
  struct policy *policy = policy_create(&options, &err);
  ck_assert_msg(policy != NULL, "%s: %s", err.code, err.message);
  return policy;
}

/* The people of the tests: an administrator, a developer of team red, and somebody with nothing. */
__attribute__((unused)) static void people_put(struct policy *policy) {
  ck_assert(policy_team_put(policy, "red", NULL) && policy_team_put(policy, "blue", NULL));
  ck_assert(policy_user_put(policy, &(struct policy_user){.email = "root@x", .is_admin = true}, NULL));
  ck_assert(policy_user_put(policy,
                            &(struct policy_user){
                                .email = "dev@x",
                                .teams = (const char *const[]){"red"},
                                .team_count = 1,
                                .roles = (const char *const[]){"platform_viewer"},
                                .role_count = 1,
                                .team_roles = (const struct policy_team_role[]){{"red", "developer"}},
                                .team_role_count = 1,
                            },
                            NULL));
  ck_assert(policy_user_put(policy, &(struct policy_user){.email = "none@x"}, NULL));
}

struct made_token {
  bool done;
  char id[64];
  char value[64];
  char header[96]; /* "Bearer …" */
  char code[ERROR_CODE_MAX];
};

__attribute__((unused)) static void token_made(void *arg, const struct policy_token_info *info,
                                               const struct secret *token, const struct error *err) {
  struct made_token *made = arg;
  made->done = true;
  if (err != NULL) {
    str_copy(made->code, sizeof(made->code), err->code);
    return;
  }
  str_copy(made->id, sizeof(made->id), info->token_id);
  str_copy(made->value, sizeof(made->value), secret_reveal(token));
  snprintf(made->header, sizeof(made->header), "Bearer %s", secret_reveal(token));
}

__attribute__((unused)) static struct made_token token_make(struct policy *policy,
                                                            struct policy_token_request request) {
  struct made_token made = {0};
  struct error err = {0};
  ck_assert_msg(policy_token_create(policy, &request, token_made, &made, &err), "%s", err.message);
  ck_assert(made.done);
  return made;
}

__attribute__((unused)) static struct policy_credentials presented(const char *const *header) {
  return (struct policy_credentials){.module_id = "mcp",
                                     .authorization = header,
                                     .authorization_count = 1,
                                     .client_address = "192.0.2.7",
                                     .protocol_family = "mcp"};
}

/* The context of a header, or NULL with the code that was expected. */
__attribute__((unused)) static const struct policy_context *resolve(struct policy *policy, const char *header,
                                                                    enum error_code code) {
  struct error err = {0};
  const struct policy_context *context = NULL;
  struct policy_credentials credentials = presented(&header);
  bool resolved = policy_resolve(policy, &credentials, &context, &err);
  ck_assert_msg(resolved == (code == ERR_NONE), "%s: %s", header, err.code);
  ck_assert_msg(resolved || error_is(&err, code), "%s: %s", header, err.code);
  ck_assert(resolved == (context != NULL));
  return context;
}

/* "<header>.<payload>.<HS256 with key>", encoded; caller frees. */
__attribute__((unused)) static char *jwt_mint(const char *header, const char *payload, const char *key) {
  char *first = str_base64url_encode((const uint8_t *)header, strlen(header));
  char *second = str_base64url_encode((const uint8_t *)payload, strlen(payload));
  char *input = base_asprintf("%s.%s", first, second);
  uint8_t mac[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  ck_assert_ptr_nonnull(
      HMAC(EVP_sha256(), key, (int)strlen(key), (const unsigned char *)input, strlen(input), mac, &length));
  char *third = str_base64url_encode(mac, length);
  char *token = base_asprintf("%s.%s", input, third);
  base_free(first);
  base_free(second);
  base_free(third);
  base_free(input);
  return token;
}

#endif
