/* jwt_test.c: SPI-19: what a JWT must be, one attack a row; then the same through policy_resolve. */
#include <openssl/ecdsa.h>
#include <openssl/pem.h>

#include "core/policy/policy_test_support.h"

#define HEAD "{\"alg\":\"HS256\",\"typ\":\"JWT\"}"
#define EXP "\"exp\":1785236400"
#define GOOD "{\"sub\":\"dev@x\",\"jti\":\"j1\"," EXP ",\"teams\":[\"red\"]}"
#define CLAIMS(more) "{\"sub\":\"dev@x\",\"jti\":\"j1\"," EXP more "}"

static struct jwt_verifier *verifier(const struct policy_options *options) {
  static const struct policy_jwt_key key = {.algorithm = "HS256", .key = JWT_KEY, .key_length = 32};
  struct policy_options full = *options;
  if (full.jwt_keys == NULL) {
    full.jwt_keys = &key;
    full.jwt_key_count = 1;
  }
  struct error err = {0};
  struct jwt_verifier *made = jwt_verifier_create(&full, &err);
  ck_assert_msg(made != NULL, "%s", err.message);
  return made;
}

static bool verifies(const struct jwt_verifier *with, const char *token, size_t length) {
  struct arena *arena = arena_create(0);
  struct jwt_claims claims;
  bool accepted = jwt_verify(with, token, length, NOW_S * SECOND_US, arena, &claims);
  arena_free(&arena);
  return accepted;
}

