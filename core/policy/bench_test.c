/* bench_test.c: SPI-2, SPI-5: what the hot path costs. Prints nanoseconds per call; the machine decides, so nothing but
 * the results of the calls is asserted. */
#include "core/policy/policy_test_support.h"
#include "sdk/base/clock.h"

#define ROUNDS 200000

static struct policy *policy;
static const char *header;
static char reference[POLICY_REFERENCE_LENGTH + 1];
static const struct policy_context *caller;

static bool bench_resolve(void) {
  const struct policy_context *context;
  struct policy_credentials credentials = presented(&header);
  return policy_resolve(policy, &credentials, &context, NULL);
}
static bool bench_find(void) {
  return policy_context_find(policy, "mcp", reference, POLICY_REFERENCE_LENGTH, NULL) != NULL;
}
static bool bench_see(void) {
  return policy_can_see(caller, &(struct policy_record_facts){POLICY_VISIBILITY_TEAM, "red", "o@x"});
}
static bool bench_may(void) {
  return policy_may(caller, "tools.execute", "red");
}
static bool bench_check(void) {
  return policy_check_access(caller, &(struct policy_record_facts){POLICY_VISIBILITY_TEAM, "red", "o@x"},
                             "tools.execute", NULL);
}
static bool bench_rate(void) {
  return policy_rate_take(policy, "tool:clock:user:dev@x", UINT32_MAX, UINT32_MAX, NULL, NULL);
}

static void bench(const char *name, bool (*call)(void)) {
  int succeeded = 0;
  int64_t start_us = clock_monotonic_us();
  for (int i = 0; i < ROUNDS; i++)
    succeeded += call();
  int64_t elapsed_us = clock_monotonic_us() - start_us;
  ck_assert_int_eq(succeeded, ROUNDS);
  printf("%-28s %6lld ns\n", name, (long long)(elapsed_us * 1000 / ROUNDS));
}

START_TEST(spi2_the_hot_path_is_measured) {
  policy = policy_create(&(struct policy_options){0}, NULL);
  people_put(policy);
  struct policy_token_request request = {.user_email = "dev@x",
                                         .teams = {POLICY_TEAMS_LIST, (const char *const[]){"red"}, 1}};
  struct made_token token = token_make(policy, request);
  header = token.header;
  caller = resolve(policy, header, ERR_NONE);
  str_copy(reference, sizeof(reference), caller->reference);
  bench("resolve, seen before", bench_resolve);
  bench("context by reference", bench_find);
  bench("visibility", bench_see);
  bench("permission", bench_may);
  bench("visibility and permission", bench_check);
  bench("rate limit", bench_rate);
  policy_free(&policy);
}
END_TEST

TEST_MAIN("core.policy.bench", spi2_the_hot_path_is_measured)
