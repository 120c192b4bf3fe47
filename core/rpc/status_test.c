/* status_test.c: errors on the wire, there and back, and hostile bytes. */
#include <string.h>

#include "core/rpc/core_rpc_internal.h"
#include "core/rpc/protobuf.h"
#include "sdk/base/alloc.h"
#include "sdk/base/test.h"

START_TEST(an_error_survives_the_wire_with_every_field) {
  struct error sent, got;
  error_set(&sent, ERR_RATE_LIMIT_EXCEEDED, "slow down, %s", "please");
  sent.retry_after_ms = 1500;
  memcpy(sent.trace_id, "0af7651916cd43dd8448eb211c80319c", 33);
  size_t length;
  uint8_t *details = status_encode(8, &sent, &length);
  status_decode(8, details, length, &got);
  ck_assert_int_eq(got.category, ERROR_CATEGORY_RATE_LIMITED);
  ck_assert_int_eq(got.origin, ERROR_ORIGIN_CORE);
  ck_assert_str_eq(got.code, "rate_limit.exceeded");
  ck_assert_str_eq(got.message, "slow down, please");
  ck_assert(got.retryable);
  ck_assert_uint_eq(got.retry_after_ms, 1500);
  ck_assert_str_eq(got.trace_id, sent.trace_id);
  base_free(details);
}
END_TEST

START_TEST(a_bare_status_becomes_an_error_by_its_number) {
  static const struct {
    int grpc_status;
    const char *code;
    enum error_category category;
  } rows[] = {
      {1, "call.cancelled", ERROR_CATEGORY_UNAVAILABLE},   {4, "deadline.exceeded", ERROR_CATEGORY_UNAVAILABLE},
      {14, "rpc.peer.gone", ERROR_CATEGORY_UNAVAILABLE},   {12, "rpc.method.unknown", ERROR_CATEGORY_UNSUPPORTED},
      {5, "rpc.status", ERROR_CATEGORY_NOT_FOUND},         {13, "rpc.status", ERROR_CATEGORY_INTERNAL},
      {7, "rpc.status", ERROR_CATEGORY_PERMISSION_DENIED},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    struct error err = {0};
    status_decode(rows[i].grpc_status, NULL, 0, &err);
    ck_assert_str_eq(err.code, rows[i].code);
    ck_assert_int_eq(err.category, rows[i].category);
  }
}
END_TEST

START_TEST(damaged_details_never_crash_and_fall_back_to_the_number) {
  struct error sent, got;
  error_set(&sent, ERR_CATALOG_NOT_FOUND, NULL);
  size_t length;
  uint8_t *details = status_encode(5, &sent, &length);
  for (size_t cut = 0; cut < length; cut++) {
    uint8_t *part = base_memdup(details, cut); /* exact size, for the address sanitizer */
    got = (struct error){0};
    status_decode(5, part, cut, &got);
    ck_assert_int_eq(got.category, ERROR_CATEGORY_NOT_FOUND);
    base_free(part);
  }
  for (size_t i = 0; i < length; i++)
    for (unsigned bit = 0; bit < 8; bit++) {
      details[i] = (uint8_t)(details[i] ^ (1u << bit));
      got = (struct error){0};
      status_decode(5, details, length, &got);
      ck_assert(error_is_set(&got));
      details[i] = (uint8_t)(details[i] ^ (1u << bit));
    }
  base_free(details);
}
END_TEST

START_TEST(the_reader_stops_at_malformed_fields) {
  static const struct {
    const char *name, *bytes;
    size_t length;
    unsigned fields;
    bool malformed;
  } rows[] = {
      {"empty", "", 0, 0, false},
      {"varint", "\x08\x96\x01", 3, 1, false},
      {"endless varint", "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12, 0, true},
      {"cut varint", "\x08\x80", 2, 0, true},
      {"length beyond the end", "\x0a\x05xx", 4, 0, true},
      {"huge length", "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, 0, true},
      {"field number zero", "\x00\x01", 2, 0, true},
      {"group", "\x0b\x0c", 2, 0, true},
      {"fixed32 then bytes", "\x0d\x01\x00\x00\x00\x12\x01x", 8, 2, false},
      {"cut fixed64", "\x09\x01\x00\x00", 4, 0, true},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    struct protobuf_reader reader = {.data = (const uint8_t *)rows[i].bytes, .length = rows[i].length};
    struct protobuf_field field;
    unsigned fields = 0;
    while (protobuf_next(&reader, &field))
      fields++;
    ck_assert_msg(fields == rows[i].fields && reader.malformed == rows[i].malformed, "%s", rows[i].name);
  }
}
END_TEST

TEST_MAIN("core_rpc.status", an_error_survives_the_wire_with_every_field, a_bare_status_becomes_an_error_by_its_number,
          damaged_details_never_crash_and_fall_back_to_the_number, the_reader_stops_at_malformed_fields)
