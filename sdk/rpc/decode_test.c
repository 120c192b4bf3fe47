/* decode_test.c: the one walk and nanopb's decoder accept and refuse the same bytes and find the same in them, for
 * every kind of field, whole, cut short anywhere and damaged anywhere. */
#include "sdk/base/test.h"

#include <pb_decode.h>
#include <pb_encode.h>

#include "sdk/rpc/rpc_internal.h"
#include "sdk/rpc/rpc_test_message.h"

static void encode(struct buf *out, const Tree *tree) {
  size_t size = 0;
  ck_assert(pb_get_encoded_size(&size, &Tree_msg, tree));
  pb_ostream_t stream = pb_ostream_from_buffer((pb_byte_t *)buf_reserve(out, size), size);
  ck_assert(pb_encode(&stream, &Tree_msg, tree));
  out->length += size;
}

/* True: both accepted it, and found the same. */
static bool check(const void *bytes, size_t length) {
  Tree tree = {0}, other = {0};
  struct buf found = {0}, expected = {0};
  struct arena *arena = arena_create(64);
  uint8_t *exact = base_alloc(length + 1); /* so that a sanitizer sees a read beyond */
  uint8_t *data = base_realloc_array(exact, length > 0 ? length : 1, 1);
  memcpy(data, bytes, length);
  pb_istream_t stream = pb_istream_from_buffer(data, length);
  bool accepted = pb_decode(&stream, &Tree_msg, &other);
  ck_assert_int_eq(rpc_message_decode(data, length, &Tree_msg, &tree, arena, NULL), accepted);
  if (accepted) {
    encode(&found, &tree);
    encode(&expected, &other);
    ck_assert_uint_eq(found.length, expected.length);
    ck_assert(found.length == 0 || memcmp(found.data, expected.data, found.length) == 0);
    pb_release(&Tree_msg, &other);
  }
  buf_free(&found);
  buf_free(&expected);
  base_free(data);
  arena_free(&arena);
  return accepted;
}

static void full_encode(struct buf *out) {
  char long_text[200];
  memset(long_text, 'y', sizeof(long_text));
  long_text[199] = 0;
  char *texts[] = {"one", "", long_text, "four"};
  uint64_t numbers[] = {1, 300, UINT64_MAX, 0, 5, 6, 7, 8, 9, 10};
  uint32_t fixed[] = {1, 0xfffffffeu};
  PB_BYTES_ARRAY_T(5) bytes = {5, {0, 1, 2, 0xff, 4}};
  pb_bytes_array_t *pieces[] = {(pb_bytes_array_t *)&bytes, (pb_bytes_array_t *)&bytes};
  Leaf leaf = {.text = long_text, .number = 7}, leaves[] = {{.text = "l"}, leaf, {.text = ""}};
  Rare rare = {.share = 0.5F, .has_number = true, .number = 0};
  Tree inner = {
      .leaf = &leaf, .u32 = 7, .texts_count = 1, .texts = texts, .which_choice = 13, .choice.chosen_flag = true};
  encode(out, &(Tree){.u32 = UINT32_MAX,
                      .i32 = -5,
                      .i64 = INT64_MIN,
                      .flag = true,
                      .kind = 3,
                      .bytes = (pb_bytes_array_t *)&bytes,
                      .leaf = &leaf,
                      .tree = &inner,
                      .texts_count = 4,
                      .texts = texts,
                      .leaves_count = 3,
                      .leaves = leaves,
                      .which_choice = 11,
                      .choice.chosen_leaf = &leaf,
                      .ratio = -0.25,
                      .pieces_count = 2,
                      .pieces = pieces,
                      .rare = &rare,
                      .numbers_count = 10,
                      .numbers = numbers,
                      .fixed_count = 2,
                      .fixed = fixed});
}

START_TEST(every_kind_of_field_is_read) {
  struct buf bytes = {0};
  full_encode(&bytes);
  ck_assert(check(bytes.data, bytes.length));
  full_encode(&bytes); /* twice: what is single is replaced, what is repeated goes on */
  ck_assert(check(bytes.data, bytes.length));
  buf_free(&bytes);
}
END_TEST

