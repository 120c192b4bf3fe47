/* encode_test.c: one walk and nanopb's encoder write the same bytes, for every kind of field and for lengths on both
 * sides of where a length takes another byte. */
#include "sdk/base/test.h"

#include <pb_encode.h>

#include "sdk/rpc/rpc_internal.h"
#include "sdk/rpc/rpc_test_message.h"

/* A kind that only this walk knows: one of several, and not by a pointer. */
typedef struct _Inline {
  pb_size_t which_choice;
  union {
    char *text;
    Leaf leaf;
  } choice;
} Inline;
#define Inline_FIELDLIST(X, a)                                                                                         \
  X(a, POINTER, ONEOF, STRING, (choice, text, choice.text), 1)                                                         \
  X(a, STATIC, ONEOF, MESSAGE, (choice, leaf, choice.leaf), 2)
#define Inline_CALLBACK NULL
#define Inline_DEFAULT NULL
#define Inline_choice_leaf_MSGTYPE Leaf
PB_BIND(Inline, Inline, AUTO)

/* Both ways behind something that stands there already; known: whether the one walk knows every field. */
static void check_fields(const pb_msgdesc_t *fields, const void *message, bool known) {
  size_t size = 0;
  struct buf target = {0};
  ck_assert(pb_get_encoded_size(&size, fields, message));
  uint8_t *expected = base_alloc(size + 1);
  pb_ostream_t stream = pb_ostream_from_buffer(expected, size);
  ck_assert(pb_encode(&stream, fields, message));
  buf_append_text(&target, "before");
  ck_assert_int_eq(rpc_message_append(&target, fields, message), known);
  ck_assert_uint_eq(target.length, known ? 6 + size : 6);
  ck_assert_mem_eq(target.data, "before", 6);
  if (known)
    ck_assert(memcmp(target.data + 6, expected, size) == 0);
  target.length = 6;
  ck_assert(rpc_frame_append_message(&target, fields, message));
  ck_assert_uint_eq(target.length, 6 + RPC_PREFIX_BYTES + size);
  ck_assert(memcmp(target.data + 6 + RPC_PREFIX_BYTES, expected, size) == 0);
  size_t framed;
  ck_assert_int_eq(rpc_frame_parse((const uint8_t *)target.data + 6, target.length - 6, SIZE_MAX, &framed),
                   RPC_FRAME_COMPLETE);
  ck_assert_uint_eq(framed, size);
  base_free(expected);
  buf_free(&target);
}

static void check(const Tree *tree, bool known) {
  check_fields(&Tree_msg, tree, known);
}

START_TEST(numbers_are_the_same) {
  static const uint64_t values[] = {0, 1, 127, 128, 16383, 16384, INT32_MAX, UINT32_MAX, INT64_MAX, UINT64_MAX};
  for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
    Leaf leaf = {.number = values[i]};
    check(&(Tree){.u32 = (uint32_t)values[i],
                  .i32 = (int32_t)values[i],
                  .i64 = (int64_t)values[i],
                  .flag = values[i] & 1,
                  .kind = (uint32_t)values[i] & 7,
                  .leaf = &leaf},
          true);
  }
  check(&(Tree){.i32 = -1, .i64 = INT64_MIN}, true);
  check(&(Tree){.ratio = 0.1}, true);
  check(&(Tree){.ratio = -0.0}, true);
}
END_TEST

START_TEST(lengths_are_the_same_whatever_they_take) {
  static const size_t lengths[] = {0,   1,   100, 118, 119,   120,   121,   122,   123,   124,    125,
                                   126, 127, 128, 129, 16370, 16380, 16383, 16384, 16385, 2097152};
  for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
    char *text = base_calloc(1, lengths[i] + 1);
    memset(text, 'x', lengths[i]);
    Leaf leaf = {.text = text, .number = 7}, two[] = {leaf, {.number = 1}};
    Tree inner = {.leaf = &leaf, .u32 = 5}, middle = {.tree = &inner, .leaves_count = 2, .leaves = two};
    check(&(Tree){.tree = &middle, .i32 = 3}, true);
    base_free(text);
  }
}
END_TEST

START_TEST(what_is_absent_empty_or_repeated_is_the_same) {
  char *texts[] = {"one", NULL, "", "four"};
  Leaf leaf = {.text = "", .number = 2}, leaves[] = {{0}, {.text = "a"}};
  PB_BYTES_ARRAY_T(5) bytes = {5, {0, 1, 2, 0xff, 4}};
  check(&(Tree){0}, true);
  check(&(Tree){.texts_count = 4, .texts = texts, .leaves_count = 2, .leaves = leaves, .leaf = &leaf}, true);
  check(&(Tree){.bytes = (pb_bytes_array_t *)&bytes}, true);
  check(&(Tree){.texts_count = 2, .leaves_count = 1}, true); /* counted, and not there */
}
END_TEST

START_TEST(one_of_several_is_the_same) {
  Leaf leaf = {.text = "chosen", .number = 2};
  check(&(Tree){.which_choice = 11, .choice.chosen_leaf = &leaf}, true);
  check(&(Tree){.which_choice = 11}, true);
  check(&(Tree){.which_choice = 12, .choice.chosen_text = "chosen"}, true);
  check_fields(&Inline_msg, &(Inline){.which_choice = 2, .choice.leaf = leaf}, true);
}
END_TEST

START_TEST(other_kinds_of_fields_are_left_to_nanopb) {
  uint64_t numbers[] = {1, 300, 0};
  Tree inner = {.numbers_count = 3, .numbers = numbers};
  check(&(Tree){.u32 = 9, .tree = &inner}, false);
  check(&(Tree){.numbers_count = 3, .numbers = numbers, .u32 = 9}, false);
  check(&(Tree){.which_choice = 13, .choice.chosen_flag = true}, false);
  check(&(Tree){.rare = &(Rare){.share = 0.5F}}, false);
}
END_TEST

TEST_MAIN("rpc.encode", numbers_are_the_same, lengths_are_the_same_whatever_they_take,
          what_is_absent_empty_or_repeated_is_the_same, one_of_several_is_the_same,
          other_kinds_of_fields_are_left_to_nanopb)
