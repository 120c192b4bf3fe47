/* lifecycle.c: the room itself: its modules, their SPI sockets, the identity of SPI calls, and what other rooms ask. */
#include "core/lifecycle/lifecycle.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/lifecycle/lifecycle_internal.h"
#include "core/rpc/http/core_rpc_http.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/clock.h"
#include "sdk/base/io.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

#define SECRET_METADATA "gatehouse-channel-secret"
#define MODULE_ID_MAX (LIFECYCLE_MODULE_ID_BYTES - 1)

/* ---- modules ---- */

struct lifecycle_module *lifecycle_module_find(struct lifecycle *lifecycle, const char *module_id) {
  struct lifecycle_module *module;
  STAILQ_FOREACH(module, &lifecycle->modules, entry)
  if (str_equal(module->id, module_id))
    return module;
  return NULL;
}

struct lifecycle_module *lifecycle_module_current(const struct lifecycle_versions *versions) {
  return versions->second && versions->second->role == LIFECYCLE_CURRENT ? versions->second : versions->first;
}

struct lifecycle_module *lifecycle_module_other(const struct lifecycle_module *module) {
  return module == module->versions->first ? module->versions->second : module->versions->first;
}

struct lifecycle_module *lifecycle_module_named(struct lifecycle *lifecycle, const char *module_id) {
  struct lifecycle_module *module = lifecycle_module_find(lifecycle, module_id);
  return module && str_equal(module->name, module_id) ? lifecycle_module_current(module->versions) : NULL;
}

bool lifecycle_module_is_alive(const struct lifecycle_module *module) {
  return module->instance && module->instance->channel;
}

static bool module_id_is_valid(const char *module_id) {
  size_t length = strlen(module_id);
  if (length == 0 || length > MODULE_ID_MAX || module_id[0] == '-')
    return false;
  return strspn(module_id, "abcdefghijklmnopqrstuvwxyz0123456789-_") == length;
}

/* A supervised module's process runs as the user that the supervisor named, and nobody else may be it (TRN-4). */
static bool peer_is_module(const struct lifecycle_module *module, const struct core_rpc_peer *peer) {
  return !module->supervised || peer->uid == module->uid;
}

static bool spi_peer_accept(struct core_rpc_peer *peer, void *user) {
  const struct lifecycle_module *module = user;
  if (peer_is_module(module, peer))
    return true;
  log_event(LOG_WARN, "lifecycle", "a connection to an SPI socket was refused", LOG_TEXT("module", module->id),
            LOG_INT("uid", peer->uid));
  return false;
}

void lifecycle_module_owner_set(struct lifecycle_module *module, uid_t uid, gid_t gid) {
  struct core_rpc_listener *listeners[] = {module->spi_listener, module->spi_http_listener};
  struct error err = {0};
  module->uid = uid;
  for (size_t i = 0; i < sizeof(listeners) / sizeof(listeners[0]); i++) {
    /* A core without capabilities cannot give files away: then whoever can pass through the folder, which the
     * supervisor gave to the module's group, may knock, and the peer's uid decides. */
    if (uid == geteuid() || core_rpc_listener_owner_set(listeners[i], uid, gid, NULL))
      continue;
    if (!core_rpc_listener_mode_set(listeners[i], 0666, &err))
      log_error_value(LOG_ERROR, "lifecycle", "a module cannot reach its SPI socket", &err);
  }
}

/* Of a module that the configuration does not name: as its keys' defaults say. */
static const struct lifecycle_module_config config_default = {
    .config_json = "{}",
    .config_length = 2,
    .start_timeout_ms = 10000,
    .drain_timeout_ms = 10000,
    .intensity = {.deaths = 5, .window_ms = 60000, .late_starts = 2},
    .quarantine_retry_ms = 300000,
    .startup = {.interval_ms = 1000, .timeout_ms = 5000, .failures = 3, .successes = 1},
    .liveness = {.interval_ms = 1000, .timeout_ms = 1500, .failures = 3, .successes = 1},
    .readiness = {.interval_ms = 5000, .timeout_ms = 2000, .failures = 2, .successes = 1},
    .probation_ms = 30000,
    .criteria = LIFECYCLE_CRITERIA_DEFAULT,
};

