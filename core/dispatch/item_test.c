/* item_test.c: what the core reads out of an InvokeItem's bytes, also when they are hostile. */
#include <stdlib.h>
#include <string.h>

#include "core/dispatch/dispatch_internal.h"
#include "sdk/base/test.h"

static size_t pack(Core__Common__V1__InvokeItem *item, uint8_t *target) {
  return core__common__v1__invoke_item__pack(item, target);
}

START_TEST(a_result_is_seen_with_its_error_flag) {
  uint8_t bytes[512];
  for (int is_error = 0; is_error < 2; is_error++) {
    Core__Common__V1__InvokeItem item = CORE__COMMON__V1__INVOKE_ITEM__INIT;
    Core__Common__V1__InvokeResult result = CORE__COMMON__V1__INVOKE_RESULT__INIT;
    Core__Common__V1__Usage usage = CORE__COMMON__V1__USAGE__INIT;
    usage.input_tokens = 7;
    result.content_json.data = (uint8_t *)(uintptr_t) "[]";
    result.content_json.len = 2;
    result.is_error = is_error;
    result.structured_content_json.data = (uint8_t *)(uintptr_t) "{\"a\":1}";
    result.structured_content_json.len = is_error ? 0 : 7;
    result.usage = &usage;
    item.item_case = CORE__COMMON__V1__INVOKE_ITEM__ITEM_RESULT;
    item.result = &result;
    struct dispatch_item read = dispatch_item_read(bytes, pack(&item, bytes));
    ck_assert_int_eq(read.kind, DISPATCH_ITEM_RESULT);
    ck_assert_int_eq(read.is_error, is_error);
    ck_assert_uint_eq(read.structured_length, is_error ? 0 : 7);
    ck_assert(is_error || memcmp(read.structured, "{\"a\":1}", 7) == 0);
  }
}
END_TEST

START_TEST(other_items_are_told_apart) {
  uint8_t bytes[512];
  Core__Common__V1__InvokeItem item = CORE__COMMON__V1__INVOKE_ITEM__INIT;
  Core__Common__V1__InvokeProgress progress = CORE__COMMON__V1__INVOKE_PROGRESS__INIT;
  progress.progress = 0.5;
  item.item_case = CORE__COMMON__V1__INVOKE_ITEM__ITEM_PROGRESS;
  item.progress = &progress;
  ck_assert_int_eq(dispatch_item_read(bytes, pack(&item, bytes)).kind, 2);
  ck_assert_int_eq(dispatch_item_read(bytes, 0).kind, DISPATCH_ITEM_NONE);
}
END_TEST

START_TEST(damaged_bytes_are_malformed_and_never_read_past_the_end) {
  static const struct {
    const char *bytes;
    size_t length;
  } table[] = {
      {"\x32", 1},                                          /* a length is missing */
      {"\x32\x05\x18", 3},                                  /* shorter than its length */
      {"\x32\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 11}, /* an absurd length */
      {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 11}, /* a key without end */
      {"\x33", 1},                                          /* a group */
      {"\x32\x02\x1a\x7f", 4},                              /* damaged inside the result */
      {"\x09\x00", 2},                                      /* half a fixed64 */
  };
  for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
    /* On the heap, exactly as long: the sanitizer sees a byte too far. */
    uint8_t *exact = malloc(table[i].length);
    ck_assert_ptr_nonnull(exact);
    memcpy(exact, table[i].bytes, table[i].length);
    ck_assert_int_eq(dispatch_item_read(exact, table[i].length).kind, DISPATCH_ITEM_MALFORMED);
    free(exact);
  }
}
END_TEST

TEST_MAIN("dispatch item", a_result_is_seen_with_its_error_flag, other_items_are_told_apart,
          damaged_bytes_are_malformed_and_never_read_past_the_end)