static const struct {
  const char *row;
  const char *header;
  const char *payload;
  bool accepted;
} rows[] = {
    {"good", HEAD, GOOD, true},
    {"no typ", "{\"alg\":\"HS256\"}", GOOD, true},
    {"typ at+jwt", "{\"alg\":\"HS256\",\"typ\":\"at+jwt\"}", GOOD, true},
    {"typ jwt in lower case", "{\"alg\":\"HS256\",\"typ\":\"jwt\"}", GOOD, true},
    {"e-mail instead of sub", HEAD, "{\"email\":\"dev@x\",\"jti\":\"j1\"," EXP "}", true},
    {"e-mail in user", HEAD, "{\"user\":{\"email\":\"dev@x\"},\"jti\":\"j1\"," EXP "}", true},
    {"fractional exp", HEAD, "{\"sub\":\"dev@x\",\"jti\":\"j1\",\"exp\":1785236400.5}", true},
    {"nbf and iat within the skew", HEAD, CLAIMS(",\"nbf\":1785232830,\"iat\":1785232830"), true},

    {"alg none", "{\"alg\":\"none\"}", GOOD, false},
    {"alg None", "{\"alg\":\"None\"}", GOOD, false},
    {"alg empty", "{\"alg\":\"\"}", GOOD, false},
    {"alg missing", "{\"typ\":\"JWT\"}", GOOD, false},
    {"alg null", "{\"alg\":null}", GOOD, false},
    {"alg list", "{\"alg\":[\"HS256\"]}", GOOD, false},
    {"alg in lower case", "{\"alg\":\"hs256\"}", GOOD, false},
    {"alg HS512 with an HS256 signature", "{\"alg\":\"HS512\"}", GOOD, false},
    {"alg RS256 with an HS256 signature", "{\"alg\":\"RS256\"}", GOOD, false},
    {"alg twice", "{\"alg\":\"HS256\",\"alg\":\"HS256\"}", GOOD, false},
    {"alg twice, once escaped", "{\"alg\":\"HS256\",\"\\u0061lg\":\"none\"}", GOOD, false},
    {"unknown kid", "{\"alg\":\"HS256\",\"kid\":\"k9\"}", GOOD, false},
    {"empty kid", "{\"alg\":\"HS256\",\"kid\":\"\"}", GOOD, false},
    {"kid path", "{\"alg\":\"HS256\",\"kid\":\"../../dev/null\"}", GOOD, false},
    {"kid null", "{\"alg\":\"HS256\",\"kid\":null}", GOOD, false},
    {"typ of something else", "{\"alg\":\"HS256\",\"typ\":\"JWE\"}", GOOD, false},
    {"crit", "{\"alg\":\"HS256\",\"crit\":[\"exp\"]}", GOOD, false},
    {"embedded key", "{\"alg\":\"HS256\",\"jwk\":{\"kty\":\"oct\",\"k\":\"AA\"}}", GOOD, false},
    {"key by URL", "{\"alg\":\"HS256\",\"jku\":\"https://attacker.example\"}", GOOD, false},
    {"compressed", "{\"alg\":\"HS256\",\"zip\":\"DEF\"}", GOOD, false},
    {"header is no object", "[\"HS256\"]", GOOD, false},
    {"header is no JSON", "alg=HS256", GOOD, false},
    {"header with something behind", HEAD "x", GOOD, false},

    {"payload is no object", HEAD, "[]", false},
    {"payload empty object", HEAD, "{}", false},
    {"duplicate claim", HEAD, CLAIMS(",\"sub\":\"root@x\""), false},
    {"duplicate claim, escaped", HEAD, CLAIMS(",\"s\\u0075b\":\"root@x\""), false},
    {"duplicate claim inside", HEAD, CLAIMS(",\"user\":{\"is_admin\":false,\"is_admin\":true}"), false},
    {"exp missing", HEAD, "{\"sub\":\"dev@x\",\"jti\":\"j1\"}", false},
    {"exp now", HEAD, "{\"sub\":\"dev@x\",\"jti\":\"j1\",\"exp\":1785232800}", false},
    {"exp in the past, within the skew", HEAD, "{\"sub\":\"dev@x\",\"jti\":\"j1\",\"exp\":1785232799}", false},
    {"exp as text", HEAD, "{\"sub\":\"dev@x\",\"jti\":\"j1\",\"exp\":\"1785236400\"}", false},
    {"exp negative", HEAD, "{\"sub\":\"dev@x\",\"jti\":\"j1\",\"exp\":-1}", false},
    {"exp beyond all time", HEAD, "{\"sub\":\"dev@x\",\"jti\":\"j1\",\"exp\":1e300}", false},
    {"exp null", HEAD, "{\"sub\":\"dev@x\",\"jti\":\"j1\",\"exp\":null}", false},
    {"jti missing", HEAD, "{\"sub\":\"dev@x\"," EXP "}", false},
    {"jti empty", HEAD, "{\"sub\":\"dev@x\",\"jti\":\"\"," EXP "}", false},
    {"jti as number", HEAD, "{\"sub\":\"dev@x\",\"jti\":1," EXP "}", false},
    {"nbf beyond the skew", HEAD, CLAIMS(",\"nbf\":1785232831"), false},
    {"iat beyond the skew", HEAD, CLAIMS(",\"iat\":1785232831"), false},
    {"nbf as text", HEAD, CLAIMS(",\"nbf\":\"0\""), false},
    {"nobody", HEAD, "{\"jti\":\"j1\"," EXP "}", false},
    {"sub empty", HEAD, "{\"sub\":\"\",\"jti\":\"j1\"," EXP "}", false},
    {"sub null does not fall back", HEAD, "{\"sub\":null,\"email\":\"dev@x\",\"jti\":\"j1\"," EXP "}", false},
    {"sub with a NUL", HEAD, "{\"sub\":\"dev@x\\u0000y\",\"jti\":\"j1\"," EXP "}", false},
    {"sub with a line break", HEAD, "{\"sub\":\"dev@x\\n\",\"jti\":\"j1\"," EXP "}", false},
    {"token_use as number", HEAD, CLAIMS(",\"token_use\":1"), false},
    {"scopes not understood", HEAD, CLAIMS(",\"scopes\":{\"until\":\"noon\"}"), false},
};

START_TEST(spi19_only_a_strict_jwt_is_accepted) {
  struct jwt_verifier *with = verifier(&(struct policy_options){0});
  for (size_t i = 0; i < COUNT(rows); i++) {
    char *token = jwt_mint(rows[i].header, rows[i].payload, JWT_KEY);
    ck_assert_msg(verifies(with, token, strlen(token)) == rows[i].accepted, "row: %s", rows[i].row);
    base_free(token);
  }
  jwt_verifier_free(&with);
}
END_TEST