/* core/spi/<id><suffix> leads to core/spi/<id>/<name>. The sockets of each module are in a folder of their own, so that
 * a sandbox can show it that folder and no other. The caller frees the path of the socket. NULL: errno tells. */
static char *spi_socket_path(const struct lifecycle *lifecycle, const char *module_id, const char *name,
                             const char *suffix) {
  char *path = base_asprintf("%s/core/spi/%s/%s", lifecycle->run_dir, module_id, name);
  char *target = base_asprintf("%s/%s", module_id, name);
  char *link = base_asprintf("%s/core/spi/%s%s", lifecycle->run_dir, module_id, suffix);
  char *new_link = base_asprintf("%s.new", link);
  char *slash = strrchr(path, '/');
  *slash = '\0';
  unlink(new_link);
  bool ok = io_make_directories(path, 0711, NULL) && symlink(target, new_link) == 0 && rename(new_link, link) == 0;
  *slash = '/';
  base_free(target);
  base_free(link);
  base_free(new_link);
  if (!ok)
    base_free(BASE_TAKE(path));
  return path;
}

/* With its SPI listeners. */
static struct lifecycle_module *module_make(struct lifecycle *lifecycle, const char *module_id) {
  struct error err = {0};
  struct lifecycle_module *module = BASE_NEW(struct lifecycle_module);
  module->lifecycle = lifecycle;
  module->config = config_default;
  module->id = base_strdup(module_id);
  TAILQ_INIT(&module->witnesses);
  module->runtime_path = base_asprintf("%s/modules/%s/runtime.sock", lifecycle->run_dir, module_id);
  module->spi_path = base_asprintf("%s/core/spi/%s.sock", lifecycle->run_dir, module_id);
  char *path = spi_socket_path(lifecycle, module_id, "grpc.sock", ".sock");
  char *http_path = spi_socket_path(lifecycle, module_id, "http.sock", ".http.sock");
  struct core_rpc_listen_options options = {.path = path,
                                            .name = module->id,
                                            .mode = 0600,
                                            .owner_uid = (uid_t)-1,
                                            .owner_gid = (gid_t)-1,
                                            .on_accept = spi_peer_accept,
                                            .user = module};
  if (!path || !http_path)
    error_set(&err, ERR_IO, "the folder of a module's SPI sockets cannot be made: %s", strerrorname_np(errno));
  else
    module->spi_listener = core_rpc_listen(lifecycle->options.loop, &options, &err);
  if (module->spi_listener) {
    options.path = http_path;
    module->spi_http_listener = core_rpc_http_listen(lifecycle->options.loop, &options, &err);
  }
  base_free(path);
  base_free(http_path);
  if (!module->spi_http_listener) {
    core_rpc_listener_close(&module->spi_listener, true);
    log_error_value(LOG_ERROR, "lifecycle", "a module's SPI socket cannot be made", &err);
    base_free(module->id);
    base_free(module->runtime_path);
    base_free(module->spi_path);
    base_free(module);
    return NULL;
  }
  STAILQ_INSERT_TAIL(&lifecycle->modules, module, entry);
  return module;
}

struct lifecycle_module *lifecycle_module_ensure(struct lifecycle *lifecycle, const char *module_id) {
  struct lifecycle_module *module = lifecycle_module_find(lifecycle, module_id);
  if (module)
    return module;
  if (!module_id_is_valid(module_id)) {
    if (!strchr(module_id, '@')) /* of an upgrade that this core has no part in */
      log_event(LOG_WARN, "lifecycle", "a folder that is no module id was passed over");
    return NULL;
  }
  module = module_make(lifecycle, module_id);
  if (!module)
    return NULL;
  module->name = base_strdup(module_id);
  module->versions = BASE_NEW(struct lifecycle_versions);
  module->versions->lifecycle = lifecycle;
  module->versions->name = module->name;
  module->versions->first = module;
  STAILQ_INIT(&module->versions->configs);
  for (size_t i = 0; i < lifecycle->options.module_count; i++)
    if (str_equal(lifecycle->options.modules[i].module_id, module_id)) {
      module->config = lifecycle->options.modules[i];
      module->configured = true;
    }
  return module;
}

