/* sandbox.c: which measures a module gets, what is said of each, and the child's own steps (see sandbox.h). */
#include "supervisor/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sdk/base/alloc.h"
#include "sdk/base/buf.h"
#include "sdk/base/check.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true /* their runtimes read /proc and make calls of their own */
#else
#define SANITIZED false
#endif

/* Of 1000 by which the kernel chooses when memory is short. */
#define SCORE_OF_MODULES 500
#define TEXT_OF(macro) TEXT_OF_TOKEN(macro)
#define TEXT_OF_TOKEN(token) #token

static const char *const measure_texts[] = {
#define MEASURE_TEXT(name, text) text,
    SANDBOX_MEASURES(MEASURE_TEXT)
#undef MEASURE_TEXT
};

static const char *const profile_texts[] = {"mcp", "rest", "console", "generic", "script", "core"};

const char *sandbox_measure_text(enum sandbox_measure measure) {
  return measure_texts[measure];
}

const char *sandbox_profile_text(enum sandbox_profile profile) {
  return profile_texts[profile];
}

bool sandbox_profile_is_ours(enum sandbox_profile profile) {
  return profile != SANDBOX_GENERIC && profile != SANDBOX_SCRIPT;
}

void sandbox_note(struct sandbox *sandbox, enum sandbox_measure measure, enum sandbox_state state, const char *format,
                  ...) {
  va_list arguments;
  struct sandbox_finding *finding = &sandbox->findings[measure];
  finding->state = state;
  va_start(arguments, format);
  vsnprintf(finding->reason, sizeof(finding->reason), format, arguments);
  va_end(arguments);
}

/* ---- what a profile means -------------------------------------------------------------------------------------------
 */

/* "mcp", also as "mcp-1.3": a version's program in the directory of versions. */
static bool name_is(const char *name, const char *profile) {
  size_t length = strlen(profile);
  return str_starts_with(name, profile) && (name[length] == '\0' || name[length] == '-');
}

static enum sandbox_profile profile_of(const struct sandbox_wish *wish) {
  if (wish->module->sandbox_profile != CONFIG_SANDBOX_AUTO)
    return (enum sandbox_profile)(wish->module->sandbox_profile - 1);
  const char *slash = strrchr(wish->program, '/'), *name = slash ? slash + 1 : wish->program;
  for (enum sandbox_profile i = 0; i < SANDBOX_PROFILES; i++)
    if (sandbox_profile_is_ours(i) && (i == SANDBOX_CORE) == wish->core && str_starts_with(name, "gatehouse-") &&
        name_is(name + strlen("gatehouse-"), profile_texts[i]))
      return i;
  return SANDBOX_GENERIC;
}
_Static_assert((int)CONFIG_SANDBOX_SCRIPT - 1 == (int)SANDBOX_SCRIPT, "profiles are in the same order");

struct sandbox_network sandbox_network_of(const struct sandbox *sandbox, const struct config_module *module) {
  struct sandbox_network network = {0};
  const struct config_list *list = &module->sandbox_connect;
  bool usual = sandbox->profile == SANDBOX_MCP || sandbox->profile == SANDBOX_REST;
  for (size_t i = 0; i < list->count; i++) {
    uint64_t port = 0;
    if (str_equal(list->items[i], "any"))
      network.any = true;
    else if (str_parse_u64(list->items[i], &port) && network.port_count < 16)
      network.ports[network.port_count++] = (uint16_t)port;
  }
  network.any = network.any || (list->count == 0 && usual);
  network.given = network.any || network.port_count > 0;
  return network;
}

#define M (1u << SANDBOX_MCP)
#define R (1u << SANDBOX_REST)
#define G (1u << SANDBOX_GENERIC)
#define S (1u << SANDBOX_SCRIPT)
#define K (1u << SANDBOX_CORE)
#define A ((1u << SANDBOX_PROFILES) - 1)
#define READ SANDBOX_READ
#define EXECUTE SANDBOX_EXECUTE
#define WRITE SANDBOX_WRITE

