/* sandbox_cgroup.c: a control group per module below the one that was delegated to the supervisor (LIF-14): memory,
 * processes and processor time of all that the module starts.
 *
 * Delegated means: systemd says so (the attribute user.delegate or trusted.delegate, Delegate=yes in the unit), or the
 * group belongs to our user who is not root, or it is the root of a container's cgroup namespace. In any other group we
 * would be meddling with somebody else's. The supervisor itself moves into a leaf, since a group with controllers for
 * its children may hold no process. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "sdk/base/alloc.h"
#include "sdk/base/str.h"
#include "supervisor/sandbox.h"
#include "supervisor/spawn.h"

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

/* The folder in which groups may be made, our own process moved into a leaf of it. NULL and *why. The caller frees. */
static char *take_over(const struct sandbox_cgroup_source *source, const char **why) {
  char own[512] = "", available[256] = "";
  char *place = find_mount(source->mountinfo), *folder = NULL;
  *why = "no cgroup v2 hierarchy is mounted";
  if (place && find_own(source->membership, own, sizeof(own))) {
    char *leaf = strstr(own, "/gatehouse-supervisor"); /* a supervisor before us made it */
    if (leaf)
      *leaf = '\0';
    folder = base_asprintf("%s%s", place, str_equal(own, "/") ? "" : own);
    read_text(folder, "cgroup.controllers", available, sizeof(available));
    *why = !strstr(available, "memory") || !strstr(available, "pids")
               ? "cgroup v2 has no memory and pids controller here"
           : !is_delegated(folder, *own ? own : "/") ? "no cgroup is delegated to the supervisor"
                                                     : NULL;
    if (!*why) {
      char *mine = base_asprintf("%s/gatehouse-supervisor", folder);
      if ((mkdir(mine, 0755) != 0 && errno != EEXIST) || !write_text(mine, "cgroup.procs", "0") ||
          !write_text(folder, "cgroup.subtree_control", "+memory +pids"))
        *why = "the delegated cgroup cannot be divided";
      else
        write_text(folder, "cgroup.subtree_control", "+cpu"); /* where it is to be had */
      base_free(mine);
    }
  }
  base_free(place);
  if (*why) {
    base_free(folder);
    return NULL;
  }
  return folder;
}

static bool set_number(const char *group, const char *name, int64_t value) {
  char text[32];
  snprintf(text, sizeof(text), "%lld", (long long)value);
  return write_text(group, name, value > 0 ? text : "max");
}

/* Also what is not limited is written: a gateway before us may have limited it. */
static bool set_limits(const char *group, const struct config_module *module) {
  char cpu[48];
  snprintf(cpu, sizeof(cpu), "%lld 100000", (long long)module->cgroup_cpu_percent * 1000);
  return set_number(group, "memory.max", module->cgroup_memory_bytes) &&
         (write_text(group, "memory.oom.group", module->cgroup_memory_bytes > 0 ? "1" : "0") ||
          module->cgroup_memory_bytes == 0) &&
         set_number(group, "pids.max", module->cgroup_processes) &&
         (write_text(group, "cpu.max", module->cgroup_cpu_percent > 0 ? cpu : "max") ||
          module->cgroup_cpu_percent == 0);
}

void sandbox_cgroup_prepare(struct sandbox *sandbox, const struct sandbox_wish *wish,
                            const struct sandbox_cgroup_source *source) {
  static const struct sandbox_cgroup_source ours = {"/proc/self/mountinfo", "/proc/self/cgroup"};
  const struct config_module *module = wish->module;
  const char *why;
  char *folder = take_over(source ? source : &ours, &why);
  if (!folder) {
    sandbox_note(sandbox, SANDBOX_CGROUP, SANDBOX_OFF, "%s", why);
    return;
  }
  char *group = base_asprintf("%s/gatehouse-%s", folder, module->id),
       *members = base_asprintf("%s/cgroup.procs", group);
  if ((mkdir(group, 0755) == 0 || errno == EEXIST) && set_limits(group, module))
    sandbox->cgroup_fd = spawn_descriptor_raise(open(members, O_WRONLY | O_CLOEXEC));
  if (sandbox->cgroup_fd >= 0)
    sandbox_note(sandbox, SANDBOX_CGROUP, SANDBOX_IN_FORCE,
                 "memory %lld MiB, processes %lld, processor %lld %% (0: no limit)",
                 (long long)(module->cgroup_memory_bytes >> 20), (long long)module->cgroup_processes,
                 (long long)module->cgroup_cpu_percent);
  else
    sandbox_note(sandbox, SANDBOX_CGROUP, SANDBOX_OFF, "its group cannot be made: %s", strerrorname_np(errno));
  base_free(members);
  base_free(group);
  base_free(folder);
}
