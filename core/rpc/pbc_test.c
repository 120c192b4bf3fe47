/* pbc_test.c: bounded decoding of protobuf-c messages, against a message type that contains itself. */
#include "core/rpc/core_rpc_pbc.h"

#include <stddef.h>
#include <string.h>

#include "core/rpc/protobuf.h"
#include "sdk/base/alloc.h"
#include "sdk/base/test.h"

struct node {
  ProtobufCMessage base;
  struct node *child;
  size_t many_count;
  struct node **many;
};

static const ProtobufCMessageDescriptor node_descriptor;
static const ProtobufCFieldDescriptor node_fields[] = {
    {.name = "child",
     .id = 1,
     .label = PROTOBUF_C_LABEL_NONE,
     .type = PROTOBUF_C_TYPE_MESSAGE,
     .offset = offsetof(struct node, child),
     .descriptor = &node_descriptor},
    {.name = "many",
     .id = 2,
     .label = PROTOBUF_C_LABEL_REPEATED,
     .type = PROTOBUF_C_TYPE_MESSAGE,
     .quantifier_offset = offsetof(struct node, many_count),
     .offset = offsetof(struct node, many),
     .descriptor = &node_descriptor},
};
static const unsigned node_indices[] = {0, 1};
static const ProtobufCIntRange node_ranges[] = {{1, 0}, {0, 2}};
static const ProtobufCMessageDescriptor node_descriptor = {.magic = PROTOBUF_C__MESSAGE_DESCRIPTOR_MAGIC,
                                                           .name = "Node",
                                                           .short_name = "Node",
                                                           .c_name = "Node",
                                                           .package_name = "",
                                                           .sizeof_message = sizeof(struct node),
                                                           .n_fields = 2,
                                                           .fields = node_fields,
                                                           .fields_sorted_by_name = node_indices,
                                                           .n_field_ranges = 1,
                                                           .field_ranges = node_ranges};

/* A node in a node in a node …, `levels` deep, with so many bytes of an unknown field in the innermost. */
static struct buf nested(unsigned levels, size_t padding) {
  struct buf inner = {0};
  char *zeros = base_calloc(1, padding + 1);
  if (padding > 0)
    protobuf_put_bytes(&inner, 9, zeros, padding);
  base_free(zeros);
  for (unsigned i = 0; i < levels; i++) {
    struct buf outer = {0};
    protobuf_put_bytes(&outer, 1, inner.data, inner.length);
    buf_free(&inner);
    inner = outer;
  }
  return inner;
}

START_TEST(nesting_is_bounded_whatever_the_length) {
  static const struct {
    unsigned levels;
    size_t padding;
    bool accepted;
  } rows[] = {{0, 0, true},    {1, 0, true},     {60, 0, true},     {60, 3000, true},
              {200, 0, false}, {200, 10, false}, {10000, 0, false}, {10000, 5000, false}};
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    struct buf bytes = nested(rows[i].levels, rows[i].padding);
    struct arena *arena = arena_create(0);
    const struct node *node =
        (const struct node *)core_rpc_unpack(&node_descriptor, arena, (const uint8_t *)bytes.data, bytes.length);
    ck_assert_msg((node != NULL) == rows[i].accepted, "row %zu", i);
    unsigned depth = 0;
    for (; node != NULL && node->child != NULL; node = node->child)
      depth++;
    ck_assert_uint_eq(depth, rows[i].accepted ? rows[i].levels : 0);
    arena_free(&arena);
    buf_free(&bytes);
  }
}
END_TEST

START_TEST(a_small_message_cannot_become_a_huge_one) {
  enum { BYTES = 4 << 20 };
  uint8_t *bytes = base_alloc(BYTES);
  for (size_t i = 0; i < BYTES; i += 2) { /* two million empty nodes of 48 bytes and more each */
    bytes[i] = 2 << 3 | 2;
    bytes[i + 1] = 0;
  }
  struct arena *arena = arena_create(0);
  ck_assert_ptr_null(core_rpc_unpack(&node_descriptor, arena, bytes, BYTES));
  ck_assert_uint_lt(arena_size_bytes(arena), 128u << 20);
  arena_free(&arena);
  base_free(bytes);
}
END_TEST

START_TEST(damaged_bytes_are_refused) {
  static const struct {
    const char *bytes;
    size_t length;
  } rows[] = {
      {"\x0a", 1}, {"\x0a\x05", 2}, {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 11}, {"\x0a\x02\x0a\x05", 4}};
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    struct arena *arena = arena_create(0);
    ck_assert_ptr_null(core_rpc_unpack(&node_descriptor, arena, (const uint8_t *)rows[i].bytes, rows[i].length));
    arena_free(&arena);
  }
}
END_TEST

TEST_MAIN("core_rpc.pbc", nesting_is_bounded_whatever_the_length, a_small_message_cannot_become_a_huge_one,
          damaged_bytes_are_refused)