static const struct {
  const char *path;
  enum sandbox_access access;
  unsigned profiles;
} files[] = {
#define FILES(path, access, profiles) {(path), (access), (profiles)},
#include "supervisor/sandbox_files.def"
#undef FILES
};

void sandbox_files_visit(const struct sandbox *sandbox, const struct sandbox_wish *wish, sandbox_file_visitor *visit,
                         void *argument) {
  const struct config_module *module = wish->module;
  for (size_t i = 0; i < module->sandbox_write.count; i++)
    visit(argument, module->sandbox_write.items[i], SANDBOX_OWN);
  for (size_t i = 0; i < module->sandbox_read.count; i++)
    visit(argument, module->sandbox_read.items[i], SANDBOX_EXECUTE);
  for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
    if (files[i].profiles & (1u << sandbox->profile))
      visit(argument, files[i].path, files[i].access);
  if (SANITIZED)
    visit(argument, "/proc", SANDBOX_READ);
  if (!wish->core)
    visit(argument, wish->directory, SANDBOX_OWN);
  for (size_t i = 0; i < sandbox->place_count; i++)
    visit(argument, sandbox->places[i].path, sandbox->places[i].access);
}

/* ---- places that may be exchanged: by path, looked at again before each start
 * --------------------------------------------------
 */

static void place_look(struct sandbox_place *place) {
  struct stat status;
  bool there = stat(place->path, &status) == 0;
  place->device = there ? status.st_dev : 0;
  place->inode = there ? status.st_ino : 0;
}

/* A relative path begins where the core does: in its state directory. Empty: none. */
static void place_add(struct sandbox *sandbox, const struct sandbox_wish *wish, const char *path,
                      enum sandbox_access access) {
  if (str_is_empty(path))
    return;
  BASE_CHECK(sandbox->place_count < SANDBOX_PLACES_MAX);
  struct sandbox_place *place = &sandbox->places[sandbox->place_count++];
  place->path = path[0] == '/' ? base_strdup(path) : base_asprintf("%s/%s", wish->directory, path);
  place->access = access;
  place_look(place);
}

static void places_prepare(struct sandbox *sandbox, const struct sandbox_wish *wish) {
  const struct config *config = wish->config;
  if (!wish->core) {
    place_add(sandbox, wish, wish->program, SANDBOX_EXECUTE);
    return;
  }
  char *sockets = base_asprintf("%s/core", config->run_dir), *modules = base_asprintf("%s/modules", config->run_dir);
  char *store = base_strdup(config->store_path), *slash = strrchr(store, '/');
  place_add(sandbox, wish, wish->program, SANDBOX_EXECUTE);
  place_add(sandbox, wish, wish->directory, SANDBOX_OWN);
  place_add(sandbox, wish, sockets, SANDBOX_OWN);
  place_add(sandbox, wish, modules, SANDBOX_READ);
  if (slash && slash != store && config->store_backend == CONFIG_STORE_SQLITE) { /* its journals are beside it */
    *slash = '\0';
    place_add(sandbox, wish, store, SANDBOX_OWN);
  }
  place_add(sandbox, wish, config->versions_dir, SANDBOX_READ);
  place_add(sandbox, wish, config->secrets_master_key_file, SANDBOX_READ);
  place_add(sandbox, wish, config->auth_jwt_key_file, SANDBOX_READ);
  base_free(store);
  base_free(modules);
  base_free(sockets);
}

/* A module's view and ruleset name its program as it was: with another one in its place both are made anew. While there
 * is none, the one that was there is still to be had. */
