/* listeners.c: sockets passed in by the systemd convention: LISTEN_FDS descriptors from 3 on, named by LISTEN_FDNAMES.
 * A LISTEN_PID that names another process means they are not ours. Owns the descriptors until module_listener_take
 * gives them away. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/io.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"
#include "sdk/module/module_internal.h"

#define LISTEN_FDS_FIRST 3
#define LISTEN_FDS_MOST 256

void module_listeners_adopt(struct module *module) {
  uint64_t count = 0, pid = 0;
  const char *count_text = getenv("LISTEN_FDS"), *pid_text = getenv("LISTEN_PID"), *names = getenv("LISTEN_FDNAMES");
  bool ours = count_text && str_parse_u64(count_text, &count) && count <= LISTEN_FDS_MOST &&
              (!pid_text || (str_parse_u64(pid_text, &pid) && pid == (uint64_t)getpid()));
  if (ours && count > 0) {
    char *rest = base_strdup(names ? names : ""), *cursor = rest;
    module->listeners = base_calloc(count, sizeof(*module->listeners));
    for (uint64_t i = 0; i < count; i++) {
      int fd = LISTEN_FDS_FIRST + (int)i;
      const char *name = strsep(&cursor, ":");
      if (!io_set_cloexec(fd, true) || !io_set_nonblocking(fd, true)) {
        log_event(LOG_WARN, "module", "a passed descriptor is not open", LOG_INT("descriptor", fd));
        continue;
      }
      module->listeners[module->listener_count++] =
          (struct module_listener){.fd = fd, .name = base_strdup(str_is_empty(name) ? "unknown" : name)};
    }
    base_free(rest);
  }
  unsetenv("LISTEN_FDS");
  unsetenv("LISTEN_PID");
  unsetenv("LISTEN_FDNAMES");
}

int module_listener_take(struct module *module, const char *name) {
  BASE_CHECK_MAGIC(module, MODULE_MAGIC);
  for (size_t i = 0; i < module->listener_count; i++) {
    struct module_listener *listener = &module->listeners[i];
    if (listener->fd >= 0 && str_equal(listener->name, name)) {
      int fd = listener->fd;
      listener->fd = -1;
      return fd;
    }
  }
  return -1;
}

void module_listeners_close(struct module *module) {
  for (size_t i = 0; i < module->listener_count; i++) {
    if (module->listeners[i].fd >= 0)
      close(module->listeners[i].fd);
    base_free(module->listeners[i].name);
  }
  base_free(module->listeners);
  module->listeners = NULL;
  module->listener_count = 0;
}