struct lifecycle_module *lifecycle_module_second(struct lifecycle *lifecycle, const char *module_id,
                                                 const char *process_id) {
  struct lifecycle_module *first = lifecycle_module_find(lifecycle, module_id);
  if (!first || !str_equal(first->name, first->id) || strlen(process_id) > MODULE_ID_MAX)
    return NULL;
  if (first->versions->second)
    return first->versions->second;
  struct lifecycle_module *second = module_make(lifecycle, process_id);
  if (!second)
    return NULL;
  second->name = base_strdup(module_id);
  second->versions = first->versions;
  second->versions->second = second;
  second->role = LIFECYCLE_RETIRED;
  second->edition.config = first->versions->current.config;
  second->config = first->config;
  second->configured = first->configured;
  second->supervised = first->supervised;
  str_copy(second->family, sizeof(second->family), first->family);
  lifecycle_module_owner_set(second, first->uid, (gid_t)-1);
  return second;
}

#define DESCENT_MAX 8

uint32_t lifecycle_module_start_timeout_ms(const struct lifecycle_module *module) {
  return module->config.start_timeout_ms;
}

void lifecycle_module_fault(struct lifecycle_module *module, uint64_t generation, enum error_code code,
                            const char *format, ...) {
  char text[LIFECYCLE_REASON_BYTES - ERROR_CODE_MAX];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  snprintf(module->fault, sizeof(module->fault), "%s (%s)", text, error_code_text(code));
  module->fault_generation = generation;
}

static void module_free(struct lifecycle_module *module) {
  if (str_equal(module->id, module->name)) /* the first process has them; the second one's may be gone by now */
    lifecycle_versions_free(&module->versions);
  lifecycle_redial_cancel(module);
  core_rpc_timer_cancel(&module->process_timer);
  lifecycle_instance_free(&module->instance);
  core_rpc_listener_close(&module->spi_listener, true);
  core_rpc_listener_close(&module->spi_http_listener, true);
  for (size_t i = 0; i < module->last_word_count; i++)
    base_free(module->last_words[i]);
  for (size_t i = 0; i < LIFECYCLE_DEATHS_SHOWN; i++)
    for (size_t w = 0; w < module->recent[i].word_count; w++)
      base_free(module->recent[i].words[w]);
  base_free(module->id);
  base_free(module->name);
  base_free(module->runtime_path);
  base_free(module->spi_path);
  base_free(module);
}

/* ---- the room ---- */

struct lifecycle *lifecycle_start(const struct lifecycle_options *options, struct error *err) {
  struct lifecycle *lifecycle = BASE_NEW(struct lifecycle);
  lifecycle->magic = LIFECYCLE_MAGIC;
  lifecycle->options = *options;
  lifecycle->run_dir = base_strdup(options->run_dir);
  lifecycle->started_us = clock_monotonic_us();
  STAILQ_INIT(&lifecycle->modules);
  lifecycle_core_init(lifecycle);

  char *spi_folder = base_asprintf("%s/core/spi", options->run_dir);
  bool ok = io_make_directories(spi_folder, 0711, err);
  base_free(spi_folder);
  for (size_t i = 0; ok && i < options->module_count; i++)
    if (!lifecycle_module_ensure(lifecycle, options->modules[i].module_id))
      ok = error_set(err, ERR_IO, "the SPI socket of module %s cannot be made", options->modules[i].module_id);
  ok = ok && lifecycle_versions_restore(lifecycle, err) && lifecycle_configs_restore(lifecycle, err) &&
       lifecycle_quarantine_restore(lifecycle, err);
  if (ok && options->control_fd >= 0) {
    lifecycle->control = lifecycle_control_open(lifecycle, options->control_fd, err);
    ok = lifecycle->control != NULL; /* discovery starts when the supervisor has told what runs */
  } else if (ok) {
    lifecycle->discovery = lifecycle_discovery_start(lifecycle, err);
    ok = lifecycle->discovery != NULL;
  }
  struct lifecycle_module *module;
  STAILQ_FOREACH(module, &lifecycle->modules, entry)
  if (ok && !lifecycle->control) /* with a supervisor: when it has told what runs */
    lifecycle_configure_adopt(module->versions);
  if (!ok) {
    lifecycle_stop(lifecycle);
    lifecycle_free(&lifecycle); /* what posts tasks comes last, and did not begin */
  }
  return lifecycle;
}

