/* core_rpc_test.c: serving and calling through one loop: unary, streams, errors, deadlines, cancelling, identity,
 * limits. */
#include "core/rpc/core_rpc.h"

#include "core/rpc/test_harness.h"

#define UNARY(name) .request = {.method = "/test.v1.Test/" name, .kind = CORE_RPC_UNARY}

START_TEST(a_unary_call_gets_its_bytes_back) {
  struct harness harness;
  harness_start(&harness);
  static const size_t sizes[] = {0, 1, 23, 24, 4000, 1 << 20};
  for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
    char *data = base_calloc(1, sizes[i] + 1);
    memset(data, 'a', sizes[i]);
    struct probe probe = {UNARY("EchoUnderANameLongerThanWhatFitsASlice")};
    probe.request.data = data;
    probe.request.length = sizes[i];
    probe_run(&harness, &probe);
    ck_assert_int_eq(probe.grpc_status, 0);
    ck_assert_uint_eq(probe.data.length, sizes[i]);
    ck_assert(sizes[i] == 0 || memcmp(probe.data.data, data, sizes[i]) == 0);
    base_free(data);
    buf_free(&probe.data);
  }
  harness_stop(&harness, 1000);
}
END_TEST

START_TEST(an_unknown_method_is_unimplemented_at_once) {
  struct harness harness;
  harness_start(&harness);
  struct probe probe = {.request = {.method = "/test.v1.Test/Nothing", .kind = CORE_RPC_UNARY}};
  probe_run(&harness, &probe);
  ck_assert_int_eq(probe.grpc_status, 12);
  ck_assert_str_eq(probe.err.code, "rpc.method.unknown");
  ck_assert_int_lt(probe.took_ms, 1000);
  harness_stop(&harness, 1000);
}
END_TEST

START_TEST(an_error_carries_its_envelope_and_a_create_conflict_is_already_exists) {
  struct harness harness;
  harness_start(&harness);
  static const struct {
    const char *data;
    int status;
  } rows[] = {{"x", 10}, {"", 6}};
  for (size_t i = 0; i < 2; i++) {
    struct probe probe = {UNARY("Fail")};
    probe.request.data = rows[i].data;
    probe.request.length = strlen(rows[i].data);
    probe_run(&harness, &probe);
    ck_assert_int_eq(probe.grpc_status, rows[i].status);
    ck_assert_int_eq(probe.err.category, ERROR_CATEGORY_CONFLICT);
    ck_assert_str_eq(probe.err.code, "catalog.record.conflict");
    ck_assert_str_eq(probe.err.message, "it is \"there\" already: caf\xc3\xa9");
    ck_assert_uint_eq(probe.err.retry_after_ms, 250);
  }
  harness_stop(&harness, 1000);
}
END_TEST

START_TEST(a_late_answer_arrives_and_a_deadline_ends_a_call_on_both_sides) {
  struct harness harness;
  harness_start(&harness);
  const struct core_rpc_metadata late = {"x-late-ms", "50", 2};
  struct probe probe = {UNARY("Echo")};
  probe.request.metadata = &late;
  probe.request.metadata_count = 1;
  probe.request.data = "later";
  probe.request.length = 5;
  probe_run(&harness, &probe);
  ck_assert_int_eq(probe.grpc_status, 0);
  ck_assert_int_ge(probe.took_ms, 50);
  ck_assert_str_eq(probe.data.data, "later");
  buf_free(&probe.data);
  struct probe held = {UNARY("Hold")};
  held.request.timeout_ms = 1500; /* enough for it to begin */
  probe_run(&harness, &held);
  ck_assert_int_eq(held.grpc_status, 4);
  ck_assert_str_eq(held.err.code, "deadline.exceeded");
  WAIT_UNTIL(test_service_state.cancelled == 1);
  WAIT_UNTIL(test_service_state.freed == 2);
  harness_stop(&harness, 1000);
}
END_TEST

START_TEST(cancelling_reaches_the_handler) {
  struct harness harness;
  harness_start(&harness);
  struct probe probe = {UNARY("Hold")};
  probe_begin(&harness, &probe);
  WAIT_UNTIL(test_service_state.held == 1);
  harness_on_core(&harness, probe_cancel_task, &probe);
  probe_wait(&probe);
  ck_assert_int_eq(probe.grpc_status, 1);
  ck_assert_str_eq(probe.err.code, "call.cancelled");
  WAIT_UNTIL(test_service_state.cancelled == 1 && test_service_state.freed == 1);
  harness_stop(&harness, 1000);
}
END_TEST

