/* discovery.c: finds modules by their runtime sockets (<run>/modules/<id>/runtime.sock), whoever started them. The I/O
 * thread watches the folders with inotify and posts one scan at a time to the core thread; the scan reads the folders
 * and attaches what is new. A socket is new when its inode or change time differs from the one dialled last. */
#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/lifecycle/lifecycle_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/io.h"
#include "sdk/base/log.h"

#define WATCH_MASK (IN_CREATE | IN_MOVED_TO | IN_ATTRIB | IN_ONLYDIR)

struct lifecycle_discovery {
  struct lifecycle *lifecycle;
  char *folder;
  int fd;
  struct event *event; /* I/O thread */
  atomic_bool scan_posted;
  atomic_bool stopped;
};

/* I/O thread: watches the folder and every folder in it; watching twice is fine. */
static void watch_folders(struct lifecycle_discovery *discovery) {
  DIR *directory = opendir(discovery->folder);
  if (!directory)
    return;
  inotify_add_watch(discovery->fd, discovery->folder, WATCH_MASK);
  for (struct dirent *entry; (entry = readdir(directory));) {
    char path[512];
    if (entry->d_name[0] == '.')
      continue;
    if (snprintf(path, sizeof(path), "%s/%s", discovery->folder, entry->d_name) < (int)sizeof(path))
      inotify_add_watch(discovery->fd, path, WATCH_MASK);
  }
  closedir(directory);
}

/* Core thread. */
static void scan_task(void *argument) {
  struct lifecycle_discovery *discovery = argument;
  atomic_store(&discovery->scan_posted, false);
  if (!atomic_load(&discovery->stopped))
    lifecycle_discovery_scan(discovery->lifecycle);
}

static void scan_post(struct lifecycle_discovery *discovery) {
  if (!atomic_exchange(&discovery->scan_posted, true))
    core_rpc_post(discovery->lifecycle->options.loop, scan_task, discovery);
}

/* I/O thread. */
static void on_inotify(evutil_socket_t fd, short what, void *argument) {
  struct lifecycle_discovery *discovery = argument;
  char events[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
  ssize_t length;
  bool folders_changed = false;
  (void)what;
  while ((length = read((int)fd, events, sizeof(events))) > 0) {
    for (char *at = events; at < events + length;) {
      const struct inotify_event *event = (const struct inotify_event *)(void *)at;
      folders_changed = folders_changed || (event->mask & (IN_ISDIR | IN_Q_OVERFLOW));
      at += sizeof(*event) + event->len;
    }
  }
  if (folders_changed)
    watch_folders(discovery);
  scan_post(discovery);
}

/* I/O thread. */
static void watch_begin(void *argument) {
  struct lifecycle_discovery *discovery = argument;
  discovery->event = event_new(core_rpc_io_base(discovery->lifecycle->options.loop), discovery->fd,
                               EV_READ | EV_PERSIST, on_inotify, discovery);
  event_add(discovery->event, NULL);
  watch_folders(discovery);
  scan_post(discovery);
}

/* I/O thread: the last one to touch it. */
static void watch_end(void *argument) {
  struct lifecycle_discovery *discovery = argument;
  if (discovery->event)
    event_free(discovery->event);
  close(discovery->fd);
  discovery->fd = -1;
}

struct lifecycle_discovery *lifecycle_discovery_start(struct lifecycle *lifecycle, struct error *err) {
  struct lifecycle_discovery *discovery = BASE_NEW(struct lifecycle_discovery);
  discovery->lifecycle = lifecycle;
  discovery->folder = base_asprintf("%s/modules", lifecycle->run_dir);
  discovery->fd = lifecycle->options.watch_fd >= 0 ? fcntl(lifecycle->options.watch_fd, F_DUPFD_CLOEXEC, 0)
                                                   : inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  bool folder_ok = access(discovery->folder, F_OK) == 0 || io_make_directories(discovery->folder, 0711, err);
  if (discovery->fd < 0 || !folder_ok) {
    error_set(err, ERR_IO, "the folder of the modules cannot be watched");
    if (discovery->fd >= 0)
      close(discovery->fd);
    base_free(discovery->folder);
    base_free(discovery);
    return NULL;
  }
  core_rpc_io_post(lifecycle->options.loop, watch_begin, discovery);
  return discovery;
}

void lifecycle_discovery_stop(struct lifecycle_discovery *discovery) {
  if (!discovery)
    return;
  atomic_store(&discovery->stopped, true);
  core_rpc_io_post(discovery->lifecycle->options.loop, watch_end, discovery);
}

void lifecycle_discovery_free(struct lifecycle_discovery **holder) {
  struct lifecycle_discovery *discovery = BASE_TAKE(*holder);
  if (!discovery)
    return;
  base_free(discovery->folder);
  base_free(discovery);
}

struct lifecycle_socket lifecycle_discovery_look(const struct lifecycle_module *module) {
  struct stat status;
  if (stat(module->runtime_path, &status) != 0 || !S_ISSOCK(status.st_mode))
    return (struct lifecycle_socket){0};
  return (struct lifecycle_socket){
      .inode = status.st_ino,
      .changed_ns = (int64_t)status.st_ctim.tv_sec * 1000000000 + status.st_ctim.tv_nsec,
  };
}

/* Core thread: is there a socket that was not dialled yet? */
static bool socket_is_new(const struct lifecycle_module *module) {
  struct lifecycle_socket now = lifecycle_discovery_look(module);
  if (!now.inode)
    return false;
  if (module->instance && module->instance->channel && module->dialled.inode == now.inode)
    return false; /* being served; only its mode may have changed */
  return module->dialled.inode != now.inode || module->dialled.changed_ns != now.changed_ns;
}

void lifecycle_discovery_scan(struct lifecycle *lifecycle) {
  if (lifecycle->stopping)
    return;
  char folder[512];
  snprintf(folder, sizeof(folder), "%s/modules", lifecycle->run_dir);
  DIR *directory = opendir(folder);
  if (!directory) {
    log_event(LOG_ERROR, "lifecycle", "the folder of the modules cannot be read", LOG_INT("errno", errno));
    return;
  }
  for (struct dirent *entry; (entry = readdir(directory));) {
    char path[1024];
    struct stat status;
    if (entry->d_name[0] == '.')
      continue;
    snprintf(path, sizeof(path), "%s/%s/runtime.sock", folder, entry->d_name);
    if (stat(path, &status) != 0 || !S_ISSOCK(status.st_mode))
      continue;
    struct lifecycle_module *module = lifecycle_module_ensure(lifecycle, entry->d_name);
    if (module && !module->attach_waits && socket_is_new(module))
      lifecycle_instance_attach(module);
  }
  closedir(directory);
}
