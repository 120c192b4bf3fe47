/* store_portable_test.c: export and import: the round trip is exact between any two back ends; bad input is refused
 * with its line (VSL-11). */
#include "core/store/store_test_helper.h"

static char *export_text(struct store *store) {
  char *text = NULL;
  size_t length = 0;
  FILE *target = open_memstream(&text, &length);
  struct error err = {0};
  ck_assert_msg(store_export(store, target, &err), "%s", err.code);
  fclose(target);
  return text;
}

static void import_text(struct store *store, const char *text, const char *code) {
  FILE *source = fmemopen((void *)(uintptr_t)text, strlen(text), "r");
  struct error err = {0};
  ck_assert_int_eq(store_import(store, source, &err), code == NULL);
  ck_assert_str_eq(err.code, code ? code : "");
  fclose(source);
}

static void fill(struct store *store) {
  uint8_t bytes[256];
  char id[ID_UUID_BYTES];
  for (unsigned i = 0; i < 256; i++)
    bytes[i] = (uint8_t)i;
  for (unsigned i = 0; i < 20; i++) {
    struct store_batch *batch = store_batch_create();
    char key[32];
    snprintf(key, sizeof(key), "tools/\"%u\"\n", i);
    store_batch_put(batch, "tools", key, bytes, i * 12, STORE_REVISION_ANY);
    store_batch_put(batch, "tools", "same", "ü\t\"text\"\\", 11, STORE_REVISION_ANY);
    id_uuid_v4(id);
    store_batch_append_event(batch, &(struct store_event){.event_id = id,
                                                          .trace_id = "t",
                                                          .family = "f",
                                                          .type = "x",
                                                          .wall_us = -5,
                                                          .bytes = i % 2 ? bytes : (const void *)"{\"a\": 1.0e5}",
                                                          .length = i % 2 ? 256 : 12});
    store_checkpoint_put(batch, "psg", i, "x", 1);
    test_commit(store, batch, NULL);
  }
}

START_TEST(the_round_trip_is_exact_between_back_ends) {
  FOR_BACKENDS(from) {
    FOR_BACKENDS(to) {
      struct scratch from_scratch, to_scratch;
      scratch_open(&from_scratch);
      scratch_open(&to_scratch);
      struct store_options from_options = test_options(from, &from_scratch), to_options = test_options(to, &to_scratch);
      struct store *store = test_open(&from_options), *copy = test_open(&to_options);
      fill(store);
      char *text = export_text(store);
      import_text(copy, text, NULL);
      ck_assert_uint_eq(store_revision(copy), 20);
      ck_assert_uint_eq(test_put(copy, "next", "1", STORE_REVISION_NONE, NULL).revision, 21);
      struct store_batch *batch = store_batch_create();
      store_batch_delete(batch, "tools", "next", 21);
      test_commit(copy, batch, NULL);
      char *again = export_text(copy);
      ck_assert_str_eq(strchr(again, '\n'), strchr(text, '\n'));
      import_text(copy, text, "store.not_empty");
      free(text);
      free(again);
      store_close(&store);
      store_close(&copy);
      scratch_close(&from_scratch);
      scratch_close(&to_scratch);
    }
  }
}
END_TEST

#define HEADER "{\"gatehouse_store\":1,\"revision\":5,\"events\":0}\n"
START_TEST(malformed_imports_are_refused) {
  static const char *const table[] = {
      "x",
      "{}\n",
      "{\"gatehouse_store\":2,\"revision\":5,\"events\":0}\n",
      "{\"gatehouse_store\":1,\"revision\":-1,\"events\":0}\n",
      "{\"gatehouse_store\":1,\"revision\":5,\"events\":1}\n",
      HEADER "{\"row\":",
      HEADER "{\"row\":{}}\n",
      HEADER "{\"row\":[]}\n",
      HEADER "{\"other\":{}}\n",
      HEADER "{\"row\":{\"namespace\":\"n\",\"key\":\"k\",\"revision\":6,\"text\":\"\"}}\n",
      HEADER "{\"row\":{\"namespace\":\"n\",\"key\":\"k\",\"revision\":0,\"text\":\"\"}}\n",
      HEADER "{\"row\":{\"namespace\":\"_n\",\"key\":\"k\",\"revision\":1,\"text\":\"\"}}\n",
      HEADER "{\"row\":{\"namespace\":\"n\",\"key\":\"k\",\"revision\":1,\"base64\":\"*\"}}\n",
      HEADER "{\"row\":{\"namespace\":\"n\",\"key\":\"k\",\"revision\":1}}\n",
      HEADER "{\"event\":{\"seq\":2}}\n",
      HEADER "{\"event\":{\"seq\":1,\"wall_us\":1,\"event_id\":\"no\",\"trace_id\":\"\",\"context_id\":\"\","
             "\"project_id\":\"\",\"family\":\"f\",\"type\":\"t\",\"text\":\"\"}}\n",
  };
  FOR_BACKENDS(backend) {
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
      struct scratch scratch;
      scratch_open(&scratch);
      struct store_options options = test_options(backend, &scratch);
      struct store *store = test_open(&options);
      import_text(store, table[i], "store.import.malformed");
      store_close(&store);
      scratch_close(&scratch);
    }
  }
}
END_TEST

START_TEST(a_target_that_cannot_be_written_is_an_error) {
  struct scratch scratch;
  scratch_open(&scratch);
  struct store_options options = test_options("memory", &scratch);
  struct store *store = test_open(&options);
  FILE *full = fopen("/dev/full", "w");
  struct error err = {0};
  fill(store);
  ck_assert(!store_export(store, full, &err));
  ck_assert_str_eq(err.code, "io.failed");
  fclose(full);
  store_close(&store);
  scratch_close(&scratch);
}
END_TEST

TEST_MAIN("store.portable", the_round_trip_is_exact_between_back_ends, malformed_imports_are_refused,
          a_target_that_cannot_be_written_is_an_error)
