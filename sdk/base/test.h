/* test.h: the frame of a Check unit test file. After the START_TEST … END_TEST cases write
 *
 *     TEST_MAIN("base.buf", case_one, case_two)
 *
 * Cases run in forked children (a crash fails one case only), 60 s each. Included by *_test.c only. */
#ifndef GATEHOUSE_BASE_TEST_H
#define GATEHOUSE_BASE_TEST_H

#include <check.h>
#include <stdlib.h>

#define TEST_MAIN(name_, ...)                                                                                          \
  int main(void) {                                                                                                     \
    const TTest *const tests_[] = {__VA_ARGS__};                                                                       \
    Suite *suite_ = suite_create(name_);                                                                               \
    TCase *tcase_ = tcase_create(name_);                                                                               \
    tcase_set_timeout(tcase_, 60);                                                                                     \
    for (size_t i_ = 0; i_ < sizeof(tests_) / sizeof(tests_[0]); i_++)                                                 \
      tcase_add_test(tcase_, tests_[i_]);                                                                              \
    suite_add_tcase(suite_, tcase_);                                                                                   \
    SRunner *runner_ = srunner_create(suite_);                                                                         \
    srunner_run_all(runner_, CK_NORMAL);                                                                               \
    int failed_ = srunner_ntests_failed(runner_);                                                                      \
    srunner_free(runner_);                                                                                             \
    return failed_ ? EXIT_FAILURE : EXIT_SUCCESS;                                                                      \
  }

#endif
