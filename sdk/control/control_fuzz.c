/* control_fuzz.c: fuzz target of the control channel: the first byte says who sends, the rest is one packet. What was
 * read can be written and reads again. */
#include <string.h>

#include "sdk/base/check.h"
#include "sdk/control/control.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct control_message message, again;
  uint8_t packet[CONTROL_PACKET_BYTES_MAX];
  struct error err;
  if (size == 0)
    return 0;
  enum control_sender sender = data[0] & 1 ? CONTROL_FROM_CORE : CONTROL_FROM_SUPERVISOR;
  if (!control_message_decode(data + 1, size - 1, sender, &message, &err))
    return 0;
  BASE_CHECK(strcmp(control_body_name(message.pb.which_body), "unknown") != 0);
  size_t length = control_message_encode(&message, packet, &err);
  BASE_CHECK(length > 0 && control_message_decode(packet, length, sender, &again, &err));
  BASE_CHECK(again.pb.which_body == message.pb.which_body);
  return 0;
}
