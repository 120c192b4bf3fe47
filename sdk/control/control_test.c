/* control_test.c: the control codec: round trips, hostile packets, the channel itself. */
#include "sdk/control/control.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct control_message exited_message(void) {
  struct control_message message = {.pb = {.core_generation = 7, .sequence = 3}};
  message.pb.which_body = supervisor_control_v1_ControlMessage_exited_tag;
  supervisor_control_v1_Exited *exited = &message.pb.body.exited;
  strcpy(exited->module_id, "mcp");
  exited->generation = UINT64_MAX;
  exited->cause = supervisor_control_v1_ExitCause_EXIT_CAUSE_SIGNAL;
  exited->signal = 11;
  exited->last_words_count = 2;
  strcpy(exited->last_words[0], "first");
  memset(exited->last_words[1], 'x', sizeof(exited->last_words[1]) - 1);
  return message;
}

START_TEST(a_message_survives_the_channel) {
  int ends[2];
  struct error err;
  ck_assert(control_channel_open(ends, &err));
  struct control_message sent = exited_message(), got;
  ck_assert_int_eq(control_send(ends[0], &sent, &err), CONTROL_DONE);
  ck_assert_int_eq(control_receive(ends[1], CONTROL_FROM_SUPERVISOR, &got, &err), CONTROL_DONE);
  ck_assert_uint_eq(got.pb.core_generation, 7);
  ck_assert_uint_eq(got.pb.body.exited.generation, UINT64_MAX);
  ck_assert_uint_eq(got.pb.body.exited.last_words_count, 2);
  ck_assert_uint_eq(strlen(got.pb.body.exited.last_words[1]), 255);
  ck_assert_int_eq(control_receive(ends[1], CONTROL_FROM_SUPERVISOR, &got, &err), CONTROL_AGAIN);
  close(ends[0]);
  ck_assert_int_eq(control_receive(ends[1], CONTROL_FROM_SUPERVISOR, &got, &err), CONTROL_CLOSED);
  ck_assert_int_eq(control_send(ends[1], &sent, &err), CONTROL_CLOSED);
  close(ends[1]);
}
END_TEST

START_TEST(an_empty_packet_is_bad_and_not_the_end) {
  int ends[2];
  struct error err;
  ck_assert(control_channel_open(ends, &err));
  struct control_message sent = exited_message(), got;
  ck_assert_int_eq(send(ends[0], "", 0, MSG_NOSIGNAL), 0);
  ck_assert_int_eq(control_send(ends[0], &sent, &err), CONTROL_DONE);
  ck_assert_int_eq(control_receive(ends[1], CONTROL_FROM_SUPERVISOR, &got, &err), CONTROL_BAD);
  ck_assert(error_is(&err, ERR_CONTROL_MALFORMED));
  ck_assert_int_eq(control_receive(ends[1], CONTROL_FROM_SUPERVISOR, &got, &err), CONTROL_DONE);
  close(ends[0]);
  close(ends[1]);
}
END_TEST

START_TEST(a_peer_that_does_not_read_gives_again) {
  int ends[2];
  struct error err;
  ck_assert(control_channel_open(ends, &err));
  struct control_message message = exited_message();
  enum control_result result = CONTROL_DONE;
  for (int i = 0; i < 100000 && result == CONTROL_DONE; i++)
    result = control_send(ends[0], &message, &err);
  ck_assert_int_eq(result, CONTROL_AGAIN);
  close(ends[0]);
  close(ends[1]);
}
END_TEST

START_TEST(passed_descriptors_are_dropped) {
  int ends[2];
  struct error err;
  ck_assert(control_channel_open(ends, &err));
  struct control_message message = exited_message();
  uint8_t packet[CONTROL_PACKET_BYTES_MAX];
  size_t length = control_message_encode(&message, packet, &err);
  union {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
  } space = {0};
  struct iovec span = {packet, length};
  struct msghdr header = {
      .msg_iov = &span, .msg_iovlen = 1, .msg_control = space.bytes, .msg_controllen = sizeof(space.bytes)};
  struct cmsghdr *item = CMSG_FIRSTHDR(&header);
  item->cmsg_level = SOL_SOCKET;
  item->cmsg_type = SCM_RIGHTS;
  item->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(item), &ends[0], sizeof(int));
  ck_assert_int_eq(sendmsg(ends[0], &header, 0), (ssize_t)length);
  int lowest = dup(0);
  close(lowest);
  ck_assert_int_eq(control_receive(ends[1], CONTROL_FROM_SUPERVISOR, &message, &err), CONTROL_DONE);
  int after = dup(0);
  ck_assert_int_eq(after, lowest);
  close(after);
  close(ends[0]);
  close(ends[1]);
}
END_TEST