START_TEST(a_message_cut_short_is_judged_alike) {
  struct buf bytes = {0};
  full_encode(&bytes);
  size_t accepted = 0;
  for (size_t length = 0; length <= bytes.length; length++)
    accepted += check(bytes.data, length);
  ck_assert_uint_gt(accepted, 10);
  ck_assert_uint_lt(accepted, bytes.length / 4);
  buf_free(&bytes);
}
END_TEST

START_TEST(a_damaged_message_is_judged_alike) {
  static const uint8_t damage[] = {0x00, 0x01, 0x02, 0x07, 0x0a, 0x5a, 0x62, 0x68, 0x7f, 0x80, 0xe2, 0xff};
  struct buf bytes = {0};
  full_encode(&bytes);
  size_t accepted = 0;
  for (size_t i = 0; i < bytes.length; i++)
    for (size_t k = 0; k < sizeof(damage); k++) {
      char before = bytes.data[i];
      bytes.data[i] = (char)damage[k];
      accepted += check(bytes.data, bytes.length);
      bytes.data[i] = before;
    }
  ck_assert_uint_gt(accepted, 100);
  buf_free(&bytes);
}
END_TEST

START_TEST(single_oddities_are_judged_alike) {
  static const struct {
    const char *bytes;
    size_t length;
    bool accepted;
  } rows[] = {
      {"", 0, true},
      {"\x00\x00", 2, false},                                     /* tag 0 */
      {"\xba\x7d\x01x", 4, true},                                 /* unknown, a text */
      {"\xbb\x7d", 2, false},                                     /* unknown, a group */
      {"\x08\x81\x80\x80\x80\x80\x01", 7, false},                 /* beyond 32 bits */
      {"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, true}, /* int32 -1 */
      {"\x10\x81\x80\x80\x80\x80\x01", 7, true},                  /* int32 cut to its low bits */
      {"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 11, false},
      {"\x20\x02", 2, true}, /* a bool above 1 */
      {"\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, false},
      {"\x0a\x01x", 3, false}, /* a number as a text */
      {"\x32\x05"
       "abc",
       5, false},                            /* beyond the end */
      {"\x42\x80\x80\x80\x80\x00", 6, true}, /* a long zero */
      {"\x62\x02"
       "ab\x62\x01z\x5a\x00\x68\x01",
       11, true},                             /* one of several, several times */
      {"\x5a\x03\x0a\x01q\x5a\x00", 7, true}, /* a later one replaces, and is not merged */
      {"\x3a\x03\x0a\x01q\x3a\x00", 7, true},
      {"\x4a\x01"
       "a\x08\x01\x4a\x01"
       "b\x52\x00\x4a\x01"
       "c",
       13, true},                                                 /* an array in pieces */
      {"\xe0\x12\x05\xe2\x12\x02\x01\x02\xe0\x12\x07", 11, true}, /* packed and not */
      {"\x4a\x03"
       "a\0b",
       5, true}, /* a NUL cuts a text */
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
    ck_assert_msg(check(rows[i].bytes, rows[i].length) == rows[i].accepted, "row %zu", i);
}
END_TEST

/* The counts of a message end at 65535, and memory grows with the message, however its items are mixed. */
START_TEST(arrays_end_where_counts_do) {
  for (size_t count = 65534; count <= 65536; count++) {
    struct buf bytes = {0};
    for (size_t i = 0; i < count; i++)
      buf_append(&bytes, "\x4a\x00\x08\x01", 4);
#ifndef __SANITIZE_ADDRESS__ /* where nanopb, which grows an array by one, copies it each time: minutes */
    ck_assert_int_eq(check(bytes.data, bytes.length), count <= PB_SIZE_MAX);
#endif
    Tree tree = {0};
    struct arena *arena = arena_create(0);
    ck_assert_int_eq(rpc_message_decode((uint8_t *)bytes.data, bytes.length, &Tree_msg, &tree, arena, NULL),
                     count <= PB_SIZE_MAX);
    ck_assert_uint_lt(arena_size_bytes(arena), 3 * count * sizeof(char *) + 2 * bytes.length);
    arena_free(&arena);
    buf_free(&bytes);
  }
}
END_TEST

TEST_MAIN("rpc.decode", every_kind_of_field_is_read, a_message_cut_short_is_judged_alike,
          a_damaged_message_is_judged_alike, single_oddities_are_judged_alike, arrays_end_where_counts_do)
