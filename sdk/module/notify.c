/* notify.c: one datagram to the service manager (sd_notify). Never blocks, never fails the caller: without
 * NOTIFY_SOCKET, or with one that cannot be reached, nothing happens. One whose queue is full (Linux has room for ten
 * datagrams unless told otherwise) is for the caller to try again. */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "sdk/base/str.h"
#include "sdk/module/module_internal.h"

bool module_notify(struct module *module, const char *text) {
  if (str_is_empty(module->notify_socket))
    return true;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (!str_copy(address.sun_path, sizeof(address.sun_path), module->notify_socket))
    return true;
  socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(address.sun_path));
  if (address.sun_path[0] == '@')
    address.sun_path[0] = '\0';
  else
    length++;
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0)
    return false;
  bool full = sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&address, length) < 0 &&
              (errno == EAGAIN || errno == ENOBUFS);
  close(fd);
  return !full;
}