static void program_renew(struct sandbox *sandbox, const struct sandbox_wish *wish) {
  struct sandbox_place *place = &sandbox->places[0];
  const struct sandbox_place before = *place;
  place_look(place);
  if (place->device == before.device && place->inode == before.inode)
    return;
  if (place->inode == 0) {
    *place = before;
    return;
  }
  log_event(LOG_INFO, "supervisor", "another program is in the place of a module's: it is the one that starts",
            LOG_TEXT("module", wish->module->id), LOG_TEXT("program", wish->program));
  sandbox_begin(sandbox, wish);
  sandbox_prepare(sandbox, wish);
}

void sandbox_renew(struct sandbox *sandbox, const struct sandbox_wish *wish) {
  bool changed = false;
  if (!wish->core) {
    program_renew(sandbox, wish);
    return;
  }
  for (size_t i = 0; i < sandbox->place_count; i++) {
    const struct sandbox_place before = sandbox->places[i];
    place_look(&sandbox->places[i]);
    changed |= before.device != sandbox->places[i].device || before.inode != sandbox->places[i].inode;
  }
  if (!changed || sandbox->landlock_fd < 0)
    return;
  close(sandbox->landlock_fd);
  sandbox->landlock_fd = -1;
  sandbox_landlock_prepare(sandbox, wish);
}

/* ---- what is found
 * ---------------------------------------------------------------------------------------------------
 */

static bool has_capability(unsigned capability) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct data[2] = {0};
  if (syscall(SYS_capget, &header, data) != 0)
    return false;
  return (data[capability / 32].effective >> (capability % 32) & 1) != 0;
}

#define OFF_BY_CONFIGURATION "turned off in the configuration"

static void note_user(struct sandbox *sandbox, const struct sandbox_wish *wish) {
  if (wish->changes_user && wish->user != 0 && (wish->core || wish->user != wish->core_user))
    sandbox_note(sandbox, SANDBOX_USER, SANDBOX_IN_FORCE, "user %u, group %u", wish->user, wish->group);
  else if (wish->changes_user)
    sandbox_note(sandbox, SANDBOX_USER, SANDBOX_OFF, "its user %u is %s", wish->user,
                 wish->user == 0 ? "root" : "the core's as well");
  else if (!str_is_empty(wish->module->user))
    sandbox_note(sandbox, SANDBOX_USER, SANDBOX_OFF, "only root can change the user");
  else
    sandbox_note(sandbox, SANDBOX_USER, SANDBOX_OFF, "no user is configured: it runs as the supervisor's, %u",
                 wish->user);
}

static void note_privileges(struct sandbox *sandbox, const struct sandbox_wish *wish) {
  if (wish->module->sandbox_no_new_privileges)
    sandbox_note(sandbox, SANDBOX_NO_NEW_PRIVILEGES, SANDBOX_IN_FORCE, "executing a file gives nothing");
  else
    sandbox_note(sandbox, SANDBOX_NO_NEW_PRIVILEGES, SANDBOX_TURNED_OFF, OFF_BY_CONFIGURATION);
  if (!wish->module->sandbox_drop_capabilities)
    sandbox_note(sandbox, SANDBOX_CAPABILITIES, SANDBOX_TURNED_OFF, OFF_BY_CONFIGURATION);
  else if (has_capability(CAP_SETPCAP))
    sandbox_note(sandbox, SANDBOX_CAPABILITIES, SANDBOX_IN_FORCE, "all five sets are empty");
  else if (wish->module->sandbox_no_new_privileges)
    sandbox_note(sandbox, SANDBOX_CAPABILITIES, SANDBOX_IN_FORCE,
                 "it has none; the bounding set is the supervisor's, of no use without new privileges");
  else
    sandbox_note(sandbox, SANDBOX_CAPABILITIES, SANDBOX_OFF, "only a privileged supervisor can empty the bounding set");
}