START_TEST(a_handler_sees_who_calls_with_deadline_and_metadata) {
  struct harness harness;
  harness_start(&harness);
  const struct core_rpc_metadata metadata[] = {{"x-other", "1", 1}, {"x-test", "value 7", 7}};
  struct probe probe = {UNARY("Who")};
  probe.request.metadata = metadata;
  probe.request.metadata_count = 2;
  probe.request.timeout_ms = 60000;
  probe_run(&harness, &probe);
  char listener[32], value[32];
  unsigned uid, gid;
  int pid;
  long remaining_ms;
  ck_assert_int_eq(
      sscanf(probe.data.data, "%31s %u %u %d %ld %31[^\n]", listener, &uid, &gid, &pid, &remaining_ms, value), 6);
  ck_assert_str_eq(listener, "tester");
  ck_assert_uint_eq(uid, getuid());
  ck_assert_uint_eq(gid, getgid());
  ck_assert_int_eq(pid, getpid());
  ck_assert_int_gt(remaining_ms, 30000);
  ck_assert_int_le(remaining_ms, 60000);
  ck_assert_str_eq(value, "value 7");
  buf_free(&probe.data);
  harness_stop(&harness, 1000);
}
END_TEST

START_TEST(metadata_that_may_not_travel_fails_the_call_alone) {
  struct harness harness;
  harness_start(&harness);
  const struct core_rpc_metadata metadata = {"Bad Key", "a\nb", 3};
  for (enum core_rpc_kind kind = CORE_RPC_UNARY; kind <= CORE_RPC_BIDI; kind++) {
    static const char *const nothing[] = {NULL};
    struct probe probe = {.request = {.method = "/test.v1.Test/Chat", .kind = kind}, .sends = nothing};
    probe.request.metadata = &metadata;
    probe.request.metadata_count = 1;
    probe_run(&harness, &probe);
    ck_assert_str_eq(probe.err.code, "argument.invalid");
  }
  harness_stop(&harness, 1000);
}
END_TEST

START_TEST(a_server_stream_delivers_everything_in_order) {
  struct harness harness;
  harness_start(&harness);
  struct probe probe = {
      .request = {.method = "/test.v1.Test/Count", .kind = CORE_RPC_SERVER_STREAM, .data = "20000 300", .length = 9}};
  probe_run(&harness, &probe);
  ck_assert_int_eq(probe.grpc_status, 0);
  ck_assert_uint_eq(probe.messages, 20000);
  ck_assert_uint_eq(probe.bytes, 20000u * 300u);
  buf_free(&probe.data);
  struct probe empty = {
      .request = {.method = "/test.v1.Test/Count", .kind = CORE_RPC_SERVER_STREAM, .data = "0 0", .length = 3}};
  probe_run(&harness, &empty);
  ck_assert_int_eq(empty.grpc_status, 0);
  ck_assert_uint_eq(empty.messages, 0);
  struct probe wrong = {
      .request = {.method = "/test.v1.Test/Count", .kind = CORE_RPC_SERVER_STREAM, .data = "what", .length = 4}};
  probe_run(&harness, &wrong);
  ck_assert_str_eq(wrong.err.code, "argument.invalid");
  harness_stop(&harness, 1000);
}
END_TEST

static void probe_read_task(void *argument) {
  struct probe *probe = argument;
  core_rpc_client_read(probe->call);
}

START_TEST(a_slow_reader_holds_the_producer_back) {
  struct harness harness;
  harness_start(&harness);
  struct probe probe = {.request = {.method = "/test.v1.Test/Count",
                                    .kind = CORE_RPC_SERVER_STREAM,
                                    .data = "100000 10000",
                                    .length = 12,
                                    .manual_read = true}};
  probe_begin(&harness, &probe);
  WAIT_UNTIL(atomic_load(&probe.messages) == 1); /* the first is asked for by the start */
  for (unsigned i = 2; i <= 3; i++) {
    harness_on_core(&harness, probe_read_task, &probe);
    WAIT_UNTIL(atomic_load(&probe.messages) == i);
  }
  usleep(200000);
  ck_assert_uint_eq(probe.messages, 3);
  ck_assert_uint_lt(test_service_state.produced, 1000); /* 1 MiB queue and the flow-control window */
  harness_on_core(&harness, probe_cancel_task, &probe);
  probe_wait(&probe);
  ck_assert_int_eq(probe.grpc_status, 1);
  WAIT_UNTIL(test_service_state.freed == 1);
  buf_free(&probe.data);
  harness_stop(&harness, 1000);
}
END_TEST

