/* sandbox_landlock.c: files, TCP ports and signals of a sandboxed process by Landlock (LIF-14). Rules name what was
 * found at the path when the supervisor started: a file that is replaced by another of its name later is not in them,
 * one in a folder is. The kernel's numbers are written here, since headers may be older than the kernel. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sdk/base/str.h"
#include "supervisor/sandbox.h"
#include "supervisor/spawn.h"

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#endif

enum { CREATE_VERSION = 1, RULE_PATH = 1, RULE_PORT = 2 };

/* Rights to files, by bit. */
enum {
  FILE_EXECUTE = 1 << 0,
  FILE_WRITE = 1 << 1,
  FILE_READ = 1 << 2,
  FOLDER_READ = 1 << 3,
  FOLDER_REMOVE_FOLDER = 1 << 4,
  FOLDER_REMOVE_FILE = 1 << 5,
  MAKE_CHARACTER_DEVICE = 1 << 6,
  MAKE_FOLDER = 1 << 7,
  MAKE_FILE = 1 << 8,
  MAKE_SOCKET = 1 << 9,
  MAKE_FIFO = 1 << 10,
  MAKE_BLOCK_DEVICE = 1 << 11,
  MAKE_LINK = 1 << 12,
  FILE_MOVE = 1 << 13,     /* version 2 */
  FILE_TRUNCATE = 1 << 14, /* version 3 */
  DEVICE_CONTROL = 1 << 15 /* version 5 */
};
enum { BIND_TCP = 1, CONNECT_TCP = 2 };                 /* version 4 */
enum { SCOPE_ABSTRACT_SOCKETS = 1, SCOPE_SIGNALS = 2 }; /* version 6 */

#define OF_FILES (FILE_EXECUTE | FILE_WRITE | FILE_READ | FILE_TRUNCATE | DEVICE_CONTROL)

struct ruleset_attributes {
  uint64_t files, network, scope;
};
struct path_rule {
  uint64_t allowed;
  int32_t parent_fd;
} __attribute__((packed));
struct port_rule {
  uint64_t allowed, port;
};

static const uint64_t rights[] = {
    [SANDBOX_READ] = FILE_READ | FOLDER_READ,
    [SANDBOX_EXECUTE] = FILE_READ | FOLDER_READ | FILE_EXECUTE,
    [SANDBOX_WRITE] = FILE_READ | FILE_WRITE | FILE_TRUNCATE,
    [SANDBOX_OWN] = FILE_READ | FILE_WRITE | FILE_TRUNCATE | FOLDER_READ | FOLDER_REMOVE_FOLDER | FOLDER_REMOVE_FILE |
                    MAKE_FOLDER | MAKE_FILE | MAKE_SOCKET | MAKE_FIFO | MAKE_LINK | FILE_MOVE,
};

int sandbox_landlock_version(void) {
  long version = syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_VERSION);
  return version > 0 ? (int)version : 0;
}

struct maker {
  int fd;
  uint64_t handled;
  char failed[64]; /* path of the first rule that could not be made; "": none */
};

static void add_descriptor(struct maker *maker, int fd, enum sandbox_access access, const char *path) {
  struct stat status;
  if (fstat(fd, &status) != 0)
    return;
  struct path_rule rule = {rights[access] & maker->handled, fd};
  if (!S_ISDIR(status.st_mode))
    rule.allowed &= OF_FILES;
  if (syscall(SYS_landlock_add_rule, maker->fd, RULE_PATH, &rule, 0) != 0 && !maker->failed[0])
    str_copy(maker->failed, sizeof(maker->failed), path);
}

static void add_path(void *argument, const char *path, enum sandbox_access access) {
  int fd = open(path, O_PATH | O_CLOEXEC);
  if (fd < 0)
    return; /* not on this machine */
  add_descriptor(argument, fd, access, path);
  close(fd);
}