static void note_limits(struct sandbox *sandbox, const struct sandbox_wish *wish) {
  const struct config_module *module = wish->module;
  sandbox_note(sandbox, SANDBOX_RLIMITS, SANDBOX_IN_FORCE, "files %lld, memory %lld MiB, file size %lld MiB, core %lld",
               (long long)module->rlimit_open_files,
               (long long)(SANITIZED ? 0 : module->rlimit_address_space_bytes >> 20),
               (long long)(module->rlimit_file_size_bytes >> 20), (long long)module->rlimit_core_bytes);
  bool forks = sandbox->profile == SANDBOX_SCRIPT || sandbox->profile == SANDBOX_REST || sandbox->filter_length == 0;
  if (module->rlimit_processes > 0 && wish->changes_user && wish->user != 0)
    sandbox_note(sandbox, SANDBOX_PROCESSES, SANDBOX_IN_FORCE, "%s, at most %lld of its user",
                 forks ? "processes and threads" : "threads only", (long long)module->rlimit_processes);
  else if (!forks)
    sandbox_note(sandbox, SANDBOX_PROCESSES, SANDBOX_IN_FORCE, "threads only, by the system call filter; not counted");
  else
    sandbox_note(sandbox, SANDBOX_PROCESSES, SANDBOX_OFF,
                 "they are counted only for a user of its own that is not root");
}

static void prepare_filter(struct sandbox *sandbox, const struct sandbox_wish *wish) {
  const struct config_module *module = wish->module;
  struct sandbox_network network = sandbox_network_of(sandbox, module);
  struct sandbox_filter_wish filter = {.profile = sandbox->profile,
                                       .network = network.given,
                                       .start = {wish->program, wish->arguments, wish->environment},
                                       .calls = &module->sandbox_calls};
  if (!module->sandbox_seccomp) {
    sandbox_note(sandbox, SANDBOX_SECCOMP, SANDBOX_TURNED_OFF, OFF_BY_CONFIGURATION);
  } else if (SANITIZED) {
    sandbox_note(sandbox, SANDBOX_SECCOMP, SANDBOX_OFF, "this build has sanitizers, which need calls of their own");
  } else if (!module->sandbox_no_new_privileges) {
    sandbox_note(sandbox, SANDBOX_SECCOMP, SANDBOX_OFF, "no_new_privileges is off, which it needs");
  } else if (!sandbox_filter_build(&filter, sandbox)) {
    sandbox_note(sandbox, SANDBOX_SECCOMP, SANDBOX_OFF, "there is no table for this architecture");
  } else {
    bool loosened = module->sandbox_calls.count > 0;
    sandbox_note(sandbox, SANDBOX_SECCOMP, loosened ? SANDBOX_LOOSENED : SANDBOX_IN_FORCE,
                 loosened ? "profile %s; sandbox.calls names more" : "profile %s", profile_texts[sandbox->profile]);
  }
  if (network.given)
    sandbox_note(sandbox, SANDBOX_NETWORK,
                 sandbox->profile == SANDBOX_MCP || sandbox->profile == SANDBOX_REST ? SANDBOX_IN_FORCE
                                                                                     : SANDBOX_LOOSENED,
                 "listeners that it is given, and outgoing TCP and UDP");
  else if (sandbox->filter_length > 0)
    sandbox_note(sandbox, SANDBOX_NETWORK, SANDBOX_IN_FORCE, "only the listeners that it is given");
  else
    sandbox_note(sandbox, SANDBOX_NETWORK, SANDBOX_OFF, "without seccomp only TCP by Landlock, if that is in force");
}

static void prepare_landlock(struct sandbox *sandbox, const struct sandbox_wish *wish) {
  const char *why = !wish->module->sandbox_landlock            ? OFF_BY_CONFIGURATION
                    : !wish->module->sandbox_no_new_privileges ? "no_new_privileges is off, which it needs"
                                                               : NULL;
  if (!why) {
    sandbox_landlock_prepare(sandbox, wish);
    return;
  }
  for (enum sandbox_measure i = SANDBOX_LANDLOCK_FILES; i <= SANDBOX_LANDLOCK_SCOPE; i++)
    sandbox_note(sandbox, i, wish->module->sandbox_landlock ? SANDBOX_OFF : SANDBOX_TURNED_OFF, "%s", why);
}