START_TEST(cancelling_inside_on_message_ends_a_stream) {
  struct harness harness;
  harness_start(&harness);
  struct probe probe = {.request = {.method = "/test.v1.Test/Count",
                                    .kind = CORE_RPC_SERVER_STREAM,
                                    .data = "100000000 100",
                                    .length = 13},
                        .cancel_after = 100};
  probe_run(&harness, &probe);
  ck_assert_int_eq(probe.grpc_status, 1);
  WAIT_UNTIL(test_service_state.cancelled == 1 && test_service_state.freed == 1);
  buf_free(&probe.data);
  harness_stop(&harness, 1000);
}
END_TEST

START_TEST(a_bidi_stream_echoes_until_half_close_or_error) {
  struct harness harness;
  harness_start(&harness);
  static const char *const words[] = {"one ", "two ", "", "three", NULL};
  struct probe probe = {.request = {.method = "/test.v1.Test/Chat", .kind = CORE_RPC_BIDI}, .sends = words};
  probe_run(&harness, &probe);
  ck_assert_int_eq(probe.grpc_status, 0);
  ck_assert_uint_eq(probe.messages, 4);
  ck_assert_str_eq(probe.data.data, "one two three");
  buf_free(&probe.data);
  static const char *const failing[] = {"one", "fail", "never", NULL};
  struct probe failed = {.request = {.method = "/test.v1.Test/Chat", .kind = CORE_RPC_BIDI}, .sends = failing};
  probe_run(&harness, &failed);
  ck_assert_int_eq(failed.grpc_status, 7);
  ck_assert_str_eq(failed.err.code, "auth.permission.denied");
  buf_free(&failed.data);
  harness_stop(&harness, 1000);
}
END_TEST

START_TEST(a_bidirectional_stream_of_large_messages_loses_none_and_reads_one_at_a_time) {
  enum { LARGE = 700000 };
  struct harness harness;
  harness_start(&harness);
  char *large = base_calloc(1, LARGE + 1);
  memset(large, 'l', LARGE);
  const char *const texts[] = {large, large, NULL};
  struct probe probe = {.request = {.method = "/test.v1.Test/Chat", .kind = CORE_RPC_BIDI}, .sends = texts};
  probe_run(&harness, &probe);
  ck_assert_int_eq(probe.grpc_status, 0);
  ck_assert_uint_eq(probe.messages, 2);
  ck_assert_uint_eq(probe.bytes, 2 * LARGE);
  buf_free(&probe.data);
  base_free(large);
  harness_stop(&harness, 1000);
}
END_TEST

START_TEST(a_message_over_the_limit_is_refused_and_the_connection_lives) {
  struct harness harness;
  harness_prepare(&harness, &(struct core_rpc_options){.message_max_bytes = 1000});
  harness_go(&harness);
  static char data[2000];
  struct probe large = {UNARY("Echo")};
  large.request.data = data;
  large.request.length = sizeof(data);
  probe_run(&harness, &large);
  ck_assert_int_eq(large.grpc_status, 8);
  ck_assert_str_eq(large.err.code, "rpc.message.too_large");
  struct probe small = {UNARY("Echo")};
  small.request.data = data;
  small.request.length = 1000;
  probe_run(&harness, &small);
  ck_assert_int_eq(small.grpc_status, 0);
  buf_free(&small.data);
  harness_stop(&harness, 1000);
}
END_TEST

