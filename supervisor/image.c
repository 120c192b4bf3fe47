/* image.c: configuration into images: program, arguments, environment, descriptors, user, limits. Runs once at start;
 * everything that spawn_run writes later (the slots) has its room here already. */
#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/str.h"
#include "supervisor/supervisor_internal.h"

#define PATH_STANDARD "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true /* shadow memory is terabytes of address space */
#else
#define SANITIZED false
#endif

extern char **environ;

#define LOG_LEVEL_VARIABLE "GATEHOUSE_LOG_LEVEL="
static const char *const log_levels[] = {"debug", "info", "warn", "error", "fatal"};

/* ---- programs and users ---------------------------------------------------------------------------------------------
 */

char *image_program_find(const char *name) {
  char self[PATH_MAX];
  if (strchr(name, '/')) {
    char *absolute = realpath(name, NULL);
    char *path = base_strdup(absolute ? absolute : name);
    free(absolute);
    return path;
  }
  ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
  self[length > 0 ? length : 0] = '\0';
  char *slash = strrchr(self, '/');
  if (slash)
    *slash = '\0';
  char *beside = base_asprintf("%s/%s", self, name);
  if (access(beside, X_OK) == 0)
    return beside;
  const char *path = getenv("PATH");
  for (const char *at = path ? path : PATH_STANDARD; *at;) {
    size_t part = strcspn(at, ":");
    char *candidate = base_asprintf("%.*s/%s", (int)part, at, name);
    if (part > 0 && access(candidate, X_OK) == 0) {
      base_free(beside);
      return candidate;
    }
    base_free(candidate);
    at += part + (at[part] == ':');
  }
  return beside; /* executing it says ENOENT */
}

static bool find_group(const char *name, gid_t *group) {
  uint64_t number;
  const struct group *entry = getgrnam(name);
  if (entry)
    *group = entry->gr_gid;
  else if (str_parse_u64(name, &number) && number < UINT32_MAX)
    *group = (gid_t)number;
  else
    return false;
  return true;
}

bool image_user_find(const char *user, const char *group, struct spawn_image *image, struct error *err) {
  uint64_t number;
  image->user = geteuid();
  image->group = getegid();
  if (str_is_empty(user) && str_is_empty(group))
    return true;
  if (geteuid() != 0)
    return true; /* only root can change; supervisor_check warns */
  image->change_user = true;
  const struct passwd *entry = str_is_empty(user) ? NULL : getpwnam(user);
  if (entry) {
    image->user = entry->pw_uid;
    image->group = entry->pw_gid;
  } else if (!str_is_empty(user)) {
    if (!str_parse_u64(user, &number) || number >= UINT32_MAX)
      return error_set(err, ERR_CONFIG_VALUE, "no such user: %s", user);
    image->user = (uid_t)number;
    image->group = (gid_t)number;
  }
  if (!str_is_empty(group) && !find_group(group, &image->group))
    return error_set(err, ERR_CONFIG_VALUE, "no such group: %s", group);
  int count = SPAWN_GROUPS_MAX;
  if (entry && getgrouplist(entry->pw_name, image->group, image->groups, &count) >= 0) {
    image->group_count = (unsigned)count;
  } else {
    image->groups[0] = image->group;
    image->group_count = 1;
  }
  return true;
}

/* ---- environment and arguments --------------------------------------------------------------------------------------
 */

static void add(struct spawn_image *image, size_t *count, char *assignment) {
  image->environment = base_realloc_array(image->environment, *count + 2, sizeof(char *));
  image->environment[(*count)++] = assignment;
  image->environment[*count] = NULL;
}

/* Room for so many bytes, its end among them, that are written before each start. */
static char *add_slot(struct spawn_image *image, size_t *count, const char *name, int bytes) {
  char *assignment = base_asprintf("%s=%0*d", name, bytes, 0);
  add(image, count, assignment);
  return assignment + strlen(name) + 1;
}

/* The variables that the supervisor itself gives, and that are never passed through. */
static bool is_ours(const char *assignment) {
  static const char *const prefixes[] = {"GATEHOUSE_", "LISTEN_", "NOTIFY_SOCKET=", "WATCHDOG_"};
  for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
    if (str_starts_with(assignment, prefixes[i]))
      return true;
  return false;
}