static void note_dumpable(struct sandbox *sandbox) {
  bool ours = sandbox_profile_is_ours(sandbox->profile);
  sandbox_note(sandbox, SANDBOX_NOT_DUMPABLE, ours ? SANDBOX_IN_FORCE : SANDBOX_OFF, "%s",
               ours ? "its program gives it up first of all"
                    : "only the program itself can give it up; sdk/module does");
}

static void note_of_core(struct sandbox *sandbox) {
  sandbox_note(sandbox, SANDBOX_CGROUP, SANDBOX_OFF, "the core has no limits of its own, only the gateway's");
  sandbox_note(sandbox, SANDBOX_OOM_FIRST, SANDBOX_OFF, "modules go first");
  sandbox_note(sandbox, SANDBOX_ENVIRONMENT, SANDBOX_OFF, "it keeps what the operator set");
  sandbox_note(sandbox, SANDBOX_DESCRIPTORS, SANDBOX_IN_FORCE, "0, 1, 2, the control channel and its inotify");
  note_dumpable(sandbox);
}

/* A score can be raised by everybody who may write it, and lowered below where root has set it by nobody else. */
static void prepare_order_of_ends(struct sandbox *sandbox) {
  char text[16] = "";
  int fd = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
  bool readable = fd >= 0 && read(fd, text, sizeof(text) - 1) > 0;
  long now = strtol(text, NULL, 10);
  if (fd >= 0)
    close(fd);
  sandbox->oom_first = readable && now < SCORE_OF_MODULES;
  if (sandbox->oom_first)
    sandbox_note(sandbox, SANDBOX_OOM_FIRST, SANDBOX_IN_FORCE, "ended before core and supervisor when memory is short");
  else if (readable)
    sandbox_note(sandbox, SANDBOX_OOM_FIRST, SANDBOX_OFF, "the whole gateway has a score of %ld", now);
  else
    sandbox_note(sandbox, SANDBOX_OOM_FIRST, SANDBOX_OFF, "only root may say so here");
}

void sandbox_begin(struct sandbox *sandbox, const struct sandbox_wish *wish) {
  sandbox_free(sandbox);
  sandbox->applies = true;
  sandbox->landlock_fd = sandbox->mount_fd = sandbox->cgroup_fd = sandbox->events_fd = sandbox->tmp_fd = -1;
  sandbox->profile = profile_of(wish);
  places_prepare(sandbox, wish);
  if (wish->core) /* a view would keep a state directory that an operator has exchanged or mounted over */
    sandbox_note(sandbox, SANDBOX_MOUNT_VIEW, SANDBOX_OFF,
                 "the core has none: what is mounted on its directories is to be seen; Landlock closes the rest");
  else if (wish->module->sandbox_mount_view)
    sandbox_mount_begin(sandbox, wish);
  else
    sandbox_note(sandbox, SANDBOX_MOUNT_VIEW, SANDBOX_TURNED_OFF, OFF_BY_CONFIGURATION);
}

void sandbox_prepare(struct sandbox *sandbox, const struct sandbox_wish *wish) {
  note_user(sandbox, wish);
  note_privileges(sandbox, wish);
  prepare_filter(sandbox, wish);
  note_limits(sandbox, wish);
  sandbox_mount_finish(sandbox);
  prepare_landlock(sandbox, wish);
  if (sandbox->tmp_fd >= 0)
    sandbox_note(sandbox, SANDBOX_PRIVATE_TMP, SANDBOX_IN_FORCE, "its own, until the gateway ends");
  else
    sandbox_note(sandbox, SANDBOX_PRIVATE_TMP, SANDBOX_OFF, "%s",
                 sandbox->landlock_fd >= 0 ? "no mount view; by Landlock it can open nothing in /tmp"
                                           : "no mount view");
  if (sandbox->tmp_fd >= 0)
    close(sandbox->tmp_fd);
  sandbox->tmp_fd = -1;
  if (wish->core) {
    note_of_core(sandbox);
    return;
  }
  sandbox_cgroup_prepare(sandbox, wish, NULL);
  prepare_order_of_ends(sandbox);
  sandbox_note(sandbox, SANDBOX_ENVIRONMENT, SANDBOX_IN_FORCE, "nothing is inherited");
  sandbox_note(sandbox, SANDBOX_DESCRIPTORS, SANDBOX_IN_FORCE, "0, 1, 2 and the named listeners");
  note_dumpable(sandbox);
}