START_TEST(metadata_may_hold_sixteen_kibibytes_and_no_more) {
  struct harness harness;
  harness_start(&harness);
  static char value[20000];
  memset(value, 'v', sizeof(value));
  static const struct {
    size_t length;
    bool fits;
  } rows[] = {{15000, true}, {19000, false}};
  for (size_t i = 0; i < 2; i++) {
    const struct core_rpc_metadata metadata = {"x-large", value, rows[i].length};
    struct probe probe = {UNARY("Echo")};
    probe.request.metadata = &metadata;
    probe.request.metadata_count = 1;
    probe_run(&harness, &probe);
    ck_assert_int_eq(probe.grpc_status == 0, rows[i].fits);
    buf_free(&probe.data);
  }
  harness_stop(&harness, 1000);
}
END_TEST

START_TEST(calls_in_flight_are_bounded_per_connection) {
  enum { LIMIT = 8, CALLS = 12 };
  struct harness harness;
  harness_prepare(&harness, &(struct core_rpc_options){.in_flight_max = LIMIT});
  harness_go(&harness);
  static struct probe probes[CALLS];
  for (unsigned i = 0; i < CALLS; i++) {
    probes[i] = (struct probe){UNARY("Hold")};
    probe_begin(&harness, &probes[i]);
  }
  WAIT_UNTIL(test_service_state.held == LIMIT);
  usleep(50000);
  ck_assert_uint_eq(test_service_state.held, LIMIT); /* the rest waits at the client: HTTP/2's stream limit */
  for (unsigned i = 0; i < CALLS; i++) {
    harness_on_core(&harness, probe_cancel_task, &probes[i]);
    probe_wait(&probes[i]);
  }
  harness_stop(&harness, 1000);
}
END_TEST

static struct core_rpc_call *kept[16];
static atomic_uint kept_count;

static void keep(struct core_rpc_call *call, void *user) {
  (void)user;
  kept[atomic_load(&kept_count)] = call;
  atomic_fetch_add(&kept_count, 1);
}

static void keep_no_longer(void *argument) {
  (void)argument;
  for (unsigned i = 0; i < atomic_load(&kept_count); i++)
    core_rpc_call_fail_code(kept[i], ERR_CANCELLED);
}

START_TEST(cancelled_calls_count_until_their_handler_lets_go) {
  enum { LIMIT = 4 };
  static const struct core_rpc_method method = {"/test.v1.Keep/Keep", CORE_RPC_UNARY, keep, NULL};
  struct harness harness;
  harness_prepare(&harness, &(struct core_rpc_options){.in_flight_max = LIMIT});
  core_rpc_server_register(harness.loop, &method, 1);
  harness_go(&harness);
  for (unsigned i = 0; i < LIMIT; i++) {
    struct probe probe = {.request = {.method = "/test.v1.Keep/Keep"}};
    probe_begin(&harness, &probe);
    WAIT_UNTIL(atomic_load(&kept_count) == i + 1);
    harness_on_core(&harness, probe_cancel_task, &probe);
    probe_wait(&probe);
  }
  struct probe over = {.request = {.method = "/test.v1.Keep/Keep"}};
  probe_run(&harness, &over);
  ck_assert_int_eq(over.grpc_status, 8);
  ck_assert_str_eq(over.err.code, "rpc.in_flight.limit");
  harness_on_core(&harness, keep_no_longer, NULL);
  struct probe after = {UNARY("Echo")};
  probe_run(&harness, &after);
  ck_assert_int_eq(after.grpc_status, 0);
  buf_free(&after.data);
  harness_stop(&harness, 1000);
}
END_TEST

TEST_MAIN("core_rpc", cancelled_calls_count_until_their_handler_lets_go, a_unary_call_gets_its_bytes_back,
          an_unknown_method_is_unimplemented_at_once,
          an_error_carries_its_envelope_and_a_create_conflict_is_already_exists,
          a_late_answer_arrives_and_a_deadline_ends_a_call_on_both_sides, cancelling_reaches_the_handler,
          a_handler_sees_who_calls_with_deadline_and_metadata, metadata_that_may_not_travel_fails_the_call_alone,
          a_server_stream_delivers_everything_in_order, a_slow_reader_holds_the_producer_back,
          cancelling_inside_on_message_ends_a_stream, a_bidi_stream_echoes_until_half_close_or_error,
          a_bidirectional_stream_of_large_messages_loses_none_and_reads_one_at_a_time,
          a_message_over_the_limit_is_refused_and_the_connection_lives, metadata_may_hold_sixteen_kibibytes_and_no_more,
          calls_in_flight_are_bounded_per_connection)
