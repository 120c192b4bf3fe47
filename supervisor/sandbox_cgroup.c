/* sandbox_cgroup.c: a control group per module below the one that was delegated to the supervisor (LIF-14): memory,
 * processes and processor time of all that the module starts, as far as there is a controller for them; and whether a
 * module was ended because its memory ran out (LIF-7), which costs one read per life and no allocation.
 *
 * Delegated means: systemd says so (the attribute user.delegate or trusted.delegate, Delegate=yes in the unit), or the
 * group belongs to our user who is not root, or it is the root of a container's cgroup namespace. In any other group we
 * would be meddling with somebody else's. The supervisor itself moves into a leaf, since a group with controllers for
 * its children may hold no process. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "sdk/base/alloc.h"
#include "sdk/base/buf.h"
#include "sdk/base/str.h"
#include "supervisor/sandbox.h"
#include "supervisor/spawn.h"

#define EVENTS_BYTES 512

static bool write_text(const char *folder, const char *name, const char *text) {
  char *path = base_asprintf("%s/%s", folder, name);
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  base_free(path);
  bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
  if (fd >= 0)
    close(fd);
  return ok;
}

static bool read_text(const char *folder, const char *name, char *target, size_t target_bytes) {
  char *path = base_asprintf("%s/%s", folder, name);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  base_free(path);
  ssize_t length = fd >= 0 ? read(fd, target, target_bytes - 1) : -1;
  if (fd >= 0)
    close(fd);
  target[length > 0 ? length : 0] = '\0';
  return length >= 0;
}

/* Where cgroup v2 is mounted; NULL: nowhere. The caller frees. */
static char *find_mount(const char *mountinfo) {
  char line[4096], place[1024], type[64];
  char *found = NULL;
  FILE *file = fopen(mountinfo, "re");
  while (file && !found && fgets(line, sizeof(line), file)) {
    const char *behind = strstr(line, " - ");
    if (behind && sscanf(behind, " - %63s", type) == 1 && str_equal(type, "cgroup2") &&
        sscanf(line, "%*s %*s %*s %*s %1023s", place) == 1)
      found = base_strdup(place);
  }
  if (file)
    fclose(file);
  return found;
}

/* Our group's path in the hierarchy, such as "/system.slice/gatehouse.service"; false: none. */
static bool find_own(const char *membership, char *target, size_t target_bytes) {
  char line[1024];
  bool found = false;
  FILE *file = fopen(membership, "re");
  while (file && !found && fgets(line, sizeof(line), file))
    if (str_starts_with(line, "0::")) {
      line[strcspn(line, "\n")] = '\0';
      str_copy(target, target_bytes, line + 3);
      found = true;
    }
  if (file)
    fclose(file);
  return found;
}

static bool is_delegated(const char *folder, const char *own) {
  static const char *const attributes[] = {"user.delegate", "trusted.delegate"};
  struct stat status;
  char value[8] = "", *type = base_asprintf("%s/cgroup.type", folder);
  bool delegated = false;
  for (size_t i = 0; i < 2 && !delegated; i++)
    delegated = getxattr(folder, attributes[i], value, sizeof(value) - 1) > 0 && value[0] == '1';
  if (!delegated && stat(folder, &status) == 0)
    delegated = (status.st_uid == geteuid() && geteuid() != 0) ||
                (str_equal(own, "/") && access(type, F_OK) == 0); /* the machine's own root has no type */
  base_free(type);
  return delegated;
}

static bool set_number(const char *group, const char *name, int64_t value) {
  char text[32];
  snprintf(text, sizeof(text), "%lld", (long long)value);
  return write_text(group, name, value > 0 ? text : "max");
}

static bool set_memory(const char *group, int64_t bytes) {
  return set_number(group, "memory.max", bytes) &&
         (write_text(group, "memory.oom.group", bytes > 0 ? "1" : "0") || bytes == 0);
}

static bool set_processes(const char *group, int64_t count) {
  return set_number(group, "pids.max", count);
}

static bool set_processor(const char *group, int64_t percent) {
  char text[48];
  snprintf(text, sizeof(text), "%lld 100000", (long long)percent * 1000);
  return write_text(group, "cpu.max", percent > 0 ? text : "max") || percent == 0;
}

/* What may be limited: the controller, how, and where the limit is in a module's configuration (0: none). Also what is
 * not limited is written: a gateway before us may have limited it. */
static const struct controller {
  const char *name;
  bool (*set)(const char *group, int64_t limit);
  size_t limit_at;
} controllers[] = {
    {"memory", set_memory, offsetof(struct config_module, cgroup_memory_bytes)},
    {"pids", set_processes, offsetof(struct config_module, cgroup_processes)},
    {"cpu", set_processor, offsetof(struct config_module, cgroup_cpu_percent)},
};
#define CONTROLLER_COUNT (sizeof(controllers) / sizeof(controllers[0]))

static int64_t limit_of(const struct config_module *module, const struct controller *controller) {
  return *(const int64_t *)(const void *)((const char *)module + controller->limit_at);
}

static bool has_word(const char *list, const char *word) {
  size_t length = strlen(word);
  for (const char *at = list + strspn(list, " \n"); *at; at += strspn(at, " \n")) {
    size_t part = strcspn(at, " \n");
    if (part == length && memcmp(at, word, length) == 0)
      return true;
    at += part;
  }
  return false;
}