static void add_common(const struct supervisor *supervisor, const struct child *child, struct spawn_image *image,
                       size_t *count) {
  const struct config *config = supervisor->config;
  add(image, count, base_asprintf("GATEHOUSE_RUN=%s", config->run_dir));
  add(image, count, base_asprintf(LOG_LEVEL_VARIABLE "%s", log_levels[config->log_level]));
  add(image, count, base_asprintf("NOTIFY_SOCKET=%s", supervisor->notify_path));
  if (child->heartbeat_ms > 0)
    add(image, count, base_asprintf("WATCHDOG_USEC=%llu", (unsigned long long)child->heartbeat_ms * 1000));
  image->generation_slot = add_slot(image, count, "GATEHOUSE_GENERATION", SPAWN_SLOT_BYTES);
}

static void add_listen(struct spawn_image *image, size_t *count, const char *names) {
  if (image->inherit_count == 0)
    return;
  add(image, count, base_asprintf("LISTEN_FDS=%u", image->inherit_count));
  add(image, count, base_asprintf("LISTEN_FDNAMES=%s", names));
  image->listen_pid_slot = add_slot(image, count, "LISTEN_PID", SPAWN_SLOT_BYTES);
}

static char **make_arguments(const char *name, const struct config_list *list) {
  char **arguments = base_calloc(list->count + 2, sizeof(char *));
  arguments[0] = base_strdup(name);
  for (size_t i = 0; i < list->count; i++)
    arguments[i + 1] = base_strdup(list->items[i]);
  return arguments;
}

static void add_limit(struct spawn_image *image, int resource, int64_t most, bool even_zero) {
  struct rlimit now;
  if (most == 0 && !even_zero)
    return;
  BASE_CHECK(image->limit_count < SPAWN_LIMITS_MAX);
  rlim_t value = (rlim_t)most;
  if (getrlimit((__rlimit_resource_t)resource, &now) == 0 && now.rlim_max != RLIM_INFINITY && value > now.rlim_max)
    value = now.rlim_max;
  image->limits[image->limit_count++] = (struct spawn_limit){resource, {value, value}};
}

static void add_limits(struct spawn_image *image, const struct config_module *module) {
  add_limit(image, RLIMIT_NOFILE, module->rlimit_open_files, false);
  if (image->change_user) /* else it would count the processes of whoever started the gateway */
    add_limit(image, RLIMIT_NPROC, module->rlimit_processes, false);
  if (!SANITIZED)
    add_limit(image, RLIMIT_AS, module->rlimit_address_space_bytes, false);
  add_limit(image, RLIMIT_FSIZE, module->rlimit_file_size_bytes, false);
  add_limit(image, RLIMIT_CORE, module->rlimit_core_bytes, true);
}

/* ---- the core and the modules ---------------------------------------------------------------------------------------
 */

bool image_identity_prepare(struct supervisor *supervisor, struct child *child, struct error *err) {
  const struct config *config = supervisor->config;
  if (!child->config) {
    child->id = "core";
    child->is_core = true;
    return image_user_find(config->core_user, config->core_group, &child->image, err);
  }
  child->id = child->config->id;
  if (!child->module_id)
    child->module_id = child->id;
  child->runtime_socket = base_asprintf("%s/modules/%s/runtime.sock", config->run_dir, child->id);
  return image_user_find(child->config->user, child->config->group, &child->image, err);
}

static struct sandbox_wish wish_of(const struct supervisor *supervisor, bool core, const struct spawn_image *image,
                                   const struct config_module *module) {
  return (struct sandbox_wish){.config = supervisor->config,
                               .core = core,
                               .module = module,
                               .program = image->path,
                               .directory = image->directory,
                               .notify_path = supervisor->notify_path,
                               .arguments = image->arguments,
                               .environment = image->environment,
                               .changes_user = image->change_user,
                               .user = image->user,
                               .group = image->group,
                               .core_user = supervisor->children[0].image.user};
}

void image_renew(struct supervisor *supervisor, struct child *child) {
  const struct config_module confinement = config_core_confinement(supervisor->config);
  const struct sandbox_wish wish =
      wish_of(supervisor, child->is_core, &child->image, child->is_core ? &confinement : child->config);
  sandbox_renew(&child->image.sandbox, &wish);
}

