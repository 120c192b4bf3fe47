/* core_description_test.c: what a program of the core says of itself, and whether it can follow this one (LIF-10). */
#include "core/lifecycle/core_description.h"

#include <check.h>
#include <stdlib.h>

START_TEST(what_is_written_is_read) {
  const struct lifecycle_core_description written = {.version = "1.2.3-\"rc\"", .store_schema = 7};
  struct lifecycle_core_description read;
  struct buf line = {0};
  lifecycle_core_description_write(&written, &line);
  ck_assert_uint_lt(line.length, 256); /* the supervisor hands on no longer line */
  ck_assert(lifecycle_core_description_read(line.data, &read, NULL));
  ck_assert_str_eq(read.version, "1.2.3-\"rc\"");
  ck_assert_uint_eq(read.store_schema, 7);
  buf_free(&line);
}
END_TEST

static const struct {
  const char *line;
  bool good;
} lines[] = {
    {"{\"program\":\"gatehouse-core\",\"version\":\"2\",\"storeSchema\":4,\"later\":{\"x\":[1]}}", true},
    {"", false},
    {"gatehouse-core 0.1.0", false},
    {"[]", false},
    {"{\"program\":\"gatehouse-mcp\",\"version\":\"2\",\"storeSchema\":4}", false},
    {"{\"program\":\"gatehouse-core\",\"storeSchema\":4}", false},
    {"{\"program\":\"gatehouse-core\",\"version\":\"2\"}", false},
    {"{\"program\":\"gatehouse-core\",\"version\":\"2\",\"storeSchema\":0}", false},
    {"{\"program\":\"gatehouse-core\",\"version\":\"2\",\"storeSchema\":-1}", false},
    {"{\"program\":\"gatehouse-core\",\"version\":\"2\",\"storeSchema\":\"4\"}", false},
    {"{\"program\":\"gatehouse-core\",\"version\":\"2\",\"storeSchema\":99999999999999999999999999}", false},
    {"{\"program\":\"gatehouse-core\",\"version\":2,\"storeSchema\":4}", false},
    {"{\"program\":\"gatehouse-core\",\"version\":\"2\",\"storeSchema\":4", false},
};

START_TEST(only_a_core_describes_itself_as_one) {
  struct lifecycle_core_description read;
  struct error err = {0};
  ck_assert_int_eq(lifecycle_core_description_read(lines[_i].line, &read, &err), lines[_i].good);
  if (!lines[_i].good)
    ck_assert(error_is(&err, ERR_MODULE_PROGRAM));
}
END_TEST

static const struct {
  uint64_t now, next;
  bool no_rollback, good, final;
} schemas[] = {
    {3, 3, false, true, false},  {3, 3, true, true, false},  {3, 4, false, false, true}, {3, 4, true, true, true},
    {3, 2, false, false, false}, {3, 2, true, false, false}, {0, 9, false, true, false},
};

START_TEST(lif_10_a_program_that_changes_the_store_needs_the_operators_word) {
  struct error err = {0};
  bool final;
  ck_assert_int_eq(lifecycle_core_schema_fits(schemas[_i].now, schemas[_i].next, schemas[_i].no_rollback, &final, &err),
                   schemas[_i].good);
  ck_assert_int_eq(final, schemas[_i].final);
  if (!schemas[_i].good)
    ck_assert(error_is(&err, ERR_CORE_SCHEMA));
}
END_TEST

int main(void) {
  Suite *suite = suite_create("lifecycle.core_description");
  TCase *tests = tcase_create("core");
  tcase_add_test(tests, what_is_written_is_read);
  tcase_add_loop_test(tests, only_a_core_describes_itself_as_one, 0, sizeof(lines) / sizeof(lines[0]));
  tcase_add_loop_test(tests, lif_10_a_program_that_changes_the_store_needs_the_operators_word, 0,
                      sizeof(schemas) / sizeof(schemas[0]));
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_ENV);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
