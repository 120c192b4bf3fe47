/* control.c: one table of bodies; packs, checks, sends and receives control messages. Owns nothing, allocates nothing.
 */
#include "sdk/control/control.h"

#include <errno.h>
#include <pb_common.h>
#include <pb_decode.h>
#include <pb_encode.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sdk/base/check.h"
#include "sdk/base/str.h"

_Static_assert(supervisor_control_v1_ControlMessage_size <= CONTROL_PACKET_BYTES_MAX, "a message must fit a packet");

/* Every body: field name in the oneof, message name, who may send it. */
#define CONTROL_BODIES(X)                                                                                              \
  X(core_ready, CoreReady, CONTROL_FROM_CORE)                                                                          \
  X(heartbeat, Heartbeat, CONTROL_FROM_CORE)                                                                           \
  X(start, Start, CONTROL_FROM_CORE)                                                                                   \
  X(stop, Stop, CONTROL_FROM_CORE)                                                                                     \
  X(restart, Restart, CONTROL_FROM_CORE)                                                                               \
  X(kill, Kill, CONTROL_FROM_CORE)                                                                                     \
  X(hold, Hold, CONTROL_FROM_CORE)                                                                                     \
  X(list_processes, ListProcesses, CONTROL_FROM_CORE)                                                                  \
  X(module_ready, ModuleReady, CONTROL_FROM_CORE)                                                                      \
  X(stage, Stage, CONTROL_FROM_CORE)                                                                                   \
  X(promote, Promote, CONTROL_FROM_CORE)                                                                               \
  X(describe_program, DescribeProgram, CONTROL_FROM_CORE)                                                              \
  X(replace_core, ReplaceCore, CONTROL_FROM_CORE)                                                                      \
  X(core_verdict, CoreVerdict, CONTROL_FROM_CORE)                                                                      \
  X(raise_alert, RaiseAlert, CONTROL_FROM_CORE)                                                                        \
  X(shutdown, Shutdown, CONTROL_FROM_CORE)                                                                             \
  X(hello, Hello, CONTROL_FROM_SUPERVISOR)                                                                             \
  X(configured_module, ConfiguredModule, CONTROL_FROM_SUPERVISOR)                                                      \
  X(spawned, Spawned, CONTROL_FROM_SUPERVISOR)                                                                         \
  X(notified, Notified, CONTROL_FROM_SUPERVISOR)                                                                       \
  X(exited, Exited, CONTROL_FROM_SUPERVISOR)                                                                           \
  X(spawn_failed, SpawnFailed, CONTROL_FROM_SUPERVISOR)                                                                \
  X(process_entry, ProcessEntry, CONTROL_FROM_SUPERVISOR)                                                              \
  X(accepted, Accepted, CONTROL_FROM_SUPERVISOR)                                                                       \
  X(refused, Refused, CONTROL_FROM_SUPERVISOR)                                                                         \
  X(reconfigured, Reconfigured, CONTROL_FROM_SUPERVISOR)                                                               \
  X(program_described, ProgramDescribed, CONTROL_FROM_SUPERVISOR)                                                      \
  X(core_program, CoreProgram, CONTROL_FROM_SUPERVISOR)                                                                \
  X(alert_report, AlertReport, CONTROL_FROM_SUPERVISOR)

struct body {
  pb_size_t tag;
  const char *name;
  enum control_sender sender;
};

static const struct body bodies[] = {
#define BODY(field, name, sender) {supervisor_control_v1_ControlMessage_##field##_tag, #name, sender},
    CONTROL_BODIES(BODY)
#undef BODY
};

static const struct body *find_body(pb_size_t tag) {
  for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++)
    if (bodies[i].tag == tag)
      return &bodies[i];
  return NULL;
}

const char *control_body_name(pb_size_t which_body) {
  const struct body *body = find_body(which_body);
  return body ? body->name : "unknown";
}

/* Text from the other side goes to logs, terminals and the state graph: UTF-8, no control characters but the tab. */
static bool text_is_clean(const char *text) {
  size_t length = strlen(text);
  for (size_t i = 0; i < length; i++)
    if (((unsigned char)text[i] < 0x20 && text[i] != '\t') || text[i] == 0x7f)
      return false;
  return str_is_utf8(text, length);
}

/* Walks the fields of a message by nanopb's descriptor: a new text field in the .proto is checked without a change
 * here. */
