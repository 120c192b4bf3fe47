/* message_test.c: the typed helpers: nanopb messages in both directions, and answers that do not decode. */
#include <check.h>
#include <sys/socket.h>

#include "sdk/rpc/rpc_test_support.h"

/* What the generator would make of: message Note { uint32 number = 1; string text = 2; } with text as a pointer. */
typedef struct {
  uint32_t number;
  char *text;
} Note;
#define Note_FIELDLIST(X, a) X(a, STATIC, SINGULAR, UINT32, number, 1) X(a, POINTER, SINGULAR, STRING, text, 2)
#define Note_CALLBACK NULL
#define Note_DEFAULT NULL
PB_BIND(Note, Note, AUTO)

/* Answers number + 1 and the same text. */
static void next(struct rpc_server_call *call, const uint8_t *message, size_t length, void *arg) {
  (void)arg;
  Note note = {0};
  struct error err;
  struct arena *arena = arena_create(0);
  if (rpc_message_decode(message, length, &Note_msg, &note, arena, &err)) {
    note.number++;
    rpc_server_call_reply_message(call, &Note_msg, &note);
  } else {
    rpc_server_call_fail(call, &err);
  }
  arena_free(&arena);
}

static void broken(struct rpc_server_call *call, const uint8_t *message, size_t length, void *arg) {
  (void)message, (void)length, (void)arg;
  rpc_server_call_reply(call, (const uint8_t *)"\x12\x7f", 2);
}

static const struct rpc_method methods[] = {{"/test.Note/Next", RPC_METHOD_UNARY, next},
                                            {"/test.Note/Broken", RPC_METHOD_UNARY, broken}};

static struct rpc_status seen;
static uint32_t seen_number;
static size_t seen_text_length;
static bool done;

static void answered(void *arg, const struct rpc_status *status, void *reply) {
  (void)arg;
  const Note *note = reply;
  done = true;
  seen = *status;
  seen_number = note != NULL ? note->number : 0;
  seen_text_length = note != NULL && note->text != NULL ? strlen(note->text) : 0;
}

START_TEST(messages_travel_typed) {
  static const struct {
    const char *method;
    size_t text_length; /* the largest does not fit the encoder's first try */
    enum rpc_code code;
    uint32_t number;
  } rows[] = {{"/test.Note/Next", 0, RPC_OK, 42},
              {"/test.Note/Next", 20, RPC_OK, 42},
              {"/test.Note/Next", 100000, RPC_OK, 42},
              {"/test.Note/Broken", 1, RPC_INTERNAL, 0},
              {"/test.Note/Nope", 1, RPC_UNIMPLEMENTED, 0}};
  int pair[2];
  struct event_base *base = event_base_new();
  struct rpc_server *server = rpc_server_create(base, NULL);
  rpc_server_register(server, methods, 2, NULL);
  ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  ck_assert(rpc_server_accept_fd(server, pair[1], NULL));
  struct rpc_channel *channel = rpc_channel_create_from_fd(base, pair[0], NULL);
  Note note = {41, base_calloc(1, rows[_i].text_length + 1)};
  memset(note.text, 't', rows[_i].text_length);
  done = false;
  rpc_call_unary_message(channel, rows[_i].method, &Note_msg, &note, &Note_msg, sizeof(Note), NULL, answered, NULL);
  base_free(note.text);
  SUPPORT_RUN_UNTIL(base, done);
  ck_assert_int_eq(seen.code, rows[_i].code);
  ck_assert_uint_eq(seen_number, rows[_i].number);
  ck_assert_uint_eq(seen_text_length, rows[_i].code == RPC_OK ? rows[_i].text_length : 0);
  rpc_channel_close(&channel);
  rpc_server_close(&server);
  event_base_free(base);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("message");
  TCase *tests = tcase_create("message");
  tcase_add_loop_test(tests, messages_travel_typed, 0, 5);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_ENV);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? 0 : 1;
}