void sandbox_report(const struct sandbox *sandbox, const char *module_id) {
  struct buf missing = {0};
  for (enum sandbox_measure i = 0; i < SANDBOX_MEASURE_COUNT; i++) {
    const struct sandbox_finding *finding = &sandbox->findings[i];
    if (!finding->reason[0])
      continue; /* not one of that process */
    if (finding->state == SANDBOX_LOOSENED || finding->state == SANDBOX_TURNED_OFF)
      log_event(LOG_WARN, "supervisor",
                finding->state == SANDBOX_LOOSENED ? "a protection is loosened" : "a protection is off",
                LOG_TEXT("module", module_id), LOG_TEXT("protection", measure_texts[i]),
                LOG_TEXT("why", finding->reason));
    else if (finding->state == SANDBOX_OFF)
      buf_printf(&missing, "%s%s", missing.length ? ", " : "", measure_texts[i]);
  }
  if (missing.length)
    log_event(LOG_INFO, "supervisor", "protections that are not in force: see module describe",
              LOG_TEXT("module", module_id), LOG_TEXT("protections", missing.data));
  buf_free(&missing);
}

void sandbox_free(struct sandbox *sandbox) {
  if (sandbox->applies) {
    sandbox_mount_finish(sandbox);
    int descriptors[] = {sandbox->landlock_fd, sandbox->mount_fd, sandbox->cgroup_fd, sandbox->events_fd,
                         sandbox->tmp_fd};
    for (size_t i = 0; i < sizeof(descriptors) / sizeof(descriptors[0]); i++)
      if (descriptors[i] >= 0)
        close(descriptors[i]);
    base_free(sandbox->filter);
    for (size_t i = 0; i < sandbox->place_count; i++)
      base_free(sandbox->places[i].path);
  }
  *sandbox = (struct sandbox){0};
}

/* ---- in the child
 * ----------------------------------------------------------------------------------------------------
 */

const char *sandbox_enter(const struct sandbox *sandbox) {
  static const char score[] = TEXT_OF(SCORE_OF_MODULES);
  if (!sandbox->applies)
    return NULL;
  if (sandbox->cgroup_fd >= 0 && write(sandbox->cgroup_fd, "0", 1) != 1)
    return "cgroup";
  if (sandbox->oom_first) {
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, score, sizeof(score) - 1) == (ssize_t)sizeof(score) - 1;
    if (fd >= 0)
      close(fd);
    if (!ok)
      return "oom score";
  }
  if (sandbox->mount_fd >= 0 && setns(sandbox->mount_fd, CLONE_NEWNS) != 0)
    return "mount namespace";
  return NULL;
}

#ifndef SYS_landlock_restrict_self
#define SYS_landlock_restrict_self 446
#endif

bool sandbox_restrict_files(const struct sandbox *sandbox) {
  return !sandbox->applies || sandbox->landlock_fd < 0 ||
         syscall(SYS_landlock_restrict_self, sandbox->landlock_fd, 0) == 0;
}

bool sandbox_seal(const struct sandbox *sandbox, pid_t own) {
  if (!sandbox->applies || sandbox->filter_length == 0)
    return true;
  for (size_t i = 0; i < sandbox->own_count; i++)
    sandbox->filter[sandbox->own_at[i]].k = (uint32_t)own;
  const struct sock_fprog program = {(unsigned short)sandbox->filter_length, sandbox->filter};
  return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0;
}