START_TEST(spi19_a_changed_cut_or_reshaped_token_is_refused) {
  struct jwt_verifier *with = verifier(&(struct policy_options){0});
  char *token = jwt_mint(HEAD, GOOD, JWT_KEY);
  size_t length = strlen(token);
  ck_assert(verifies(with, token, length));
  for (size_t i = 0; i < length; i++) {
    char kept = token[i];
    token[i] = kept == 'A' ? 'B' : 'A';
    ck_assert_msg(!verifies(with, token, length), "changed at %zu", i);
    token[i] = kept;
  }
  for (size_t cut = 0; cut < length; cut++)
    ck_assert(!verifies(with, token, cut));
  char *other = jwt_mint(HEAD, GOOD, "another key of at least 32 bytes");
  ck_assert(!verifies(with, other, strlen(other)));
  static const char *const shapes[] = {"%s.", ".%s", "%s.AAAA", "%s=", "%s==", "%s ", "%s\n"};
  for (size_t i = 0; i < COUNT(shapes); i++) {
    struct buf shaped = {0};
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    buf_printf(&shaped, shapes[i], token);
#pragma GCC diagnostic pop
    ck_assert_msg(!verifies(with, shaped.data, shaped.length), "shape %s", shapes[i]);
    buf_free(&shaped);
  }
  *strrchr(token, '.') = '\0'; /* signature stripped, with and without its dot */
  ck_assert(!verifies(with, token, strlen(token)));
  token[strlen(token)] = '.';
  ck_assert(!verifies(with, token, (size_t)(strrchr(token, '.') - token) + 1));
  base_free(other);
  base_free(token);
  jwt_verifier_free(&with);
}
END_TEST

START_TEST(spi19_a_token_beyond_8_kib_is_refused) {
  struct jwt_verifier *with = verifier(&(struct policy_options){0});
  for (int large = 0; large < 2; large++) {
    struct buf payload = {0};
    buf_append_text(&payload, "{\"sub\":\"dev@x\",\"jti\":\"j1\"," EXP ",\"note\":\"");
    for (int i = 0; i < (large ? 6200 : 5800); i++)
      buf_append_char(&payload, 'n');
    buf_append_text(&payload, "\"}");
    char *token = jwt_mint(HEAD, payload.data, JWT_KEY);
    ck_assert((strlen(token) > POLICY_CREDENTIAL_MAX_BYTES) == (large == 1));
    ck_assert_int_eq(verifies(with, token, strlen(token)), large == 0);
    base_free(token);
    buf_free(&payload);
  }
  jwt_verifier_free(&with);
}
END_TEST

START_TEST(spi19_deep_nesting_is_refused) {
  struct jwt_verifier *with = verifier(&(struct policy_options){0});
  struct buf payload = {0};
  buf_append_text(&payload, "{\"sub\":\"dev@x\",\"jti\":\"j1\"," EXP ",\"deep\":");
  for (int i = 0; i < 1500; i++)
    buf_append_char(&payload, '[');
  for (int i = 0; i < 1500; i++)
    buf_append_char(&payload, ']');
  buf_append_char(&payload, '}');
  char *token = jwt_mint(HEAD, payload.data, JWT_KEY);
  ck_assert(!verifies(with, token, strlen(token)));
  base_free(token);
  buf_free(&payload);
  jwt_verifier_free(&with);
}
END_TEST

START_TEST(spi19_issuer_and_audience_count_when_configured) {
  static const struct {
    const char *claims;
    bool accepted;
  } wanted[] = {
      {CLAIMS(",\"iss\":\"us\",\"aud\":\"gate\""), true},
      {CLAIMS(",\"iss\":\"us\",\"aud\":[\"x\",\"gate\"]"), true},
      {CLAIMS(",\"iss\":\"us\",\"aud\":[]"), false},
      {CLAIMS(",\"iss\":\"us\",\"aud\":[{\"gate\":1},null]"), false},
      {CLAIMS(",\"iss\":\"us\",\"aud\":\"gates\""), false},
      {CLAIMS(",\"iss\":\"us\""), false},
      {CLAIMS(",\"aud\":\"gate\""), false},
      {CLAIMS(",\"iss\":[\"us\"],\"aud\":\"gate\""), false},
      {CLAIMS(",\"iss\":\"them\",\"aud\":\"gate\""), false},
  };
  struct jwt_verifier *with = verifier(&(struct policy_options){.jwt_issuer = "us", .jwt_audience = "gate"});
  for (size_t i = 0; i < COUNT(wanted); i++) {
    char *token = jwt_mint(HEAD, wanted[i].claims, JWT_KEY);
    ck_assert_msg(verifies(with, token, strlen(token)) == wanted[i].accepted, "%s", wanted[i].claims);
    base_free(token);
  }
  jwt_verifier_free(&with);
}
END_TEST