void lifecycle_ready_tell(struct lifecycle *lifecycle, uint32_t startup_ms) {
  if (!lifecycle->control)
    return;
  lifecycle_control_ready(lifecycle->control, startup_ms);
  lifecycle_core_ready(lifecycle);
}

void lifecycle_leave(struct lifecycle *lifecycle) {
  static const enum lifecycle_call watching[] = {LIFECYCLE_CALL_STEP, LIFECYCLE_CALL_HEALTH, LIFECYCLE_CALL_LIVENESS,
                                                 LIFECYCLE_CALL_STATS};
  struct lifecycle_module *module;
  STAILQ_FOREACH(module, &lifecycle->modules, entry) {
    struct lifecycle_instance *instance = module->instance;
    lifecycle_redial_cancel(module);
    core_rpc_timer_cancel(&module->process_timer);
    if (!instance)
      continue;
    core_rpc_timer_cancel(&instance->start_timer);
    core_rpc_timer_cancel(&instance->readiness_timer);
    core_rpc_timer_cancel(&instance->liveness_timer);
    for (size_t i = 0; i < sizeof(watching) / sizeof(watching[0]); i++) {
      struct core_rpc_client_call *call = BASE_TAKE(instance->calls[watching[i]]); /* its end finds nobody waiting */
      if (call)
        core_rpc_client_cancel(call);
    }
  }
}

void lifecycle_stop(struct lifecycle *lifecycle) {
  if (!lifecycle)
    return;
  lifecycle->stopping = true;
  lifecycle_discovery_stop(lifecycle->discovery);
  lifecycle_control_stop(lifecycle->control);
  lifecycle_core_free(lifecycle);
  core_rpc_timer_cancel(&lifecycle->alerts.timer);
  while (!STAILQ_EMPTY(&lifecycle->modules)) {
    struct lifecycle_module *module = STAILQ_FIRST(&lifecycle->modules);
    STAILQ_REMOVE_HEAD(&lifecycle->modules, entry);
    module_free(module);
  }
}

void lifecycle_free(struct lifecycle **holder) {
  struct lifecycle *lifecycle = BASE_TAKE(*holder);
  if (!lifecycle)
    return;
  lifecycle_discovery_free(&lifecycle->discovery);
  lifecycle_control_free(&lifecycle->control);
  base_free(lifecycle->run_dir);
  lifecycle->magic = 0;
  base_free(lifecycle);
}

/* ---- identity (TRN-4) ---- */

/* Whether pid is the module's process or one that it started: a script calls the SPI by curl (TRN-2). Only asked for a
 * process that is not the module's own. */
static bool process_is_descendant(int32_t pid, int32_t ancestor) {
  for (unsigned level = 0; level < DESCENT_MAX && pid > 1; level++) {
    char path[40], line[512];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (!file)
      return false;
    size_t length = fread(line, 1, sizeof(line) - 1, file);
    fclose(file);
    line[length] = '\0';
    const char *after_name = strrchr(line, ')'); /* the name may hold anything */
    int parent = 0;
    if (!after_name || sscanf(after_name, ") %*c %d", &parent) != 1)
      return false;
    if (parent == ancestor)
      return true;
    pid = parent;
  }
  return false;
}

struct lifecycle_instance *lifecycle_authenticate(struct lifecycle *lifecycle, struct core_rpc_call *call,
                                                  struct error *err) {
  BASE_CHECK_MAGIC(lifecycle, LIFECYCLE_MAGIC);
  const struct core_rpc_peer *peer = core_rpc_call_peer(call);
  struct lifecycle_module *module = lifecycle_module_find(lifecycle, peer->listener);
  struct lifecycle_instance *instance = module ? module->instance : NULL;
  size_t length = 0;
  const char *given = core_rpc_call_metadata(call, SECRET_METADATA, &length);
  if (instance && given && peer_is_module(module, peer) && secret_equal(instance->channel_secret, given, length) &&
      (!module->pid || !peer->pid || module->pid == peer->pid || process_is_descendant(peer->pid, module->pid)))
    return instance;
  error_set(err, ERR_AUTH_CHANNEL, NULL);
  observe_audit_append(lifecycle->options.observe, &(struct observe_audit){.action = "spi.channel.denied",
                                                                           .actor = peer->listener,
                                                                           .target = core_rpc_call_method(call),
                                                                           .outcome = "denied"});
  return NULL;
}

