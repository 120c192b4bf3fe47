/* privileges.c: what the supervisor gives up of its own power, for good, once its listeners are bound and before the
 * first child is prepared (LIF-14): the capabilities that are not in capabilities.def, and the right to new ones.
 * Whoever takes it over has what starting and ending children needs, and nothing else of root's.
 *
 * It has no system call filter and no Landlock ruleset: both are inherited by every child and could only be narrowed,
 * so that they had to allow what all of them do and the making of their mount views besides.
 *
 * What was given up does not come back: a reload that would need it is refused (privileges_suffice). Never fails: what
 * cannot be given up is found and said, as for children. */
#include <errno.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sdk/base/buf.h"
#include "sdk/base/str.h"
#include "supervisor/supervisor_internal.h"

/* Why a capability is kept, as bits. */
enum { ALWAYS = 1, USERS = 2, VIEWS = 4 };

static const struct {
  const char *name;
  unsigned number, when;
} capabilities[] = {
#define CAPABILITY(name, when, reason) {#name, CAP_##name, when},
#include "supervisor/capabilities.def"
#undef CAPABILITY
};

static unsigned needs_of(const struct config_module *module) {
  bool user = !str_is_empty(module->user) || !str_is_empty(module->group);
  return (user ? USERS : 0) | (module->sandbox_mount_view ? VIEWS : 0);
}

/* Takes over what a child needs; gains and keeps: ids of the first that may gain privileges, and that keeps those that
 * it is given. */
static void consider(struct supervisor *supervisor, const struct config_module *module, const char **gains,
                     const char **keeps) {
  supervisor->privileges.needs |= needs_of(module);
  if (!*gains && !module->sandbox_no_new_privileges)
    *gains = module->id;
  if (!*keeps && !module->sandbox_drop_capabilities)
    *keeps = module->id;
}

/* All five sets are what is kept of them: bits of CAP_ numbers. */
static bool reduce_to(uint64_t kept) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct data[2] = {0};
  if (syscall(SYS_capget, &header, data) != 0)
    return false;
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  for (unsigned long number = 0; prctl(PR_CAPBSET_READ, number, 0, 0, 0) >= 0; number++)
    if (!(kept >> number & 1) && prctl(PR_CAPBSET_DROP, number, 0, 0, 0) != 0 && errno != EPERM)
      return false; /* EPERM: we have none that could come back by it */
  for (unsigned i = 0; i < 2; i++) {
    data[i].permitted &= (uint32_t)(kept >> (32 * i));
    data[i].effective = data[i].permitted;
    data[i].inheritable = 0;
  }
  return syscall(SYS_capset, &header, data) == 0;
}

static void drop_capabilities(struct supervisor *supervisor, const char *keeps) {
  struct sandbox *self = &supervisor->privileges.self;
  struct buf names = {0};
  uint64_t kept = 0;
  for (size_t i = 0; geteuid() == 0 && i < sizeof(capabilities) / sizeof(capabilities[0]); i++)
    if (capabilities[i].when & supervisor->privileges.needs) {
      kept |= UINT64_C(1) << capabilities[i].number;
      buf_printf(&names, "%s%s", names.length ? " " : "", capabilities[i].name);
    }
  if (geteuid() == 0 && keeps)
    sandbox_note(self, SANDBOX_CAPABILITIES, SANDBOX_TURNED_OFF, "%s is configured to keep what it is given", keeps);
  else if (!reduce_to(kept))
    sandbox_note(self, SANDBOX_CAPABILITIES, SANDBOX_OFF, "they cannot be given up: %s", strerrorname_np(errno));
  else
    sandbox_note(self, SANDBOX_CAPABILITIES, SANDBOX_IN_FORCE, "at most %s", kept ? names.data : "none");
  supervisor->privileges.gave_up_capabilities = self->findings[SANDBOX_CAPABILITIES].state == SANDBOX_IN_FORCE;
  buf_free(&names);
}

static void give_up_gaining(struct supervisor *supervisor, const char *gains) {
  struct sandbox *self = &supervisor->privileges.self;
  if (gains)
    sandbox_note(self, SANDBOX_NO_NEW_PRIVILEGES, SANDBOX_TURNED_OFF, "%s is configured without", gains);
  else if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    sandbox_note(self, SANDBOX_NO_NEW_PRIVILEGES, SANDBOX_OFF, "refused: %s", strerrorname_np(errno));
  else
    sandbox_note(self, SANDBOX_NO_NEW_PRIVILEGES, SANDBOX_IN_FORCE, "executing a file gives nothing");
  supervisor->privileges.gave_up_gaining = self->findings[SANDBOX_NO_NEW_PRIVILEGES].state == SANDBOX_IN_FORCE;
}

static void note_the_rest(struct sandbox *self) {
  if (geteuid() == 0)
    sandbox_note(self, SANDBOX_USER, SANDBOX_OFF, "root: it gives children their users, views and groups");
  else
    sandbox_note(self, SANDBOX_USER, SANDBOX_IN_FORCE, "user %u, who is not root", (unsigned)geteuid());
  sandbox_note(self, SANDBOX_SECCOMP, SANDBOX_OFF, "its children would inherit a filter; they have their own");
  sandbox_note(self, SANDBOX_LANDLOCK_FILES, SANDBOX_OFF, "its children would inherit a ruleset; they have their own");
  bool dumpable = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 1;
  sandbox_note(self, SANDBOX_NOT_DUMPABLE, dumpable ? SANDBOX_OFF : SANDBOX_IN_FORCE, "%s",
               dumpable ? "this build has sanitizers, which look into it"
                        : "given up first of all; no core file either");
}

void privileges_drop(struct supervisor *supervisor) {
  const struct config *config = supervisor->config;
  const struct config_module core = config_core_confinement(config), alerts = config_alerts_confinement(config);
  const char *gains = NULL, *keeps = NULL;
  supervisor->privileges.needs = ALWAYS;
  supervisor->privileges.self.applies = true;
  consider(supervisor, &core, &gains, &keeps);
  for (size_t i = 0; i < config->modules_count; i++)
    consider(supervisor, &config->modules[i], &gains, &keeps);
  if (supervisor->alerts.configured)
    consider(supervisor, &alerts, &gains, &keeps);
  drop_capabilities(supervisor, keeps);
  give_up_gaining(supervisor, gains);
  note_the_rest(&supervisor->privileges.self);
  sandbox_report(&supervisor->privileges.self, "supervisor");
}

bool privileges_suffice(const struct supervisor *supervisor, const struct config_module *module, struct error *err) {
  const struct privileges *privileges = &supervisor->privileges;
  bool dropped = privileges->gave_up_capabilities && geteuid() == 0;
  unsigned lacking = dropped ? needs_of(module) & ~privileges->needs : 0;
  const char *key = lacking & USERS                                                     ? "user"
                    : lacking & VIEWS                                                   ? "sandbox.mount_view"
                    : dropped && !module->sandbox_drop_capabilities                     ? "sandbox.drop_capabilities"
                    : privileges->gave_up_gaining && !module->sandbox_no_new_privileges ? "sandbox.no_new_privileges"
                                                                                        : NULL;
  return !key || error_set(err, ERR_CONFIG_VALUE,
                           "module \"%s\": this %s needs a restart: the supervisor has given up what it takes",
                           module->id, key);
}
