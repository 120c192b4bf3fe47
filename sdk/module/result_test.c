/* result_test.c: what module_result_encode writes is what nanopb reads as an InvokeItem. */
#include "sdk/base/test.h"

#include <string.h>

#include "sdk/module/module_internal.h"
#include "sdk/wire/wire.h"

static const struct module_result results[] = {
    {0},
    {.content_json = "[]", .content_bytes = 2},
    {.content_json = "[1]", .content_bytes = 3, .is_error = true, .upstream_status = 503},
    {.content_json = "[{}]",
     .content_bytes = 4,
     .structured_json = "{\"a\":1}",
     .structured_bytes = 7,
     .upstream_status = 200,
     .upstream_duration_us = UINT64_MAX},
};

static void check(const struct module_result *result) {
  struct buf bytes = {0};
  core_common_v1_InvokeItem item = core_common_v1_InvokeItem_init_zero;
  module_result_encode(result, &bytes);
  ck_assert(wire_decode(core_common_v1_InvokeItem_fields, &item, bytes.data, bytes.length, NULL));
  ck_assert_int_eq(item.which_item, core_common_v1_InvokeItem_result_tag);
  const core_common_v1_InvokeResult *read = item.item.result;
  ck_assert_uint_eq(read->content_json ? strlen(read->content_json) : 0, result->content_bytes);
  ck_assert(!result->content_bytes || memcmp(read->content_json, result->content_json, result->content_bytes) == 0);
  ck_assert_uint_eq(read->structured_content_json ? strlen(read->structured_content_json) : 0,
                    result->structured_bytes);
  ck_assert(!result->structured_bytes ||
            memcmp(read->structured_content_json, result->structured_json, result->structured_bytes) == 0);
  ck_assert_int_eq(read->is_error, result->is_error);
  ck_assert_uint_eq(read->upstream_status, result->upstream_status);
  ck_assert_uint_eq(read->upstream_duration_us, result->upstream_duration_us);
  ck_assert(!read->meta_json && !read->usage);
  wire_release(core_common_v1_InvokeItem_fields, &item);
  buf_free(&bytes);
}

START_TEST(what_is_written_is_read) {
  for (size_t i = 0; i < sizeof(results) / sizeof(results[0]); i++)
    check(&results[i]);
}
END_TEST

START_TEST(length_prefixes_of_every_size_fit) {
  static const size_t lengths[] = {1, 127, 128, 16383, 16384, 2097151, 2097152};
  for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
    char *text = base_alloc(lengths[i]);
    memset(text, 'x', lengths[i]);
    check(&(struct module_result){.content_json = text,
                                  .content_bytes = lengths[i],
                                  .structured_json = text,
                                  .structured_bytes = lengths[i],
                                  .is_error = true});
    base_free(text);
  }
}
END_TEST

TEST_MAIN("module.result", what_is_written_is_read, length_prefixes_of_every_size_fit)