START_TEST(spi19_keys_are_chosen_by_kid_alone) {
  static const struct policy_jwt_key keys[] = {
      {"k1", "HS256", JWT_KEY, 32},
      {"k2", "HS256", "second key, also long enough: 32 b", 34},
  };
  struct jwt_verifier *with = verifier(&(struct policy_options){.jwt_keys = keys, .jwt_key_count = 2});
  char *one = jwt_mint("{\"alg\":\"HS256\",\"kid\":\"k1\"}", GOOD, JWT_KEY);
  char *crossed = jwt_mint("{\"alg\":\"HS256\",\"kid\":\"k2\"}", GOOD, JWT_KEY);
  char *without = jwt_mint("{\"alg\":\"HS256\"}", GOOD, JWT_KEY);
  ck_assert(verifies(with, one, strlen(one)));
  ck_assert(!verifies(with, crossed, strlen(crossed)));
  ck_assert(!verifies(with, without, strlen(without)));
  base_free(one);
  base_free(crossed);
  base_free(without);
  jwt_verifier_free(&with);
}
END_TEST

START_TEST(spi19_weak_or_ambiguous_keys_stop_the_start) {
  static const struct policy_jwt_key bad[][2] = {
      {{NULL, "HS256", JWT_KEY, 31}, {0}},
      {{NULL, "none", JWT_KEY, 32}, {0}},
      {{NULL, NULL, JWT_KEY, 32}, {0}},
      {{NULL, "HS256", NULL, 0}, {0}},
      {{"a b", "HS256", JWT_KEY, 32}, {0}},
      {{"k", "HS256", JWT_KEY, 32}, {"k", "HS256", JWT_KEY, 32}},
      {{"k", "HS256", JWT_KEY, 32}, {NULL, "HS256", JWT_KEY, 32}},
  };
  for (size_t i = 0; i < COUNT(bad); i++) {
    struct error err = {0};
    size_t count = bad[i][1].algorithm == NULL ? 1 : 2;
    ck_assert_ptr_null(policy_create(&(struct policy_options){.jwt_keys = bad[i], .jwt_key_count = count}, &err));
    ck_assert_msg(error_is(&err, ERR_CONFIG_VALUE), "row %zu: %s", i, err.code);
  }
}
END_TEST

struct pair {
  const char *algorithm;
  const char *type;
  const char *detail; /* curve, or NULL */
  size_t bits;
};

static EVP_PKEY *pair_make(const struct pair *pair) {
  if (pair->bits > 0)
    return EVP_PKEY_Q_keygen(NULL, NULL, pair->type, pair->bits);
  return pair->detail != NULL ? EVP_PKEY_Q_keygen(NULL, NULL, pair->type, pair->detail)
                              : EVP_PKEY_Q_keygen(NULL, NULL, pair->type);
}

static char *pair_pem(EVP_PKEY *pair) {
  BIO *target = BIO_new(BIO_s_mem());
  char *data;
  ck_assert_int_eq(PEM_write_bio_PUBKEY(target, pair), 1);
  long length = BIO_get_mem_data(target, &data);
  char *pem = base_strndup(data, (size_t)length);
  BIO_free(target);
  return pem;
}

