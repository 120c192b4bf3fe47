/* encode_test.c: one walk and nanopb's encoder write the same bytes, for every kind of field and for lengths on both
 * sides of where a length takes another byte. */
#include "sdk/base/test.h"

#include <pb_encode.h>

#include "sdk/rpc/rpc_internal.h"

typedef struct _Leaf {
  char *text;
  uint64_t number;
} Leaf;
#define Leaf_FIELDLIST(X, a) X(a, POINTER, SINGULAR, STRING, text, 1) X(a, STATIC, SINGULAR, UINT64, number, 20)
#define Leaf_CALLBACK NULL
#define Leaf_DEFAULT NULL
PB_BIND(Leaf, Leaf, AUTO)

typedef struct _Tree {
  uint32_t u32;
  int32_t i32;
  int64_t i64;
  bool flag;
  uint32_t kind;
  pb_bytes_array_t *bytes;
  struct _Leaf *leaf;
  struct _Tree *tree;
  pb_size_t texts_count;
  char **texts;
  pb_size_t leaves_count;
  struct _Leaf *leaves;
  pb_size_t which_choice;
  union {
    struct _Leaf *chosen_leaf;
    char *chosen_text;
    struct _Leaf chosen_inline;
  } choice;
  double ratio;
  pb_size_t numbers_count;
  uint64_t *numbers;
} Tree;
#define Tree_FIELDLIST(X, a)                                                                                           \
  X(a, STATIC, SINGULAR, UINT32, u32, 1)                                                                               \
  X(a, STATIC, SINGULAR, INT32, i32, 2)                                                                                \
  X(a, STATIC, SINGULAR, INT64, i64, 3)                                                                                \
  X(a, STATIC, SINGULAR, BOOL, flag, 4)                                                                                \
  X(a, STATIC, SINGULAR, UENUM, kind, 5)                                                                               \
  X(a, POINTER, SINGULAR, BYTES, bytes, 6)                                                                             \
  X(a, POINTER, OPTIONAL, MESSAGE, leaf, 7)                                                                            \
  X(a, POINTER, OPTIONAL, MESSAGE, tree, 8)                                                                            \
  X(a, POINTER, REPEATED, STRING, texts, 9)                                                                            \
  X(a, POINTER, REPEATED, MESSAGE, leaves, 10)                                                                         \
  X(a, POINTER, ONEOF, MESSAGE, (choice, chosen_leaf, choice.chosen_leaf), 11)                                         \
  X(a, POINTER, ONEOF, STRING, (choice, chosen_text, choice.chosen_text), 12)                                          \
  X(a, STATIC, ONEOF, MESSAGE, (choice, chosen_inline, choice.chosen_inline), 13)                                      \
  X(a, STATIC, SINGULAR, DOUBLE, ratio, 14)                                                                            \
  X(a, POINTER, REPEATED, UINT64, numbers, 300)
#define Tree_CALLBACK NULL
#define Tree_DEFAULT NULL
#define Tree_leaf_MSGTYPE Leaf
#define Tree_tree_MSGTYPE Tree
#define Tree_leaves_MSGTYPE Leaf
#define Tree_choice_chosen_leaf_MSGTYPE Leaf
#define Tree_choice_chosen_inline_MSGTYPE Leaf
extern const pb_msgdesc_t Tree_msg;
PB_BIND(Tree, Tree, 2)

/* Both ways behind something that stands there already; known: whether the one walk knows every field. */
static void check(const Tree *tree, bool known) {
  size_t size = 0;
  struct buf target = {0};
  ck_assert(pb_get_encoded_size(&size, &Tree_msg, tree));
  uint8_t *expected = base_alloc(size + 1);
  pb_ostream_t stream = pb_ostream_from_buffer(expected, size);
  ck_assert(pb_encode(&stream, &Tree_msg, tree));
  buf_append_text(&target, "before");
  ck_assert_int_eq(rpc_message_append(&target, &Tree_msg, tree), known);
  ck_assert_uint_eq(target.length, known ? 6 + size : 6);
  ck_assert_mem_eq(target.data, "before", 6);
  if (known)
    ck_assert(memcmp(target.data + 6, expected, size) == 0);
  target.length = 6;
  ck_assert(rpc_frame_append_message(&target, &Tree_msg, tree));
  ck_assert_uint_eq(target.length, 6 + RPC_PREFIX_BYTES + size);
  ck_assert(memcmp(target.data + 6 + RPC_PREFIX_BYTES, expected, size) == 0);
  size_t framed;
  ck_assert_int_eq(rpc_frame_parse((const uint8_t *)target.data + 6, target.length - 6, SIZE_MAX, &framed),
                   RPC_FRAME_COMPLETE);
  ck_assert_uint_eq(framed, size);
  base_free(expected);
  buf_free(&target);
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
  check(&(Tree){.which_choice = 13, .choice.chosen_inline = leaf}, true);
}
END_TEST

START_TEST(other_kinds_of_fields_are_left_to_nanopb) {
  uint64_t numbers[] = {1, 300, 0};
  Tree inner = {.numbers_count = 3, .numbers = numbers};
  check(&(Tree){.u32 = 9, .tree = &inner}, false);
  check(&(Tree){.numbers_count = 3, .numbers = numbers, .u32 = 9}, false);
}
END_TEST

TEST_MAIN("rpc.encode", numbers_are_the_same, lengths_are_the_same_whatever_they_take,
          what_is_absent_empty_or_repeated_is_the_same, one_of_several_is_the_same,
          other_kinds_of_fields_are_left_to_nanopb)