const char *lifecycle_instance_name(const struct lifecycle_instance *instance) {
  return instance->module->name;
}

const char *lifecycle_instance_module_id(const struct lifecycle_instance *instance) {
  return instance->module->id;
}

const char *lifecycle_instance_family(const struct lifecycle_instance *instance) {
  return instance->descriptor ? instance->descriptor->protocol_family : instance->module->family;
}

uint64_t lifecycle_instance_generation(const struct lifecycle_instance *instance) {
  return instance->generation;
}

enum lifecycle_phase lifecycle_instance_phase(const struct lifecycle_instance *instance) {
  if (instance->handing_over)
    return LIFECYCLE_PHASE_SERVING;
  /* A candidate accepts beside the current one as soon as its deny path is proven: those clients do not wait for the
   * rest of its readiness. */
  if (instance->state == LIFECYCLE_WARMING && instance->module->role == LIFECYCLE_CANDIDATE &&
      policy_canary_seen(instance->module->lifecycle->options.policy, instance->module->id))
    return LIFECYCLE_PHASE_SERVING;
  switch (instance->state) {
  case LIFECYCLE_READY:
  case LIFECYCLE_DEGRADED:
    return LIFECYCLE_PHASE_SERVING;
  case LIFECYCLE_DRAINING:
  case LIFECYCLE_STOPPING:
  case LIFECYCLE_ROLLING_BACK:
    return LIFECYCLE_PHASE_DRAINING;
  case LIFECYCLE_WARMING: /* it opens its doors the moment its deny path is proven; its word that it is ready is under
                             way */
    return policy_canary_seen(instance->module->lifecycle->options.policy, instance->module->id)
               ? LIFECYCLE_PHASE_SERVING
               : LIFECYCLE_PHASE_INITIALIZING;
  default:
    return LIFECYCLE_PHASE_INITIALIZING;
  }
}

bool lifecycle_instance_is_granted(const struct lifecycle_instance *instance, const char *spi_family) {
  const char *const *names = lifecycle_family_names();
  for (size_t i = 0; names[i]; i++)
    if (str_equal(names[i], spi_family))
      return instance->granted & (1u << i);
  return false;
}

const char *lifecycle_instance_config(const struct lifecycle_instance *instance, size_t *length, uint64_t *revision) {
  *revision = instance->module->edition.config;
  return lifecycle_config_text(instance->module, length);
}

/* ---- who carries out calls ---- */

/* Nobody serves the family: because all who could are held down, or for now. */
static enum error_code family_fault(const struct lifecycle *lifecycle, const char *protocol_family) {
  static const enum error_code codes[] = {[LIFECYCLE_HOLD_NONE] = ERR_INVOKE_OWNER_UNAVAILABLE,
                                          [LIFECYCLE_HOLD_DISABLED] = ERR_INVOKE_OWNER_UNAVAILABLE,
                                          [LIFECYCLE_HOLD_STOPPED] = ERR_MODULE_STOPPED,
                                          [LIFECYCLE_HOLD_QUARANTINED] = ERR_MODULE_QUARANTINED};
  const struct lifecycle_module *module;
  enum error_code code = ERR_INVOKE_OWNER_UNAVAILABLE;
  STAILQ_FOREACH(module, &lifecycle->modules, entry) {
    if (!str_equal(module->family, protocol_family) || module->hold == LIFECYCLE_HOLD_DISABLED ||
        module->role != LIFECYCLE_CURRENT)
      continue;
    if (module->hold == LIFECYCLE_HOLD_NONE)
      return ERR_INVOKE_OWNER_UNAVAILABLE; /* it comes back by itself */
    code = codes[module->hold];
  }
  return code;
}