static char *pair_sign(EVP_PKEY *pair, const char *algorithm) {
  char *head = base_asprintf("{\"alg\":\"%s\"}", algorithm);
  char *draft = jwt_mint(head, GOOD, JWT_KEY);
  *strrchr(draft, '.') = '\0';
  uint8_t signature[512], raw[64];
  const uint8_t *bytes = signature;
  size_t length = sizeof(signature);
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  const EVP_MD *digest = strcmp(algorithm, "EdDSA") == 0 ? NULL : EVP_sha256();
  ck_assert_int_eq(EVP_DigestSignInit(context, NULL, digest, NULL, pair), 1);
  ck_assert_int_eq(EVP_DigestSign(context, signature, &length, (const uint8_t *)draft, strlen(draft)), 1);
  EVP_MD_CTX_free(context);
  if (strcmp(algorithm, "ES256") == 0) {
    const uint8_t *der = signature;
    ECDSA_SIG *two = d2i_ECDSA_SIG(NULL, &der, (long)length);
    ck_assert_ptr_nonnull(two);
    BN_bn2binpad(ECDSA_SIG_get0_r(two), raw, 32);
    BN_bn2binpad(ECDSA_SIG_get0_s(two), raw + 32, 32);
    ECDSA_SIG_free(two);
    bytes = raw;
    length = sizeof(raw);
  }
  char *last = str_base64url_encode(bytes, length);
  char *token = base_asprintf("%s.%s", draft, last);
  base_free(head);
  base_free(draft);
  base_free(last);
  return token;
}

static const struct pair pairs[] = {
    {"RS256", "RSA", NULL, 2048}, {"ES256", "EC", "P-256", 0}, {"EdDSA", "ED25519", NULL, 0}};

START_TEST(spi19_key_pairs_verify_and_a_public_key_is_no_shared_key) {
  for (size_t i = 0; i < COUNT(pairs); i++) {
    EVP_PKEY *pair = pair_make(&pairs[i]), *stranger = pair_make(&pairs[i]);
    ck_assert(pair != NULL && stranger != NULL);
    char *pem = pair_pem(pair);
    const struct policy_jwt_key key = {NULL, pairs[i].algorithm, pem, strlen(pem)};
    struct jwt_verifier *with = verifier(&(struct policy_options){.jwt_keys = &key, .jwt_key_count = 1});
    char *good = pair_sign(pair, pairs[i].algorithm), *forged = pair_sign(stranger, pairs[i].algorithm);
    char *confused = jwt_mint("{\"alg\":\"HS256\"}", GOOD, pem); /* the public key as an HMAC key */
    ck_assert_msg(verifies(with, good, strlen(good)), "%s", pairs[i].algorithm);
    ck_assert_msg(!verifies(with, forged, strlen(forged)), "%s", pairs[i].algorithm);
    ck_assert_msg(!verifies(with, confused, strlen(confused)), "%s", pairs[i].algorithm);
    ck_assert(!verifies(with, good, strlen(good) - 2));
    jwt_verifier_free(&with);
    for (size_t k = 0; k < COUNT(pairs) + 1; k++) { /* a key of one type for another algorithm */
      const struct policy_jwt_key wrong = {NULL, k < COUNT(pairs) ? pairs[k].algorithm : "HS256", pem, strlen(pem)};
      if (k != i)
        ck_assert_ptr_null(jwt_verifier_create(&(struct policy_options){.jwt_keys = &wrong, .jwt_key_count = 1}, NULL));
    }
    base_free(good);
    base_free(forged);
    base_free(confused);
    base_free(pem);
    EVP_PKEY_free(pair);
    EVP_PKEY_free(stranger);
  }
}
END_TEST

START_TEST(spi19_weak_key_pairs_stop_the_start) {
  static const struct pair weak[] = {
      {"RS256", "RSA", NULL, 1024}, {"ES256", "EC", "P-384", 0}, {"EdDSA", "X25519", NULL, 0}};
  for (size_t i = 0; i < COUNT(weak); i++) {
    EVP_PKEY *pair = pair_make(&weak[i]);
    char *pem = pair_pem(pair);
    const struct policy_jwt_key key = {NULL, weak[i].algorithm, pem, strlen(pem)};
    struct error err = {0};
    ck_assert_ptr_null(jwt_verifier_create(&(struct policy_options){.jwt_keys = &key, .jwt_key_count = 1}, &err));
    ck_assert(error_is(&err, ERR_CONFIG_VALUE));
    base_free(pem);
    EVP_PKEY_free(pair);
  }
}
END_TEST

static char *bearer(const char *payload) {
  char *token = jwt_mint(HEAD, payload, JWT_KEY);
  char *header = base_asprintf("Bearer %s", token);
  base_free(token);
  return header;
}

