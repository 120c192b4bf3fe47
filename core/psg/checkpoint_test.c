/* checkpoint_test.c: a checkpoint gives back the graph it was made of, whatever its nodes look like, and damage to it
 * is noticed or harmless, never more. CHK-4, VSL-10. */
#include "core/psg/psg_test_support.h"

static unsigned pick(unsigned *seed, unsigned below) {
  *seed = *seed * 1103515245u + 12345u;
  return *seed / 65536u % below;
}

/* An object that shares much, little or nothing with the one before it. */
static void object_make(struct buf *object, const char *id, unsigned *seed) {
  unsigned form = pick(seed, 6);
  buf_clear(object);
  if (form == 0) { /* any bytes */
    for (unsigned left = 1 + pick(seed, 300); left > 0; left--)
      buf_append_char(object, (char)pick(seed, 256));
    return;
  }
  buf_printf(object, "{\"span_id\":\"%s\"", form == 1 ? "somebody else" : id);
  for (unsigned field = 0; field < 6; field++)
    if (pick(seed, 8))
      buf_printf(object, ",\"field_%u\":\"2026-07-28T10:00:%02u.%06uZ\"", field, pick(seed, 3),
                 pick(seed, form == 2 ? 9 : 999999));
  if (form == 3) /* its id again, and again far behind */
    buf_printf(object, ",\"also\":\"%s%s\"", id, id);
  if (form == 4)
    for (unsigned left = pick(seed, 40000); left > 0; left--)
      buf_append_char(object, ',');
  buf_append_char(object, '}');
}

START_TEST(a_checkpoint_gives_back_any_graph_and_bears_any_damage) {
  unsigned seed = (unsigned)_i * 104729u + 3;
  struct psg first = {.magic = PSG_MAGIC};
  struct buf object = {0}, bytes = {0};
  struct psg_node *nodes[300];
  char id[ID_UUID_BYTES], skip[ID_UUID_BYTES], wanted[65], got[65];
  id_uuid_v4(first.graph_id);
  for (size_t i = 0; i < 300; i++) {
    id_uuid_v4(id);
    object_make(&object, id, &seed);
    nodes[i] = psg_graph_node_add(&first.graph, (enum psg_type)pick(&seed, PSG_TYPE_COUNT), id, object.data,
                                  object.length, 0, pick(&seed, 2));
    nodes[i]->revision = (uint64_t)pick(&seed, 1000) << pick(&seed, 50);
    struct psg_node *other = nodes[pick(&seed, (unsigned)i + 1)];
    enum psg_edge_type type = (enum psg_edge_type)pick(&seed, PSG_EDGE_COUNT);
    if (!psg_graph_edge_find(&first.graph, type, nodes[i], other))
      psg_graph_edge_add(&first.graph, type, nodes[i], other);
  }
  ck_assert(psg_state_hash(&first, wanted, NULL));
  psg_checkpoint_write(&first, "", &bytes);
  for (int round = 0; round < 400; round++) {
    struct psg second = {.magic = PSG_MAGIC};
    memcpy(second.graph_id, first.graph_id, sizeof(second.graph_id));
    char *copy = base_memdup(bytes.data, bytes.length);
    for (unsigned left = round ? 1 + pick(&seed, 4) : 0; left > 0; left--)
      copy[168 + ((size_t)pick(&seed, 32768) << 16 | pick(&seed, 65536)) % (bytes.length - 168)] =
          (char)pick(&seed, 256);
    bool read = psg_checkpoint_read(&second, copy, bytes.length, skip);
    ck_assert(read || (round && psg_node_count(&second) + psg_edge_count(&second) == 0));
    if (!round) {
      ck_assert(psg_state_hash(&second, got, NULL));
      ck_assert_str_eq(wanted, got);
      for (size_t i = 0; i < 300; i++) {
        const struct psg_node *node = psg_graph_find(&second.graph, nodes[i]->id);
        ck_assert(node->owned == nodes[i]->owned && node->revision == nodes[i]->revision);
      }
    }
    psg_graph_clear(&second.graph);
    base_free(copy);
  }
  psg_graph_clear(&first.graph);
  buf_free(&object);
  buf_free(&bytes);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("psg.checkpoint");
  TCase *tcase = tcase_create("psg.checkpoint");
  tcase_set_timeout(tcase, 110);
  tcase_add_loop_test(tcase, a_checkpoint_gives_back_any_graph_and_bears_any_damage, 0, 10);
  suite_add_tcase(suite, tcase);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
