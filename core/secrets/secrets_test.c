/* secrets_test.c: SPI-14: sealed secrets open only where they belong, survive rotation, and never open when touched. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/secrets/secrets.h"
#include "sdk/base/alloc.h"
#include "sdk/base/io.h"
#include "sdk/base/test.h"

#define VALUE "sk-live-0123456789"
#define KEY_A "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define KEY_B "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"

static char folder[64], key_file[96];

static void folder_make(void) {
  strcpy(folder, "/tmp/gatehouse-secrets-XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(folder));
  snprintf(key_file, sizeof(key_file), "%s/master.key", folder);
}

static void folder_remove(void) {
  unlink(key_file);
  rmdir(folder);
}

static struct secrets *from_file(struct error *err) {
  return secrets_create(&(struct secrets_options){.key_file = key_file}, err);
}

static struct secrets *from_environment(const char *keys) {
  struct error err = {0};
  setenv("GATEHOUSE_TEST_KEY", keys, 1);
  struct secrets *secrets = secrets_create(&(struct secrets_options){.key_environment = "GATEHOUSE_TEST_KEY"}, &err);
  ck_assert_msg(secrets != NULL, "%s", err.message);
  return secrets;
}

static void assert_opens(const struct secrets *secrets, const struct buf *sealed) {
  struct error err = {0};
  struct secret *value = secrets_open(secrets, "tool:1", "token", sealed->data, sealed->length, &err);
  ck_assert_msg(value != NULL, "%s", err.message);
  ck_assert(secret_equal(value, VALUE, strlen(VALUE)));
  secret_free(&value);
}

static void assert_refused(const struct secrets *secrets, const char *owner, const char *name, const void *sealed,
                           size_t length, enum error_code code) {
  struct error err = {0};
  ck_assert_ptr_null(secrets_open(secrets, owner, name, sealed, length, &err));
  ck_assert_msg(error_is(&err, code), "%s", err.code);
}

static struct buf seal(const struct secrets *secrets) {
  struct buf sealed = {0};
  ck_assert(secrets_seal(secrets, "tool:1", "token", VALUE, strlen(VALUE), &sealed, NULL));
  return sealed;
}

START_TEST(spi14_a_sealed_secret_opens_and_shows_nothing) {
  struct secrets *secrets = from_environment(KEY_A);
  struct buf sealed = seal(secrets), again = seal(secrets);
  assert_opens(secrets, &sealed);
  ck_assert_ptr_null(memmem(sealed.data, sealed.length, VALUE, strlen(VALUE)));
  ck_assert_uint_eq(sealed.length, again.length);
  ck_assert_int_ne(memcmp(sealed.data, again.data, sealed.length), 0);
  buf_free(&sealed);
  buf_free(&again);
  secrets_free(&secrets);
}
END_TEST

START_TEST(spi14_an_empty_and_the_largest_value_survive) {
  struct secrets *secrets = from_environment(KEY_A);
  char *large = base_calloc(1, SECRETS_VALUE_MAX_BYTES + 1);
  const size_t lengths[] = {0, 1, SECRETS_VALUE_MAX_BYTES};
  for (size_t i = 0; i < 3; i++) {
    struct buf sealed = {0};
    ck_assert(secrets_seal(secrets, "o", "n", large, lengths[i], &sealed, NULL));
    struct secret *value = secrets_open(secrets, "o", "n", sealed.data, sealed.length, NULL);
    ck_assert_ptr_nonnull(value);
    ck_assert_uint_eq(secret_length(value), lengths[i]);
    secret_free(&value);
    buf_free(&sealed);
  }
  struct buf sealed = {0};
  struct error err = {0};
  ck_assert(!secrets_seal(secrets, "o", "n", large, SECRETS_VALUE_MAX_BYTES + 1, &sealed, &err));
  ck_assert(error_is(&err, ERR_ARGUMENT_TOO_LARGE));
  ck_assert(!secrets_seal(secrets, "", "n", large, 1, &sealed, &err));
  ck_assert(error_is(&err, ERR_ARGUMENT_MISSING));
  base_free(large);
  secrets_free(&secrets);
}
END_TEST

START_TEST(spi14_bytes_moved_to_another_record_or_name_do_not_open) {
  struct secrets *secrets = from_environment(KEY_A);
  struct buf sealed = seal(secrets);
  assert_refused(secrets, "tool:2", "token", sealed.data, sealed.length, ERR_SECRET_UNREADABLE);
  assert_refused(secrets, "tool:1", "other", sealed.data, sealed.length, ERR_SECRET_UNREADABLE);
  assert_refused(secrets, "tool:1t", "oken", sealed.data, sealed.length, ERR_SECRET_UNREADABLE);
  buf_free(&sealed);
  secrets_free(&secrets);
}
END_TEST

START_TEST(spi14_every_changed_bit_and_every_cut_is_noticed) {
  struct secrets *secrets = from_environment(KEY_A);
  struct buf sealed = seal(secrets);
  for (size_t i = 0; i < sealed.length * 8; i++) {
    sealed.data[i / 8] = (char)(sealed.data[i / 8] ^ (1 << (i % 8)));
    ck_assert_ptr_null(secrets_open(secrets, "tool:1", "token", sealed.data, sealed.length, NULL));
    sealed.data[i / 8] = (char)(sealed.data[i / 8] ^ (1 << (i % 8)));
  }
  for (size_t length = 0; length < sealed.length; length++)
    assert_refused(secrets, "tool:1", "token", sealed.data, length, ERR_SECRET_UNREADABLE);
  buf_append_char(&sealed, 'x');
  assert_refused(secrets, "tool:1", "token", sealed.data, sealed.length, ERR_SECRET_UNREADABLE);
  buf_free(&sealed);
  secrets_free(&secrets);
}
END_TEST

START_TEST(spi14_body_of_one_secret_under_the_wrap_of_another_does_not_open) {
  struct secrets *secrets = from_environment(KEY_A);
  struct buf one = seal(secrets), two = seal(secrets);
  memcpy(one.data, two.data, 72);
  assert_refused(secrets, "tool:1", "token", one.data, one.length, ERR_SECRET_UNREADABLE);
  buf_free(&one);
  buf_free(&two);
  secrets_free(&secrets);
}
END_TEST

START_TEST(spi14_key_file_is_made_once_with_mode_0600_and_used_again) {
  folder_make();
  struct secrets *secrets = from_file(NULL);
  ck_assert_ptr_nonnull(secrets);
  struct stat facts;
  ck_assert_int_eq(stat(key_file, &facts), 0);
  ck_assert_uint_eq(facts.st_mode & 07777, 0600);
  struct buf sealed = seal(secrets);
  secrets_free(&secrets);
  secrets = from_file(NULL);
  assert_opens(secrets, &sealed);
  buf_free(&sealed);
  secrets_free(&secrets);
  folder_remove();
}
END_TEST

START_TEST(spi14_key_file_that_is_open_to_others_or_malformed_is_refused) {
  static const struct {
    const char *text;
    mode_t mode;
  } rows[] = {
      {"gatehouse-key-v1 " KEY_A "\n", 0640}, {"gatehouse-key-v1 " KEY_A "\n", 0604},
      {"gatehouse-key-v1 " KEY_A "\n", 0700}, {"", 0600},
      {"gatehouse-key-v1 " KEY_A, 0600},      {"gatehouse-key-v2 " KEY_A "\n", 0600},
      {"gatehouse-key-v1 AAAA\n", 0600},      {"gatehouse-key-v1 " KEY_A "\ngatehouse-key-v1 " KEY_A "\n", 0600},
  };
  folder_make();
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    struct error err = {0};
    ck_assert(io_write_file_atomic(key_file, rows[i].text, strlen(rows[i].text), rows[i].mode, NULL));
    ck_assert_ptr_null(from_file(&err));
    ck_assert_msg(error_is(&err, ERR_SECRET_KEY), "row %zu: %s", i, err.code);
  }
  unlink(key_file);
  ck_assert_int_eq(symlink("/dev/zero", key_file), 0);
  struct error err = {0};
  ck_assert_ptr_null(from_file(&err));
  ck_assert(error_is(&err, ERR_SECRET_KEY));
  folder_remove();
}
END_TEST

START_TEST(spi14_without_any_key_source_nothing_starts) {
  struct error err = {0};
  unsetenv("GATEHOUSE_TEST_KEY");
  ck_assert_ptr_null(secrets_create(&(struct secrets_options){.key_environment = "GATEHOUSE_TEST_KEY"}, &err));
  ck_assert(error_is(&err, ERR_SECRET_KEY));
  setenv("GATEHOUSE_TEST_KEY", "short", 1);
  ck_assert_ptr_null(secrets_create(&(struct secrets_options){.key_environment = "GATEHOUSE_TEST_KEY"}, &err));
  ck_assert(error_is(&err, ERR_SECRET_KEY));
}
END_TEST

START_TEST(spi14_rotation_keeps_secrets_readable_and_retiring_ends_the_old_key) {
  folder_make();
  struct secrets *secrets = from_file(NULL);
  char before[SECRETS_KEY_ID_BYTES], after[SECRETS_KEY_ID_BYTES];
  secrets_key_id(secrets, before);
  struct buf old = seal(secrets), fresh = {0}, none = {0};
  ck_assert(secrets_key_rotate(secrets, NULL));
  secrets_key_id(secrets, after);
  ck_assert_str_ne(before, after);
  assert_opens(secrets, &old);

  bool changed;
  ck_assert(secrets_rotate(secrets, "tool:1", "token", old.data, old.length, &fresh, &changed, NULL));
  ck_assert(changed);
  assert_opens(secrets, &fresh);
  ck_assert(secrets_rotate(secrets, "tool:1", "token", fresh.data, fresh.length, &none, &changed, NULL));
  ck_assert(!changed && none.length == 0);
  ck_assert(!secrets_rotate(secrets, "tool:2", "token", old.data, old.length, &none, &changed, NULL));
  old.data[old.length - 1] ^= 1;
  ck_assert(!secrets_rotate(secrets, "tool:1", "token", old.data, old.length, &none, &changed, NULL));
  old.data[old.length - 1] ^= 1;

  ck_assert(secrets_key_retire(secrets, NULL));
  assert_opens(secrets, &fresh);
  assert_refused(secrets, "tool:1", "token", old.data, old.length, ERR_SECRET_KEY_UNKNOWN);
  secrets_free(&secrets);
  secrets = from_file(NULL); /* what is on disk is what was used */
  assert_opens(secrets, &fresh);
  assert_refused(secrets, "tool:1", "token", old.data, old.length, ERR_SECRET_KEY_UNKNOWN);
  buf_free(&old);
  buf_free(&fresh);
  secrets_free(&secrets);
  folder_remove();
}
END_TEST