START_TEST(spi19_a_jwt_caller_has_the_roles_and_teams_of_its_record) {
  static const struct {
    const char *claims;
    bool null;
    size_t teams;
    bool executes;
  } callers[] = {
      {CLAIMS(",\"teams\":[\"red\",\"blue\"]"), false, 1, true}, /* blue: no member */
      {CLAIMS(",\"teams\":[]"), false, 0, false},
      {CLAIMS(""), false, 0, false},
      {CLAIMS(",\"teams\":null"), false, 0, false},
      {CLAIMS(",\"teams\":null,\"is_admin\":true"), true, 0, true}, /* the directory's teams count */
      {CLAIMS(",\"token_use\":\"session\""), false, 1, true},
      {"{\"sub\":\"who@x\",\"jti\":\"j1\"," EXP ",\"teams\":[\"red\"]}", false, 0, false},
  };
  struct policy *policy = policy_start((struct policy_options){0});
  people_put(policy);
  for (size_t i = 0; i < COUNT(callers); i++) {
    char *header = bearer(callers[i].claims);
    const struct policy_context *context = resolve(policy, header, ERR_NONE);
    ck_assert_int_eq(context->method, POLICY_AUTH_JWT);
    ck_assert_str_eq(context->token_id, "j1");
    ck_assert(!context->is_admin);
    ck_assert_msg((context->teams.kind == POLICY_TEAMS_NULL) == callers[i].null, "%s", callers[i].claims);
    ck_assert_msg(context->teams.count == callers[i].teams, "%s", callers[i].claims);
    ck_assert_msg(policy_may(context, "tools.execute", "red") == callers[i].executes, "%s", callers[i].claims);
    ck_assert(!policy_may(context, "tools.execute", "blue"));
    base_free(header);
  }
  policy_free(&policy);
}
END_TEST

START_TEST(spi19_a_revoked_jwt_is_refused_at_once) {
  struct policy *policy = policy_start((struct policy_options){0});
  people_put(policy);
  char *header = bearer(GOOD), *other = bearer("{\"sub\":\"dev@x\",\"jti\":\"j2\"," EXP "}");
  const struct policy_context *context = policy_context_hold(resolve(policy, header, ERR_NONE));
  const struct policy_context *kept = policy_context_hold(resolve(policy, other, ERR_NONE));
  ck_assert(policy_jwt_revoke(policy, "j1", 0, NULL, NULL, NULL));
  ck_assert(!policy_context_is_alive(policy, context));
  ck_assert(policy_context_is_alive(policy, kept));
  resolve(policy, header, ERR_AUTH_TOKEN_INVALID);
  struct error err = {0};
  ck_assert(!policy_jwt_revoke(policy, "", 0, NULL, NULL, &err) && error_is(&err, ERR_ARGUMENT_INVALID));
  policy_context_release(&context);
  policy_context_release(&kept);
  base_free(header);
  base_free(other);
  policy_free(&policy);
}
END_TEST

START_TEST(spi3_a_jwt_context_ends_with_the_token) {
  struct policy *policy = policy_start((struct policy_options){0});
  people_put(policy);
  char *header = bearer("{\"sub\":\"dev@x\",\"jti\":\"j1\",\"exp\":1785232805}");
  ck_assert_int_eq(resolve(policy, header, ERR_NONE)->expires_at_ms, (NOW_S + 5) * 1000);
  clock_move_ms(5000);
  resolve(policy, header, ERR_AUTH_TOKEN_INVALID);
  base_free(header);
  policy_free(&policy);
}
END_TEST

TEST_MAIN("core.policy.jwt", spi19_only_a_strict_jwt_is_accepted, spi19_a_changed_cut_or_reshaped_token_is_refused,
          spi19_a_token_beyond_8_kib_is_refused, spi19_deep_nesting_is_refused,
          spi19_issuer_and_audience_count_when_configured, spi19_keys_are_chosen_by_kid_alone,
          spi19_weak_or_ambiguous_keys_stop_the_start, spi19_key_pairs_verify_and_a_public_key_is_no_shared_key,
          spi19_weak_key_pairs_stop_the_start, spi19_a_jwt_caller_has_the_roles_and_teams_of_its_record,
          spi19_a_revoked_jwt_is_refused_at_once, spi3_a_jwt_context_ends_with_the_token)
