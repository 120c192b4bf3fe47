/* wire_test.c: nanopb messages live on the heap, round-trip with protobuf-c, and end clean on hostile bytes. */
#include "sdk/wire/wire.h"

#include <string.h>

#include "sdk/base/id.h"
#include "sdk/base/test.h"
#include "sdk/wire/wire_registry.h"
#include "wire/nano/core/common/v1/common.pb.h"
#include "wire/nano/wire_test.pb.h"
#include "wire/pbc/wire_test.pb-c.h"

static wire_test_v1_Everything sample(void) {
  wire_test_v1_Everything message = wire_test_v1_Everything_init_zero;
  message.an_int32 = -7;
  message.a_string = wire_string("text");
  message.some_bytes = wire_bytes("a\0b", 3);
  *WIRE_ADD(message.string_list, message.string_list_count) = wire_string("one");
  *WIRE_ADD(message.string_list, message.string_list_count) = wire_string_n("two-x", 3);
  message.child = WIRE_NEW(wire_test_v1_Everything);
  message.child->child = WIRE_NEW(wire_test_v1_Everything);
  message.child->child->a_uint64 = UINT64_MAX;
  wire_test_v1_Everything *item = WIRE_ADD(message.child_list, message.child_list_count);
  item->which_choice = wire_test_v1_Everything_chosen_text_tag;
  item->choice.chosen_text = wire_string("chosen");
  return message;
}

START_TEST(a_nested_message_reads_back_and_matches_protobuf_c) {
  struct buf wire = {0};
  struct error err;
  wire_test_v1_Everything message = sample(), back;
  ck_assert(wire_encode(wire_test_v1_Everything_fields, &message, &wire, &err));
  wire_release(wire_test_v1_Everything_fields, &message);
  ck_assert_ptr_null(message.child);
  wire_release(wire_test_v1_Everything_fields, &message);

  ck_assert(wire_decode(wire_test_v1_Everything_fields, &back, wire.data, wire.length, &err));
  ck_assert_str_eq(back.a_string, "text");
  ck_assert_str_eq(wire_text(back.UPPER_name2_x), "");
  ck_assert_uint_eq(back.some_bytes->size, 3);
  ck_assert_str_eq(back.string_list[1], "two");
  ck_assert_uint_eq(back.child->child->a_uint64, UINT64_MAX);
  ck_assert_str_eq(back.child_list[0].choice.chosen_text, "chosen");
  wire_release(wire_test_v1_Everything_fields, &back);

  Wire__Test__V1__Everything *other = wire__test__v1__everything__unpack(NULL, wire.length, (const uint8_t *)wire.data);
  ck_assert_ptr_nonnull(other);
  ck_assert_int_eq(other->an_int32, -7);
  ck_assert_str_eq(other->child_list[0]->chosen_text, "chosen");
  wire__test__v1__everything__free_unpacked(other, NULL);
  buf_free(&wire);
}
END_TEST

START_TEST(cut_and_damaged_bytes_are_refused_or_read_but_never_leak) {
  struct buf wire = {0};
  wire_test_v1_Everything message = sample(), back;
  ck_assert(wire_encode(wire_test_v1_Everything_fields, &message, &wire, NULL));
  wire_release(wire_test_v1_Everything_fields, &message);
  for (size_t length = 0; length < wire.length; length++)
    if (wire_decode(wire_test_v1_Everything_fields, &back, wire.data, length, NULL))
      wire_release(wire_test_v1_Everything_fields, &back);
  for (int round = 0; round < 20000; round++) {
    char *copy = base_memdup(wire.data, wire.length);
    uint64_t chance = id_random_u64();
    copy[chance % wire.length] = (char)(chance >> 32);
    copy[(chance >> 16) % wire.length] ^= (char)(1 << (chance >> 40 & 7));
    if (wire_decode(wire_test_v1_Everything_fields, &back, copy, wire.length, NULL))
      wire_release(wire_test_v1_Everything_fields, &back);
    base_free(copy);
  }
  buf_free(&wire);
}
END_TEST

START_TEST(malformed_bytes_name_the_error_and_empty_ones_are_a_message) {
  struct error err;
  wire_test_v1_Everything message;
  ck_assert(!wire_decode(wire_test_v1_Everything_fields, &message, "\xff\xff", 2, &err));
  ck_assert(error_is(&err, ERR_RPC_MESSAGE_MALFORMED));
  ck_assert(wire_decode(wire_test_v1_Everything_fields, &message, NULL, 0, &err));
  ck_assert_ptr_null(message.a_string);
}
END_TEST

START_TEST(json_fields_hold_more_than_bytes_fields_can) {
  enum { LARGE = 300000 };
  struct buf wire = {0};
  core_common_v1_InvokeResult result = core_common_v1_InvokeResult_init_zero, back;
  result.content_json = base_alloc(LARGE + 1);
  memset(result.content_json, '1', LARGE);
  result.content_json[LARGE] = 0;
  ck_assert(wire_encode(core_common_v1_InvokeResult_fields, &result, &wire, NULL));
  ck_assert(wire_decode(core_common_v1_InvokeResult_fields, &back, wire.data, wire.length, NULL));
  ck_assert_str_eq(back.content_json, result.content_json);
  wire_release(core_common_v1_InvokeResult_fields, &result);
  wire_release(core_common_v1_InvokeResult_fields, &back);
  buf_free(&wire);
  ck_assert_ptr_null(wire_bytes("", WIRE_BYTES_MAX + 1));
}
END_TEST

START_TEST(a_repeated_field_ends_at_its_bound) {
  core_common_v1_TokenTeams teams = core_common_v1_TokenTeams_init_zero;
  for (size_t i = 0; i < WIRE_BYTES_MAX; i++)
    ck_assert_ptr_nonnull(WIRE_ADD(teams.team_ids, teams.team_ids_count));
  ck_assert_ptr_null(WIRE_ADD(teams.team_ids, teams.team_ids_count));
  wire_release(core_common_v1_TokenTeams_fields, &teams);
}
END_TEST

START_TEST(names_lead_to_messages_and_methods) {
  size_t count, length;
  const struct wire_method *methods = wire_methods(&count);
  ck_assert_uint_gt(count, 20);
  for (size_t i = 0; i < count; i++)
    ck_assert_ptr_eq(wire_method_find(methods[i].path), &methods[i]);
  const struct wire_method *watch = wire_method_find("/grpc.health.v1.Health/Watch");
  ck_assert(watch && watch->server_streaming && !watch->client_streaming);
  ck_assert_str_eq(watch->input->name, "grpc.health.v1.HealthCheckRequest");
  ck_assert_ptr_null(wire_method_find("/grpc.health.v1.Health/Nothing"));
  ck_assert_str_eq(wire_message_find("google.rpc.Status")->name, "google.rpc.Status");
  ck_assert_ptr_null(wire_message_find("google.rpc.Nothing"));
  ck_assert_ptr_nonnull(wire_descriptor_set(&length));
  ck_assert_uint_gt(length, 10000);
}
END_TEST

TEST_MAIN("wire", a_nested_message_reads_back_and_matches_protobuf_c,
          cut_and_damaged_bytes_are_refused_or_read_but_never_leak,
          malformed_bytes_name_the_error_and_empty_ones_are_a_message, json_fields_hold_more_than_bytes_fields_can,
          a_repeated_field_ends_at_its_bound, names_lead_to_messages_and_methods)