/* Moves us into a leaf of the folder and opens it to the controllers that are available: those that are, as bits. */
static unsigned divide(const char *folder, const char *available) {
  char *mine = base_asprintf("%s/gatehouse-supervisor", folder);
  bool moved = (mkdir(mine, 0755) == 0 || errno == EEXIST) && write_text(mine, "cgroup.procs", "0");
  unsigned enabled = 0;
  for (size_t i = 0; moved && i < CONTROLLER_COUNT; i++) {
    char order[16];
    snprintf(order, sizeof(order), "+%s", controllers[i].name);
    if (has_word(available, controllers[i].name) && write_text(folder, "cgroup.subtree_control", order))
      enabled |= 1u << i;
  }
  base_free(mine);
  return enabled;
}

static bool any_available(const char *available) {
  bool any = false;
  for (size_t i = 0; i < CONTROLLER_COUNT; i++)
    any = any || has_word(available, controllers[i].name);
  return any;
}

/* The folder in which groups may be made, our own process moved into a leaf of it, and its controllers. NULL and *why.
 * The caller frees. */
static char *take_over(const struct sandbox_cgroup_source *source, unsigned *enabled, const char **why) {
  char own[512] = "", available[256] = "";
  char *place = find_mount(source->mountinfo), *folder = NULL;
  *why = "no cgroup v2 hierarchy is mounted";
  if (place && find_own(source->membership, own, sizeof(own))) {
    char *leaf = strstr(own, "/gatehouse-supervisor"); /* a supervisor before us made it */
    if (leaf)
      *leaf = '\0';
    folder = base_asprintf("%s%s", place, str_equal(own, "/") ? "" : own);
    read_text(folder, "cgroup.controllers", available, sizeof(available));
    *enabled = 0;
    *why = !any_available(available)                     ? "cgroup v2 has no memory, pids or cpu controller here"
           : !is_delegated(folder, *own ? own : "/")     ? "no cgroup is delegated to the supervisor"
           : (*enabled = divide(folder, available)) == 0 ? "the delegated cgroup cannot be divided"
                                                         : NULL;
  }
  base_free(place);
  if (*why) {
    base_free(folder);
    return NULL;
  }
  return folder;
}

/* Writes the limits; missing: names of the controllers that one was wanted of and that are not there. */
static bool set_limits(const char *group, const struct config_module *module, unsigned enabled, struct buf *missing) {
  for (size_t i = 0; i < CONTROLLER_COUNT; i++) {
    int64_t limit = limit_of(module, &controllers[i]);
    if ((enabled & 1u << i) && !controllers[i].set(group, limit))
      return false;
    if (!(enabled & 1u << i) && limit > 0)
      buf_printf(missing, "%s%s", missing->length ? " or " : "", controllers[i].name);
  }
  return true;
}

void sandbox_cgroup_prepare(struct sandbox *sandbox, const struct sandbox_wish *wish,
                            const struct sandbox_cgroup_source *source) {
  static const struct sandbox_cgroup_source ours = {"/proc/self/mountinfo", "/proc/self/cgroup"};
  const struct config_module *module = wish->module;
  const char *why;
  unsigned enabled;
  char *folder = take_over(source ? source : &ours, &enabled, &why);
  if (!folder) {
    sandbox_note(sandbox, SANDBOX_CGROUP, SANDBOX_OFF, "%s", why);
    return;
  }
  struct buf missing = {0};
  char *group = base_asprintf("%s/gatehouse-%s", folder, module->id),
       *members = base_asprintf("%s/cgroup.procs", group), *events = base_asprintf("%s/memory.events", group);
  if ((mkdir(group, 0755) == 0 || errno == EEXIST) && set_limits(group, module, enabled, &missing))
    sandbox->cgroup_fd = spawn_descriptor_raise(open(members, O_WRONLY | O_CLOEXEC));
  if (sandbox->cgroup_fd >= 0)
    sandbox->events_fd = spawn_descriptor_raise(open(events, O_RDONLY | O_CLOEXEC));
  else
    sandbox_note(sandbox, SANDBOX_CGROUP, SANDBOX_OFF, "its group cannot be made: %s", strerrorname_np(errno));
  if (sandbox->cgroup_fd >= 0 && missing.length)
    sandbox_note(sandbox, SANDBOX_CGROUP, SANDBOX_OFF, "there is no %s controller here; its other limits hold",
                 missing.data);
  else if (sandbox->cgroup_fd >= 0)
    sandbox_note(sandbox, SANDBOX_CGROUP, SANDBOX_IN_FORCE,
                 "memory %lld MiB, processes %lld, processor %lld %% (0: no limit)",
                 (long long)(module->cgroup_memory_bytes >> 20), (long long)module->cgroup_processes,
                 (long long)module->cgroup_cpu_percent);
  buf_free(&missing);
  base_free(events);
  base_free(members);
  base_free(group);
  base_free(folder);
}

/* ---- deaths by the memory limit -------------------------------------------------------------------------------------
 */

/* How many processes of the group the kernel has ended for want of memory, since the group was made. */
static uint64_t kills(const struct sandbox *sandbox) {
  char text[EVENTS_BYTES];
  ssize_t length =
      sandbox->applies && sandbox->events_fd >= 0 ? pread(sandbox->events_fd, text, sizeof(text) - 1, 0) : -1;
  text[length > 0 ? length : 0] = '\0';
  const char *line = strstr(text, "oom_kill ");
  return line ? strtoull(line + strlen("oom_kill "), NULL, 10) : 0;
}

void sandbox_cgroup_begin(struct sandbox *sandbox) {
  sandbox->kills_before = kills(sandbox);
}

bool sandbox_cgroup_ran_out(const struct sandbox *sandbox, int signal_number) {
  return signal_number == SIGKILL && kills(sandbox) > sandbox->kills_before;
}