static void add_channel(struct supervisor *supervisor, struct spawn_image *image, size_t *count) {
  add(image, count, base_asprintf("%s=3", CONTROL_FD_VARIABLE));
  image->inherit_count = 1;        /* the control channel: a new one for each core */
  if (supervisor->watch_fd >= 0) { /* else the core makes its own */
    add(image, count, base_asprintf("%s=4", CONTROL_WATCH_FD_VARIABLE));
    image->inherit[image->inherit_count++] = supervisor->watch_fd;
  }
  add_listen(image, count, supervisor->watch_fd >= 0 ? "control:watch" : "control");
}

/* User and output are there. */
static void core_fill(struct supervisor *supervisor, struct spawn_image *image, const char *program,
                      enum image_purpose purpose) {
  static char option[] = "--describe", *items[] = {option};
  static const struct config_list describe = {.items = items, .count = 1};
  const struct config *config = supervisor->config;
  const struct child *child = &supervisor->children[0];
  const struct config_module confinement = config_core_confinement(config);
  size_t count = 0;
  image->path = image_program_find(program[0] ? program : config->core_binary);
  image->arguments = make_arguments("gatehouse-core", purpose == IMAGE_DESCRIBES ? &describe : &config->core_args);
  image->directory = base_strdup(config->state_dir);
  image->umask = 0077;
  image->no_new_privileges = confinement.sandbox_no_new_privileges;
  image->drop_capabilities = confinement.sandbox_drop_capabilities;
  for (char **at = environ; *at; at++) /* the core is trusted: it keeps what the operator set (PGPASSFILE, TZ, …) */
    if (!is_ours(*at))
      add(image, &count, base_strdup(*at));
  add_common(supervisor, child, image, &count);
  char *overrides = config_overrides_text(supervisor->source);
  add(image, &count, base_asprintf("GATEHOUSE_STATE=%s", config->state_dir));
  add(image, &count, base_asprintf("GATEHOUSE_CONFIG=%s/core/gatehouse.yaml", config->run_dir));
  add(image, &count, base_asprintf("GATEHOUSE_SET=%s", overrides));
  base_free(overrides);
  if (purpose == IMAGE_SERVES)
    add_channel(supervisor, image, &count);
  add_limits(image, &confinement);
  const struct sandbox_wish wish = wish_of(supervisor, child->is_core, image, &confinement);
  sandbox_begin(&image->sandbox, &wish);
  sandbox_prepare(&image->sandbox, &wish);
}