static const struct {
  const char *name, *bytes;
  size_t length;
} hostile[] = {
    {"empty", "", 0},
    {"one byte", "\xff", 1},
    {"no body", "\x08\x01", 2},
    {"unknown body", "\xc2\x3e\x00", 3},
    {"truncated length", "\x82\x02\x7f\x0a", 4},
    {"length beyond the packet", "\x62\xff\xff\xff\xff\x0f", 6},
    {"varint of eleven bytes", "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12},
    {"control character in an id",
     "\x62\x05\x0a\x03"
     "a\x1b"
     "b",
     7},
    {"invalid UTF-8 in an id", "\x62\x04\x0a\x02\xc0\x80", 6},
    {"a supervisor's body from the core", "\xfa\x01\x00", 3},
    {"end group", "\x0c", 1},
};

START_TEST(a_hostile_packet_is_refused) {
  struct control_message message;
  struct error err = {0};
  ck_assert_msg(!control_message_decode(hostile[_i].bytes, hostile[_i].length, CONTROL_FROM_CORE, &message, &err), "%s",
                hostile[_i].name);
  ck_assert_msg(error_is(&err, ERR_CONTROL_MALFORMED), "%s: %s", hostile[_i].name, err.code);
  ck_assert_int_eq(message.pb.which_body, 0);
}
END_TEST

START_TEST(an_id_that_is_too_long_is_refused) {
  uint8_t packet[128] = {0x62, 66, 0x0a, 64};
  memset(packet + 4, 'a', 64);
  struct control_message message;
  struct error err = {0};
  ck_assert(!control_message_decode(packet, 68, CONTROL_FROM_CORE, &message, &err));
  packet[1] = 65;
  packet[3] = 63;
  ck_assert(control_message_decode(packet, 67, CONTROL_FROM_CORE, &message, &err));
  ck_assert_uint_eq(strlen(message.pb.body.start.module_id), 63);
}
END_TEST

START_TEST(every_mutation_is_decoded_or_refused_without_harm) {
  struct control_message message = exited_message();
  uint8_t packet[CONTROL_PACKET_BYTES_MAX], mutated[CONTROL_PACKET_BYTES_MAX];
  size_t length = control_message_encode(&message, packet, NULL);
  ck_assert_uint_gt(length, 0);
  unsigned accepted = 0;
  for (size_t at = 0; at < length; at++)
    for (unsigned bit = 0; bit < 8; bit++) {
      memcpy(mutated, packet, length);
      mutated[at] = (uint8_t)(mutated[at] ^ (1u << bit));
      if (control_message_decode(mutated, length, CONTROL_FROM_SUPERVISOR, &message, NULL))
        accepted++;
    }
  ck_assert_uint_gt(accepted, 0);
  for (size_t cut = 0; cut < length; cut++)
    if (control_message_decode(packet, cut, CONTROL_FROM_SUPERVISOR, &message, NULL))
      ck_assert_int_ne(message.pb.which_body, 0);
}
END_TEST

START_TEST(a_message_without_a_body_is_not_sent) {
  struct control_message message = {0};
  uint8_t packet[CONTROL_PACKET_BYTES_MAX];
  struct error err = {0};
  ck_assert_uint_eq(control_message_encode(&message, packet, &err), 0);
  ck_assert(error_is(&err, ERR_CONTROL_MALFORMED));
}
END_TEST

START_TEST(bodies_have_names) {
  ck_assert_str_eq(control_body_name(supervisor_control_v1_ControlMessage_hello_tag), "Hello");
  ck_assert_str_eq(control_body_name(999), "unknown");
}
END_TEST

int main(void) {
  Suite *suite = suite_create("control");
  TCase *tests = tcase_create("control");
  tcase_add_test(tests, a_message_survives_the_channel);
  tcase_add_test(tests, an_empty_packet_is_bad_and_not_the_end);
  tcase_add_test(tests, a_peer_that_does_not_read_gives_again);
  tcase_add_test(tests, passed_descriptors_are_dropped);
  tcase_add_loop_test(tests, a_hostile_packet_is_refused, 0, sizeof(hostile) / sizeof(hostile[0]));
  tcase_add_test(tests, an_id_that_is_too_long_is_refused);
  tcase_add_test(tests, every_mutation_is_decoded_or_refused_without_harm);
  tcase_add_test(tests, a_message_without_a_body_is_not_sent);
  tcase_add_test(tests, bodies_have_names);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