static void note_network(struct sandbox *sandbox, const struct sandbox_network *network, int version) {
  if (version < 4)
    sandbox_note(sandbox, SANDBOX_LANDLOCK_NETWORK, SANDBOX_OFF, "the kernel has Landlock %d; 4 is needed", version);
  else if (network->any)
    sandbox_note(sandbox, SANDBOX_LANDLOCK_NETWORK, SANDBOX_IN_FORCE, "binds no TCP port; may connect to any");
  else
    sandbox_note(sandbox, SANDBOX_LANDLOCK_NETWORK, SANDBOX_IN_FORCE, "binds no TCP port; may connect to %zu",
                 network->port_count);
}

void sandbox_landlock_prepare(struct sandbox *sandbox, const struct sandbox_wish *wish) {
  int version = sandbox_landlock_version();
  struct sandbox_network network = sandbox_network_of(sandbox, wish->module);
  if (version == 0) {
    for (enum sandbox_measure i = SANDBOX_LANDLOCK_FILES; i <= SANDBOX_LANDLOCK_SCOPE; i++)
      sandbox_note(sandbox, i, SANDBOX_OFF, "the kernel has no Landlock, or it is not enabled");
    return;
  }
  struct ruleset_attributes attributes = {.files = (1 << 13) - 1};
  attributes.files |=
      (version >= 2 ? FILE_MOVE : 0) | (version >= 3 ? FILE_TRUNCATE : 0) | (version >= 5 ? DEVICE_CONTROL : 0);
  if (version >= 4)
    attributes.network = (uint64_t)BIND_TCP | (network.any ? 0 : CONNECT_TCP);
  if (version >= 6)
    attributes.scope = SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS;
  size_t bytes = version >= 6 ? 24 : version >= 4 ? 16 : 8;
  struct maker maker = {.handled = attributes.files};
  maker.fd = (int)syscall(SYS_landlock_create_ruleset, &attributes, bytes, 0);
  if (maker.fd < 0) {
    for (enum sandbox_measure i = SANDBOX_LANDLOCK_FILES; i <= SANDBOX_LANDLOCK_SCOPE; i++)
      sandbox_note(sandbox, i, SANDBOX_OFF, "a ruleset cannot be made: %s", strerrorname_np(errno));
    return;
  }
  sandbox_files_visit(sandbox, wish, add_path, &maker);
  if (sandbox->tmp_fd >= 0)
    add_descriptor(&maker, sandbox->tmp_fd, SANDBOX_OWN, "/tmp");
  for (size_t i = 0; i < network.port_count && version >= 4 && !network.any; i++) {
    struct port_rule rule = {CONNECT_TCP, network.ports[i]};
    if (syscall(SYS_landlock_add_rule, maker.fd, RULE_PORT, &rule, 0) != 0 && !maker.failed[0])
      str_copy(maker.failed, sizeof(maker.failed), "a TCP port");
  }
  sandbox->landlock_fd = spawn_descriptor_raise(maker.fd);
  bool loosened = wish->module->sandbox_read.count + wish->module->sandbox_write.count > 0;
  if (maker.failed[0]) /* stricter than asked for, never looser */
    sandbox_note(sandbox, SANDBOX_LANDLOCK_FILES, SANDBOX_IN_FORCE, "Landlock %d, but without %.60s", version,
                 maker.failed);
  else
    sandbox_note(sandbox, SANDBOX_LANDLOCK_FILES, loosened ? SANDBOX_LOOSENED : SANDBOX_IN_FORCE,
                 loosened ? "Landlock %d; sandbox.read and .write name more" : "Landlock %d", version);
  note_network(sandbox, &network, version);
  if (version >= 6)
    sandbox_note(sandbox, SANDBOX_LANDLOCK_SCOPE, SANDBOX_IN_FORCE, "signals and abstract sockets stay inside");
  else
    sandbox_note(sandbox, SANDBOX_LANDLOCK_SCOPE, SANDBOX_OFF, "the kernel has Landlock %d; 6 is needed", version);
}