void image_core_prepare(struct supervisor *supervisor, struct child *child) {
  const struct config *config = supervisor->config;
  child->restart = CONFIG_RESTART_ALWAYS;
  child->start_watched = true;
  child->start_timeout_ms = (uint32_t)config->core_start_timeout_ms;
  child->stop_grace_ms = (uint32_t)config->core_stop_grace_ms;
  child->watchdog_ms = (uint32_t)config->core_watchdog_ms;
  child->heartbeat_ms = upward_heartbeat_ms(supervisor);
  if (child->heartbeat_ms == 0 || (child->watchdog_ms > 0 && child->watchdog_ms < child->heartbeat_ms))
    child->heartbeat_ms = child->watchdog_ms;
  supervisor->watch_fd = spawn_descriptor_raise(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  core_fill(supervisor, &child->image, child->program, IMAGE_SERVES);
  sandbox_report(&child->image.sandbox, child->id);
}

void image_core_make(struct supervisor *supervisor, struct spawn_image *image, const char *program,
                     enum image_purpose purpose) {
  const struct spawn_image *now = &supervisor->children[0].image;
  *image = (struct spawn_image){.input_fd = now->input_fd,
                                .output_fd = now->output_fd,
                                .change_user = now->change_user,
                                .user = now->user,
                                .group = now->group,
                                .group_count = now->group_count};
  memcpy(image->groups, now->groups, sizeof(image->groups));
  core_fill(supervisor, image, program, purpose);
}

static const struct listener *find_listener(const struct supervisor *supervisor, const char *name) {
  for (size_t i = 0; i < supervisor->config->listeners_count; i++)
    if (str_equal(supervisor->listeners[i].config->name, name))
      return &supervisor->listeners[i];
  return NULL;
}

static void add_listeners(struct supervisor *supervisor, struct child *child, size_t *count) {
  struct spawn_image *image = &child->image;
  struct buf names = {0};
  for (size_t i = 0; i < child->config->listeners.count; i++) {
    const struct listener *listener = find_listener(supervisor, child->config->listeners.items[i]);
    BASE_CHECK(listener && image->inherit_count < SPAWN_INHERIT_MAX); /* config_cross_check has seen to both */
    image->inherit[image->inherit_count++] = listener->fd;
    buf_printf(&names, "%s%s", i > 0 ? ":" : "", listener->config->name);
  }
  add_listen(image, count, names.data ? names.data : "");
  buf_free(&names);
}

void image_module_begin(struct supervisor *supervisor, struct child *child) {
  const struct config *config = supervisor->config;
  const struct config_module *module = child->config;
  struct spawn_image *image = &child->image;
  size_t count = 0;
  child->restart = module->restart;
  child->start_watched = module->ready_by == CONFIG_READY_BY_NOTIFY;
  child->start_timeout_ms = (uint32_t)module->start_timeout_ms;
  child->stop_grace_ms = (uint32_t)module->stop_grace_ms;
  child->watchdog_ms = child->heartbeat_ms = (uint32_t)module->watchdog_ms;
  const char *program = child->program[0] ? child->program : module->binary;
  image->path = image_program_find(program);
  image->arguments = make_arguments(program, &module->args);
  image->directory = base_asprintf("%s/modules/%s", config->run_dir, module->id);
  image->no_new_privileges = module->sandbox_no_new_privileges;
  image->drop_capabilities = module->sandbox_drop_capabilities;
  add(image, &count, base_strdup("PATH=" PATH_STANDARD));
  add(image, &count, base_strdup("LANG=C.UTF-8"));
  add_common(supervisor, child, image, &count);
  add(image, &count, base_asprintf("GATEHOUSE_MODULE_ID=%s", child->module_id));
  add(image, &count, base_asprintf("GATEHOUSE_HANG_MS=%u", (unsigned)module->hang_ms));
  add(image, &count, base_asprintf("GATEHOUSE_STOP_GRACE_MS=%u", (unsigned)module->stop_grace_ms));
  add(image, &count, base_asprintf("GATEHOUSE_SPI_SOCKET=%s/core/spi/%s.sock", config->run_dir, module->id));
  add(image, &count, base_asprintf("GATEHOUSE_RUNTIME_SOCKET=%s", child->runtime_socket));
  add(image, &count, base_asprintf("GATEHOUSE_SPI_BACKOFF_MIN_MS=%lld", (long long)config->spi_backoff_min_ms));
  add(image, &count, base_asprintf("GATEHOUSE_SPI_BACKOFF_MAX_MS=%lld", (long long)config->spi_backoff_max_ms));
  add(image, &count, base_asprintf("GATEHOUSE_SPI_MESSAGE_BYTES=%lld", (long long)config->spi_message_bytes));
  add(image, &count, base_asprintf("GATEHOUSE_LIMIT_HEADER_BYTES=%lld", (long long)config->limits_header_bytes));
  add(image, &count, base_asprintf("GATEHOUSE_LIMIT_BODY_BYTES=%lld", (long long)config->limits_body_bytes));
  add(image, &count, base_asprintf("GATEHOUSE_LIMIT_CONNECTIONS=%lld", (long long)config->limits_connections));
  add(image, &count,
      base_asprintf("GATEHOUSE_LIMIT_REQUEST_TIMEOUT_MS=%lld", (long long)config->limits_request_timeout_ms));
  if (image->user != supervisor->children[0].image.user)
    add(image, &count, base_asprintf("GATEHOUSE_CORE_UID=%u", (unsigned)supervisor->children[0].image.user));
  add_listeners(supervisor, child, &count);
  for (size_t i = 0; i < module->env.count; i++)
    add(image, &count, base_asprintf("%s=%s", module->env.items[i].key, module->env.items[i].value));
  add_limits(image, module);
  image->umask =
      image->user == supervisor->children[0].image.user ? 0077 : 0007; /* the core reaches sockets by group */
  const struct sandbox_wish wish = wish_of(supervisor, child->is_core, image, module);
  sandbox_begin(&image->sandbox, &wish);
}

void image_module_prepare(struct supervisor *supervisor, struct child *child) {
  const struct sandbox_wish wish = wish_of(supervisor, child->is_core, &child->image, child->config);
  sandbox_prepare(&child->image.sandbox, &wish);
  sandbox_report(&child->image.sandbox, child->config->id);
}

/* It speaks with nobody of us. */
static struct sandbox_wish wish_of_alerts(const struct supervisor *supervisor, const struct config_module *module) {
  struct sandbox_wish wish = wish_of(supervisor, false, &supervisor->alerts.image, module);
  wish.notify_path = NULL;
  return wish;
}

void image_alerts_prepare(struct supervisor *supervisor) {
  static const struct config_list no_arguments = {0};
  const struct config_module module = config_alerts_confinement(supervisor->config);
  struct alerts *alerts = &supervisor->alerts;
  struct spawn_image *image = &alerts->image;
  size_t count = 0;
  image->path = image_program_find(supervisor->config->alerts_program);
  image->arguments = make_arguments(supervisor->config->alerts_program, &no_arguments);
  image->directory = base_asprintf("%s/alerts", supervisor->config->run_dir);
  image->umask = 0077;
  image->no_new_privileges = module.sandbox_no_new_privileges;
  image->drop_capabilities = module.sandbox_drop_capabilities;
  add(image, &count, base_strdup("PATH=" PATH_STANDARD));
  add(image, &count, base_strdup("LANG=C.UTF-8"));
  for (enum alert_variable i = 0; i < ALERT_VARIABLE_COUNT; i++) {
    char *name = base_asprintf("GATEHOUSE_ALERT_%s", alert_variable_names[i]);
    alerts->variables[i] = add_slot(image, &count, name, ALERT_REASON_BYTES);
    base_free(name);
  }
  add_limits(image, &module);
  const struct sandbox_wish wish = wish_of_alerts(supervisor, &module);
  sandbox_begin(&image->sandbox, &wish);
  sandbox_prepare(&image->sandbox, &wish);
}

void image_alerts_renew(struct supervisor *supervisor) {
  const struct config_module module = config_alerts_confinement(supervisor->config);
  const struct sandbox_wish wish = wish_of_alerts(supervisor, &module);
  sandbox_renew(&supervisor->alerts.image.sandbox, &wish);
}

void image_module_reset(struct child *child) {
  struct spawn_image kept = {.input_fd = child->image.input_fd, .output_fd = child->image.output_fd};
  image_free(&child->image);
  child->image = kept;
  base_free(BASE_TAKE(child->runtime_socket));
}

void image_log_level_set(struct spawn_image *image, unsigned level) {
  for (char **at = image->environment; at && *at; at++)
    if (str_starts_with(*at, LOG_LEVEL_VARIABLE)) {
      base_free(*at);
      *at = base_asprintf(LOG_LEVEL_VARIABLE "%s", log_levels[level]);
    }
}

pb_size_t image_protections_fill(supervisor_control_v1_Protection *target, const struct sandbox *sandbox) {
  pb_size_t count = 0;
  for (enum sandbox_measure i = 0; sandbox->applies && i < SANDBOX_MEASURE_COUNT; i++) {
    if (!sandbox->findings[i].reason[0])
      continue; /* not one of that process */
    supervisor_control_v1_Protection *entry = &target[count++];
    str_copy(entry->name, sizeof(entry->name), sandbox_measure_text(i));
    entry->state = (supervisor_control_v1_ProtectionState)(sandbox->findings[i].state + 1);
    str_copy(entry->why, sizeof(entry->why), sandbox->findings[i].reason);
  }
  return count;
}
_Static_assert(SANDBOX_MEASURE_COUNT <=
                   sizeof(((supervisor_control_v1_Hello *)0)->protections) / sizeof(supervisor_control_v1_Protection),
               "all fit");
_Static_assert((int)supervisor_control_v1_ProtectionState_PROTECTION_STATE_TURNED_OFF == (int)SANDBOX_TURNED_OFF + 1,
               "states are in the same order");

void image_free(struct spawn_image *image) {
  for (char **at = image->arguments; at && *at; at++)
    base_free(*at);
  for (char **at = image->environment; at && *at; at++)
    base_free(*at);
  base_free(image->arguments);
  base_free(image->environment);
  base_free(image->path);
  base_free(image->directory);
  sandbox_free(&image->sandbox);
}
