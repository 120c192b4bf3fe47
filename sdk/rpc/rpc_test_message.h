/* rpc_test_message.h: the message by which both walks are compared with nanopb: every kind of field that
 * nano_options.py makes. For encode_test.c and decode_test.c only. */
#ifndef GATEHOUSE_RPC_TEST_MESSAGE_H
#define GATEHOUSE_RPC_TEST_MESSAGE_H

#include <pb.h>

typedef struct _Leaf {
  char *text;
  uint64_t number;
} Leaf;
#define Leaf_FIELDLIST(X, a) X(a, POINTER, SINGULAR, STRING, text, 1) X(a, STATIC, SINGULAR, UINT64, number, 20)
#define Leaf_CALLBACK NULL
#define Leaf_DEFAULT NULL
PB_BIND(Leaf, Leaf, AUTO)

/* What only the walk that reads knows. */
typedef struct _Rare {
  float share;
  bool has_number;
  uint64_t number;
} Rare;
#define Rare_FIELDLIST(X, a) X(a, STATIC, SINGULAR, FLOAT, share, 16) X(a, STATIC, OPTIONAL, UINT64, number, 20)
#define Rare_CALLBACK NULL
#define Rare_DEFAULT NULL
PB_BIND(Rare, Rare, AUTO)

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
    bool chosen_flag;
  } choice;
  double ratio;
  pb_size_t pieces_count;
  pb_bytes_array_t **pieces;
  struct _Rare *rare;
  pb_size_t numbers_count;
  uint64_t *numbers;
  pb_size_t fixed_count;
  uint32_t *fixed;
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
  X(a, STATIC, ONEOF, BOOL, (choice, chosen_flag, choice.chosen_flag), 13)                                             \
  X(a, STATIC, SINGULAR, DOUBLE, ratio, 14)                                                                            \
  X(a, POINTER, REPEATED, BYTES, pieces, 15)                                                                           \
  X(a, POINTER, OPTIONAL, MESSAGE, rare, 16)                                                                           \
  X(a, POINTER, REPEATED, UINT64, numbers, 300)                                                                        \
  X(a, POINTER, REPEATED, FIXED32, fixed, 301)
#define Tree_CALLBACK NULL
#define Tree_DEFAULT NULL
#define Tree_leaf_MSGTYPE Leaf
#define Tree_tree_MSGTYPE Tree
#define Tree_leaves_MSGTYPE Leaf
#define Tree_rare_MSGTYPE Rare
#define Tree_choice_chosen_leaf_MSGTYPE Leaf
extern const pb_msgdesc_t Tree_msg;
PB_BIND(Tree, Tree, 2)

#endif
