/* control.h: the control channel between supervisor and core (proto/supervisor/control/v1/control.proto says what is
 * said on it).
 *
 * One message is one packet of a SOCK_SEQPACKET socket pair, so there is no framing and a bad packet never hurts the
 * next one. Nothing here allocates: messages are fixed structs, packets live on the stack (the supervisor's restart
 * path needs that). Text fields are checked to be UTF-8 without control characters before the caller sees them.
 * Descriptors that a peer tries to pass are dropped by the kernel. Any thread; one channel end belongs to one thread.
 * Serves LIF-7, LIF-12. */
#ifndef GATEHOUSE_SDK_CONTROL_H
#define GATEHOUSE_SDK_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sdk/base/error.h"
#include "supervisor/control/v1/control.pb.h"

/* Largest packet; the largest valid message is smaller. */
#define CONTROL_PACKET_BYTES_MAX 8192

/* The environment variable that names the inherited descriptor in the core. */
#define CONTROL_FD_VARIABLE "GATEHOUSE_CONTROL_FD"

/* The environment variable that names an inherited inotify descriptor in the core, for its discovery of modules. The
 * supervisor holds it open: the kernel takes some 15 ms to close the last descriptor of an inotify instance that
 * watches something, and a core that was killed would be dead only then. */
#define CONTROL_WATCH_FD_VARIABLE "GATEHOUSE_WATCH_FD"

struct control_message {
  supervisor_control_v1_ControlMessage pb;
};

/* Who may send a body. */
enum control_sender { CONTROL_FROM_CORE = 1, CONTROL_FROM_SUPERVISOR = 2 };

enum control_result {
  CONTROL_DONE,   /* one message sent or received */
  CONTROL_AGAIN,  /* would block; wait for the descriptor */
  CONTROL_CLOSED, /* the other side is gone */
  CONTROL_BAD /* the packet was no valid message (receive) or could not be sent; *err says why; the channel lives on */
};

/* Packs a message. target: at least CONTROL_PACKET_BYTES_MAX bytes. Returns the length in bytes, 0 on failure:
 * ERR_CONTROL_MALFORMED for a body that is not in the table or a text without its end. */
size_t control_message_encode(const struct control_message *message, uint8_t target[static CONTROL_PACKET_BYTES_MAX],
                              struct error *err);

/* Unpacks one packet that `sender` may have written. Errors: ERR_CONTROL_MALFORMED (not protobuf, no or an unknown
 * body, a body that this sender may not send, text that is no clean UTF-8). On failure *message is zeroed. */
bool control_message_decode(const void *data, size_t length, enum control_sender sender,
                            struct control_message *message, struct error *err);

/* Sends one message on a non-blocking channel end. CONTROL_AGAIN: the peer does not read; nothing was sent. */
enum control_result control_send(int fd, const struct control_message *message, struct error *err);

/* Receives one message from `sender`. */
enum control_result control_receive(int fd, enum control_sender sender, struct control_message *message,
                                    struct error *err);

/* Both ends of a channel: non-blocking, close-on-exec. ERR_IO. The caller closes them. */
bool control_channel_open(int ends[static 2], struct error *err);

/* Name of a body for logs ("Start"); "unknown" for a tag that is not in the table. */
const char *control_body_name(pb_size_t which_body);

#endif
