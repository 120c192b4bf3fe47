/* known_test.c: programs by version, in a directory of this test. */
#include "core/lifecycle/known.h"

#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sdk/base/io.h"
#include "sdk/base/test.h"

static char folder[] = "known_test_XXXXXX";

static void lay(const char *name, mode_t mode) {
  char path[128];
  snprintf(path, sizeof(path), "%s/%s", folder, name);
  ck_assert(io_write_file_atomic(path, "x", 1, mode, NULL));
  ck_assert_int_eq(chmod(path, mode), 0);
}

static int entry_remove(const char *path, const struct stat *status, int kind, struct FTW *walk) {
  (void)status, (void)kind, (void)walk;
  return remove(path);
}

static void folder_remove(void) {
  ck_assert_int_eq(nftw(folder, entry_remove, 8, FTW_DEPTH | FTW_PHYS), 0);
}

static void lay_folder(const char *name) {
  char path[128];
  snprintf(path, sizeof(path), "%s/%s", folder, name);
  ck_assert_int_eq(mkdir(path, 0755), 0);
}

static struct lifecycle_known scanned(void) {
  struct lifecycle_known known = {0};
  lifecycle_known_scan(&known, folder, "gatehouse-mcp");
  lifecycle_known_sort(&known);
  return known;
}

START_TEST(both_forms_of_the_directory_are_found_and_nothing_else_lif_9) {
  static const char *const versions[] = {"1.2", "1.9", "1.10", "2.0-rc1"};
  ck_assert_ptr_nonnull(mkdtemp(folder));
  lay("gatehouse-mcp-1.10", 0755);
  lay("gatehouse-mcp-2.0-rc1", 0755);
  lay("gatehouse-mcp-.hidden", 0755);
  lay("gatehouse-mcp", 0755);
  lay("gatehouse-mcp-3.0", 0644); /* not to be executed */
  lay("gatehouse-rest-4.0", 0755);
  lay_folder("1.9");
  lay("1.9/gatehouse-mcp", 0755);
  lay_folder("1.2");
  lay("1.2/gatehouse-mcp", 0700);
  lay("1.2/gatehouse-rest", 0755);
  lay_folder("5.0");
  const struct lifecycle_known known = scanned();
  ck_assert_uint_eq(known.count, sizeof(versions) / sizeof(versions[0]));
  for (size_t i = 0; i < known.count; i++)
    ck_assert_str_eq(known.items[i].version, versions[i]);
  ck_assert_ptr_nonnull(strstr(known.items[0].program, "/1.2/gatehouse-mcp"));
  folder_remove();
}
END_TEST

START_TEST(an_unknown_version_is_told_those_that_there_are) {
  struct lifecycle_known known = {0};
  struct error err = {0};
  ck_assert_ptr_null(lifecycle_known_find(&known, "7", &err));
  ck_assert_str_eq(err.message, "there is no version \"7\"; there are: none");
  lifecycle_known_add(&known, "1.10", "/a", NULL);
  lifecycle_known_add(&known, "1.9", "", NULL);
  lifecycle_known_add(&known, "1.9", "/b", NULL);
  lifecycle_known_sort(&known);
  ck_assert_ptr_null(lifecycle_known_find(&known, "7", &err));
  ck_assert(error_is(&err, ERR_MODULE_VERSION_UNKNOWN));
  ck_assert_str_eq(err.message, "there is no version \"7\"; there are: 1.9, 1.10");
}
END_TEST

START_TEST(a_version_of_several_programs_is_told_them) {
  struct lifecycle_known known = {0};
  struct error err = {0};
  lifecycle_known_add(&known, "1.9", "", NULL);
  lifecycle_known_add(&known, "1.9", "/b/gatehouse-mcp", NULL);
  ck_assert_ptr_null(lifecycle_known_find(&known, "1.9", &err));
  ck_assert(error_is(&err, ERR_MODULE_VERSION_AMBIGUOUS));
  ck_assert_str_eq(err.message, "several programs are version 1.9: the configured program, /b/gatehouse-mcp");
}
END_TEST

START_TEST(one_file_under_two_names_is_one_program) {
  struct lifecycle_known known = {0};
  char path[128], other[128];
  ck_assert_ptr_nonnull(mkdtemp(folder));
  lay("gatehouse-mcp-1.0", 0755);
  lay_folder("1.0");
  snprintf(path, sizeof(path), "%s/gatehouse-mcp-1.0", folder);
  snprintf(other, sizeof(other), "%s/1.0/gatehouse-mcp", folder);
  ck_assert_int_eq(link(path, other), 0);
  lifecycle_known_add(&known, "1.0", "", path);
  lifecycle_known_scan(&known, folder, "gatehouse-mcp");
  ck_assert_uint_eq(known.count, 1);
  ck_assert_str_eq(lifecycle_known_find(&known, "1.0", NULL)->program, "");
  folder_remove();
}
END_TEST

START_TEST(what_is_no_version_or_not_there_is_not_known) {
  struct lifecycle_known known = {0};
  static const char *const bad[] = {"", "..", "-1", "a/b", "a b", "a\nb"};
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
    lifecycle_known_add(&known, bad[i], "/p", NULL);
  lifecycle_known_add(&known, "1.0", "/nowhere/p", "/nowhere/p");
  lifecycle_known_add(&known, "1.0", "/", "/");
  lifecycle_known_scan(&known, "/nowhere", "p");
  lifecycle_known_scan(&known, "", "p");
  ck_assert_uint_eq(known.count, 0);
}
END_TEST

TEST_MAIN("known", both_forms_of_the_directory_are_found_and_nothing_else_lif_9,
          an_unknown_version_is_told_those_that_there_are, a_version_of_several_programs_is_told_them,
          one_file_under_two_names_is_one_program, what_is_no_version_or_not_there_is_not_known)