static bool texts_are_clean(const pb_msgdesc_t *descriptor, void *message) {
  pb_field_iter_t field;
  if (!pb_field_iter_begin(&field, descriptor, message))
    return true;
  do {
    if (PB_HTYPE(field.type) == PB_HTYPE_ONEOF && *(pb_size_t *)field.pSize != field.tag)
      continue;
    pb_size_t count = PB_HTYPE(field.type) == PB_HTYPE_REPEATED ? *(pb_size_t *)field.pSize : 1;
    for (pb_size_t i = 0; i < count; i++) {
      char *item = (char *)field.pData + (size_t)i * field.data_size;
      if (PB_LTYPE(field.type) == PB_LTYPE_STRING && !text_is_clean(item))
        return false;
      if (PB_LTYPE_IS_SUBMSG(field.type) && !texts_are_clean(field.submsg_desc, item))
        return false;
    }
  } while (pb_field_iter_next(&field));
  return true;
}

size_t control_message_encode(const struct control_message *message, uint8_t target[static CONTROL_PACKET_BYTES_MAX],
                              struct error *err) {
  if (!find_body(message->pb.which_body)) {
    error_set(err, ERR_CONTROL_MALFORMED, "the control message has no body");
    return 0;
  }
  pb_ostream_t stream = pb_ostream_from_buffer(target, CONTROL_PACKET_BYTES_MAX);
  if (!pb_encode(&stream, supervisor_control_v1_ControlMessage_fields, &message->pb)) {
    error_set(err, ERR_CONTROL_MALFORMED, "the control message cannot be encoded");
    return 0;
  }
  return stream.bytes_written;
}

static bool refuse(struct control_message *message, struct error *err, const char *why) {
  memset(message, 0, sizeof(*message));
  return error_set(err, ERR_CONTROL_MALFORMED, "%s", why);
}

bool control_message_decode(const void *data, size_t length, enum control_sender sender,
                            struct control_message *message, struct error *err) {
  memset(message, 0, sizeof(*message));
  pb_istream_t stream = pb_istream_from_buffer(data, length);
  if (length > CONTROL_PACKET_BYTES_MAX)
    return refuse(message, err, "the control packet is too large");
  if (!pb_decode(&stream, supervisor_control_v1_ControlMessage_fields, &message->pb))
    return refuse(message, err, "the control packet is not a control message");
  const struct body *body = find_body(message->pb.which_body);
  if (!body)
    return refuse(message, err, "the control message has no known body");
  if (body->sender != sender)
    return refuse(message, err, "this side may not send such a control message");
  if (!texts_are_clean(supervisor_control_v1_ControlMessage_fields, &message->pb))
    return refuse(message, err, "the control message holds unclean text");
  return true;
}

enum control_result control_send(int fd, const struct control_message *message, struct error *err) {
  uint8_t packet[CONTROL_PACKET_BYTES_MAX];
  size_t length = control_message_encode(message, packet, err);
  if (length == 0)
    return CONTROL_BAD;
  ssize_t sent;
  do
    sent = send(fd, packet, length, MSG_NOSIGNAL | MSG_DONTWAIT);
  while (sent < 0 && errno == EINTR);
  if (sent >= 0)
    return CONTROL_DONE;
  if (errno == EAGAIN || errno == ENOBUFS)
    return CONTROL_AGAIN;
  if (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN)
    return CONTROL_CLOSED;
  error_set(err, ERR_IO, "the control channel cannot be written");
  return CONTROL_BAD;
}

/* An empty packet reads like the end of file; only the end hangs up. */
static bool is_hung_up(int fd) {
  struct pollfd look = {.fd = fd, .events = POLLRDHUP};
  return poll(&look, 1, 0) < 0 || (look.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

enum control_result control_receive(int fd, enum control_sender sender, struct control_message *message,
                                    struct error *err) {
  uint8_t packet[CONTROL_PACKET_BYTES_MAX];
  struct iovec span = {packet, sizeof(packet)};
  struct msghdr header = {.msg_iov = &span, .msg_iovlen = 1}; /* no room for descriptors: the kernel closes any */
  ssize_t received;
  do
    received = recvmsg(fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  while (received < 0 && errno == EINTR);
  if (received < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
    return CONTROL_AGAIN;
  if (received == 0 && !is_hung_up(fd)) {
    refuse(message, err, "the control packet is empty");
    return CONTROL_BAD;
  }
  if (received <= 0)
    return CONTROL_CLOSED;
  if (header.msg_flags & MSG_TRUNC) {
    refuse(message, err, "the control packet is too large");
    return CONTROL_BAD;
  }
  return control_message_decode(packet, (size_t)received, sender, message, err) ? CONTROL_DONE : CONTROL_BAD;
}

bool control_channel_open(int ends[static 2], struct error *err) {
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0)
    return true;
  return error_set(err, ERR_IO, "the control channel cannot be opened: %s", strerrorname_np(errno));
}