static bool serves_family(const struct lifecycle_module *module, const char *protocol_family) {
  const struct lifecycle_instance *instance = module->instance;
  return instance && instance->channel && instance->state == LIFECYCLE_READY &&
         !core_rpc_channel_is_lost(instance->channel) &&
         str_equal(lifecycle_instance_family(instance), protocol_family);
}

struct core_rpc_channel *lifecycle_family_channel(struct lifecycle *lifecycle, const char *protocol_family,
                                                  const char *preferred_id, char owner_id[LIFECYCLE_MODULE_ID_BYTES],
                                                  struct error *err) {
  struct lifecycle_module *module, *chosen = NULL;
  unsigned count = 0;
  STAILQ_FOREACH(module, &lifecycle->modules, entry) {
    if (!serves_family(module, protocol_family))
      continue;
    count++;
    if (preferred_id && str_equal(module->id, preferred_id))
      chosen = module;
  }
  unsigned wanted = !chosen && count ? lifecycle->turn++ % count : 0;
  STAILQ_FOREACH(module, &lifecycle->modules, entry)
  if (!chosen && serves_family(module, protocol_family) && wanted-- == 0)
    chosen = module;
  if (!chosen) {
    error_set(err, family_fault(lifecycle, protocol_family), NULL);
    return NULL;
  }
  if (owner_id)
    str_copy(owner_id, LIFECYCLE_MODULE_ID_BYTES, chosen->id);
  return chosen->instance->channel;
}

/* Its last two deaths came before it was ready: the next start will hardly end otherwise. */
static bool never_gets_ready(const struct lifecycle_module *module) {
  const struct lifecycle_death *newest = &module->recent[(module->recent_count - 1) % LIFECYCLE_DEATHS_SHOWN];
  const struct lifecycle_death *before = &module->recent[(module->recent_count - 2) % LIFECYCLE_DEATHS_SHOWN];
  return module->recent_count >= 2 && !newest->was_ready && !before->was_ready &&
         newest->generation > module->ready_generation;
}

static bool module_returns(const struct lifecycle_module *module, uint32_t within_ms) {
  if (module->hold != LIFECYCLE_HOLD_NONE || module->role != LIFECYCLE_CURRENT || module->stays_down ||
      never_gets_ready(module))
    return false;
  if (module->restart_waits)
    return module->restart_due_us - clock_monotonic_us() <= (int64_t)within_ms * 1000;
  if (!module->instance)
    return module->supervised; /* the core is new, and finds it soon */
  if (module->instance->channel && core_rpc_channel_is_lost(module->instance->channel))
    return module->supervised; /* as of one that is known to have failed, which this one is at once */
  switch (module->instance->state) {
  case LIFECYCLE_DISCOVERED:
  case LIFECYCLE_REGISTERED:
  case LIFECYCLE_INITIALIZING:
  case LIFECYCLE_WARMING:
    return true;
  case LIFECYCLE_FAILED:
  case LIFECYCLE_STOPPING: /* to be restarted: it would be held, or stay down */
  case LIFECYCLE_STOPPED:
    return module->supervised; /* else nobody can tell */
  case LIFECYCLE_BACKOFF:
    return module->pid > 0; /* that is over: its next process runs, and its socket is not there yet */
  case LIFECYCLE_DRAINING:
    return module->plan == LIFECYCLE_PLAN_RESTART;
  default:
    return false;
  }
}

bool lifecycle_family_returns(const struct lifecycle *lifecycle, const char *protocol_family, uint32_t within_ms) {
  const struct lifecycle_module *module;
  STAILQ_FOREACH(module, &lifecycle->modules, entry) {
    const Core__Module__V1__ModuleDescriptor *descriptor = module->instance ? module->instance->descriptor : NULL;
    if (str_equal(descriptor ? descriptor->protocol_family : module->family, protocol_family) &&
        module_returns(module, within_ms))
      return true;
  }
  return false;
}

struct core_rpc_channel *lifecycle_module_channel(struct lifecycle *lifecycle, const char *module_id,
                                                  struct error *err) {
  struct lifecycle_module *module = lifecycle_module_find(lifecycle, module_id);
  if (module && lifecycle_module_is_alive(module))
    return module->instance->channel;
  error_set(err, ERR_INVOKE_OWNER_UNAVAILABLE, NULL);
  return NULL;
}
