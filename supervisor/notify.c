/* notify.c: sd_notify. Downward: one datagram socket for all children; who speaks is told by the kernel
 * (SCM_CREDENTIALS), and only a child's main process of the living generation is heard. Upward: upward.c. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "sdk/base/alloc.h"
#include "sdk/base/str.h"
#include "supervisor/supervisor_internal.h"

#define DATAGRAM_BYTES 2048
#define DATAGRAMS_PER_TURN 32

static void take_status(struct notify_news *news, const char *text, size_t length) {
  size_t kept = length < sizeof(news->status) - 1 ? length : sizeof(news->status) - 1;
  if (kept < length)
    while (kept > 0 && ((unsigned char)text[kept] & 0xc0) == 0x80)
      kept--;
  memcpy(news->status, text, kept);
  news->status[kept] = '\0';
  news->has_status = str_is_utf8(news->status, kept);
  for (size_t i = 0; i < kept; i++)
    if ((unsigned char)news->status[i] < 0x20 || news->status[i] == 0x7f)
      news->status[i] = ' ';
}

static bool line_is(const char *line, size_t length, const char *text) {
  return strlen(text) == length && memcmp(line, text, length) == 0;
}

void notify_parse(const char *data, size_t length, struct notify_news *news) {
  *news = (struct notify_news){0};
  while (length > 0) {
    const char *end = memchr(data, '\n', length);
    size_t line = end ? (size_t)(end - data) : length;
    news->ready |= line_is(data, line, "READY=1");
    news->watchdog |= line_is(data, line, "WATCHDOG=1");
    news->stopping |= line_is(data, line, "STOPPING=1");
    if (line >= 7 && memcmp(data, "STATUS=", 7) == 0)
      take_status(news, data + 7, line - 7);
    data += line + (end ? 1 : 0);
    length -= line + (end ? 1 : 0);
  }
}

static struct child *find_by_pid(struct supervisor *supervisor, pid_t pid) {
  for (size_t i = 0; i < supervisor->child_count; i++)
    if (child_is_running(&supervisor->children[i]) && supervisor->children[i].pid == pid)
      return &supervisor->children[i];
  return NULL;
}

static void hear(struct supervisor *supervisor, pid_t pid, const char *data, size_t length) {
  struct notify_news news;
  struct child *child = find_by_pid(supervisor, pid);
  if (!child)
    return;
  notify_parse(data, length, &news);
  if (news.has_status)
    str_copy(child->status, sizeof(child->status), news.status);
  if (news.watchdog)
    child_happens(child, CHILD_EVENT_ALIVE);
  if (news.ready && !child->ready)
    child_happens(child, CHILD_EVENT_READY);
  if (news.ready || news.has_status)
    supervisor_child_notified(child);
}

static void on_notify(evutil_socket_t fd, short what, void *context) {
  (void)what;
  for (unsigned i = 0; i < DATAGRAMS_PER_TURN; i++) {
    char data[DATAGRAM_BYTES];
    union {
      char bytes[CMSG_SPACE(sizeof(struct ucred))];
      struct cmsghdr align;
    } space;
    struct iovec span = {data, sizeof(data)};
    struct msghdr header = {
        .msg_iov = &span, .msg_iovlen = 1, .msg_control = space.bytes, .msg_controllen = sizeof(space.bytes)};
    ssize_t length = recvmsg(fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (length < 0)
      return;
    const struct cmsghdr *item = CMSG_FIRSTHDR(&header);
    struct ucred sender;
    if (!item || item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_CREDENTIALS || (header.msg_flags & MSG_TRUNC))
      continue;
    memcpy(&sender, CMSG_DATA(item), sizeof(sender));
    hear(context, sender.pid, data, (size_t)length);
  }
}

bool notify_open(struct supervisor *supervisor, struct error *err) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  int yes = 1;
  str_copy(address.sun_path, sizeof(address.sun_path), supervisor->notify_path);
  unlink(supervisor->notify_path);
  supervisor->notify_fd = spawn_descriptor_raise(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (supervisor->notify_fd < 0 || setsockopt(supervisor->notify_fd, SOL_SOCKET, SO_PASSCRED, &yes, sizeof(yes)) != 0 ||
      bind(supervisor->notify_fd, (struct sockaddr *)&address, sizeof(address)) != 0 ||
      chmod(supervisor->notify_path, 0666) != 0) /* any child's user; the kernel says who it is */
    return error_set(err, ERR_IO, "the notification socket cannot be made: %s", strerrorname_np(errno));
  event_assign(&supervisor->notify_event, supervisor->base, supervisor->notify_fd, EV_READ | EV_PERSIST, on_notify,
               supervisor);
  event_add(&supervisor->notify_event, NULL);
  return true;
}

void notify_close(struct supervisor *supervisor) {
  if (supervisor->notify_fd < 0)
    return;
  event_end(&supervisor->notify_event);
  close(supervisor->notify_fd);
  unlink(supervisor->notify_path);
}