START_TEST(spi14_rotation_that_cannot_be_written_changes_nothing) {
  folder_make();
  struct secrets *secrets = from_file(NULL);
  struct buf sealed = seal(secrets);
  char before[SECRETS_KEY_ID_BYTES], after[SECRETS_KEY_ID_BYTES];
  secrets_key_id(secrets, before);
  folder_remove(); /* the folder is gone: also root cannot write there */
  struct error err = {0};
  ck_assert(!secrets_key_rotate(secrets, &err));
  ck_assert(error_is(&err, ERR_IO));
  secrets_key_id(secrets, after);
  ck_assert_str_eq(before, after);
  assert_opens(secrets, &sealed);
  buf_free(&sealed);
  secrets_free(&secrets);
}
END_TEST

START_TEST(spi14_keys_from_the_environment_rotate_by_order) {
  struct secrets *secrets = from_environment(KEY_A);
  struct buf sealed = seal(secrets), fresh = {0};
  struct error err = {0};
  bool changed;
  ck_assert(!secrets_key_rotate(secrets, &err) && error_is(&err, ERR_UNSUPPORTED));
  secrets_free(&secrets);
  secrets = from_environment(KEY_B "," KEY_A);
  ck_assert(secrets_rotate(secrets, "tool:1", "token", sealed.data, sealed.length, &fresh, &changed, NULL) && changed);
  secrets_free(&secrets);
  secrets = from_environment(KEY_B);
  assert_opens(secrets, &fresh);
  assert_refused(secrets, "tool:1", "token", sealed.data, sealed.length, ERR_SECRET_KEY_UNKNOWN);
  buf_free(&sealed);
  buf_free(&fresh);
  secrets_free(&secrets);
}
END_TEST

TEST_MAIN("core.secrets", spi14_a_sealed_secret_opens_and_shows_nothing, spi14_an_empty_and_the_largest_value_survive,
          spi14_bytes_moved_to_another_record_or_name_do_not_open, spi14_every_changed_bit_and_every_cut_is_noticed,
          spi14_body_of_one_secret_under_the_wrap_of_another_does_not_open,
          spi14_key_file_is_made_once_with_mode_0600_and_used_again,
          spi14_key_file_that_is_open_to_others_or_malformed_is_refused, spi14_without_any_key_source_nothing_starts,
          spi14_rotation_keeps_secrets_readable_and_retiring_ends_the_old_key,
          spi14_rotation_that_cannot_be_written_changes_nothing, spi14_keys_from_the_environment_rotate_by_order)
