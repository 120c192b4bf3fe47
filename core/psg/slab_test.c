/* slab_test.c: pieces are zeroed, aligned and apart; what is too large is refused; a loaded object grows out of it. */
#include "core/psg/psg_test_support.h"

START_TEST(pieces_are_zeroed_aligned_and_apart) {
  enum { PIECES = 4000 };
  static const size_t sizes[] = {1, 15, 16, 17, 280, 4096, 32768};
  static unsigned char *pieces[PIECES];
  struct psg_chunk *slab = NULL;
  for (size_t i = 0; i < PIECES; i++) {
    size_t size = sizes[i % (sizeof(sizes) / sizeof(sizes[0]))];
    pieces[i] = psg_slab_take(&slab, size);
    ck_assert_ptr_nonnull(pieces[i]);
    ck_assert_uint_eq((uintptr_t)pieces[i] % 16, 0);
    /* and not what its neighbours were filled with */
    ck_assert(pieces[i][0] == 0 && memcmp(pieces[i], pieces[i] + 1, size - 1) == 0);
    memset(pieces[i], 0xa5, size);
  }
  for (size_t i = 0; i < PIECES; i += 2)
    psg_slab_give(pieces[i]);
  psg_slab_close(&slab);
  ck_assert_ptr_null(slab);
  for (size_t i = 1; i < PIECES; i += 2) {
    ck_assert_uint_eq(pieces[i][0], 0xa5);
    psg_slab_give(pieces[i]);
  }
}
END_TEST

/* A graph of a few nodes does not cost a huge page. */
START_TEST(the_first_chunk_is_small) {
  enum { PIECES = 200 };
  struct psg_chunk *slab = NULL;
  unsigned char *pieces[PIECES];
  struct psg_chunk *first = NULL;
  unsigned in_first = 0;
  for (size_t i = 0; i < PIECES; i++) {
    pieces[i] = psg_slab_take(&slab, 4096);
    ck_assert_ptr_nonnull(pieces[i]);
    first = first ? first : slab;
    in_first += slab == first;
    memset(pieces[i], 0xa5, 4096);
  }
  ck_assert_uint_eq(in_first, (256 << 10) / 4096 - 1);
  ck_assert_ptr_ne(slab, first);
  for (size_t i = 0; i < PIECES; i++)
    psg_slab_give(pieces[i]);
  psg_slab_close(&slab);
}
END_TEST

START_TEST(what_is_too_large_is_refused) {
  struct psg_chunk *slab = NULL;
  ck_assert_ptr_null(psg_slab_take(&slab, 0));
  ck_assert_ptr_null(psg_slab_take(&slab, 32769));
  ck_assert_ptr_null(psg_slab_take(&slab, SIZE_MAX));
  ck_assert_ptr_null(slab);
  psg_slab_close(&slab);
}
END_TEST

START_TEST(a_loaded_object_grows_out_of_the_slab) {
  static const uint8_t key[ID_UUID_RAW_BYTES] = {1};
  struct psg_graph graph = {.loading = true};
  struct psg_node *node = psg_graph_node_restore(&graph, PSG_TYPE_SpanNode, key, "{}", 2, 7, true);
  ck_assert_ptr_nonnull(node);
  ck_assert(node->in_slab && node->object_in_slab);
  ck_assert_ptr_null(psg_graph_node_restore(&graph, PSG_TYPE_SpanNode, key, "{}", 2, 7, true));
  psg_graph_node_set(&graph, node, "{\"a\":1}", 7);
  ck_assert(!node->object_in_slab && node->in_slab);
  ck_assert_str_eq(node->object, "{\"a\":1}");
  ck_assert(!psg_graph_is_changed(&graph));
  psg_graph_clear(&graph);
  ck_assert(graph.loading && !graph.nodes && !graph.slab);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("psg.slab");
  TCase *tcase = tcase_create("psg.slab");
  tcase_add_test(tcase, pieces_are_zeroed_aligned_and_apart);
  tcase_add_test(tcase, the_first_chunk_is_small);
  tcase_add_test(tcase, what_is_too_large_is_refused);
  tcase_add_test(tcase, a_loaded_object_grows_out_of_the_slab);
  suite_add_tcase(suite, tcase);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
