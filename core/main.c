/* main.c: the core process: start order, signals, end. Each room is opened after those it looks into and closed before
 * them: store → psg → secrets, observe, policy → catalog → sessions, lifecycle → dispatch → spi, admin. The state graph
 * is loaded on a thread of its own meanwhile. Only when every socket listens and the graph is there is the supervisor
 * told. Exit codes: 0 asked to end, 100 usage or configuration, 111 environment; 112 out of memory and 113 a loop that
 * hung are given by sdk/base. The core thread and the I/O thread are watched for that. The log writer is not: it waits
 * for the disk by design, a new core would wait for the same disk, and who waits for it has a deadline. */
#include <errno.h>
#include <event2/event.h>
#include <getopt.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/admin/admin.h"
#include "core/lifecycle/core_description.h"
#include "core/rpc/http/core_rpc_http.h"
#include "core/spi/spi.h"
#include "sdk/base/alloc.h"
#include "sdk/base/clock.h"
#include "sdk/base/crash.h"
#include "sdk/base/io.h"
#include "sdk/base/log.h"
#include "sdk/base/secret.h"
#include "sdk/base/str.h"
#include "sdk/base/watchdog.h"
#include "sdk/config/config.h"
#include "sdk/control/control.h"
#include "sdk/wire/wire.h"

enum { EXIT_USAGE = 100, EXIT_ENVIRONMENT = 111 };

#define STOP_GRACE_MS 5000
#define TRACE_FLUSH_MS 25 /* what a trace may lose with the core; nobody waits for it, and fewer commits cost less */
#define JWT_KEY_BYTES_MAX 4096

struct core {
  struct config *config;
  struct core_rpc_loop *loop;
  struct store *store;
  struct secrets *secrets;
  struct observe *observe;
  struct policy *policy;
  struct catalog *catalog;
  struct psg *psg;
  struct sessions *sessions;
  struct lifecycle *lifecycle;
  struct dispatch *dispatch;
  struct spi *spi;
  struct admin *admin;
  struct core_rpc_listener *admin_listener, *admin_http_listener;
  struct lifecycle_module_config *modules;
  struct config **reread; /* when configurations of modules changed: their texts are in use */
  size_t reread_count;
  const struct config_source *source;
  struct event *signal_event; /* I/O thread */
  int signal_fd, status;
  int64_t began_ms;
  atomic_bool store_posted;
};

extern char **environ;

/* ---- store completions: from the writer thread to the core thread ---- */

static void store_deliver(void *argument) {
  struct core *core = argument;
  atomic_store(&core->store_posted, false);
  if (core->store)
    store_dispatch(core->store);
}

static void store_wake(void *argument) {
  struct core *core = argument;
  if (!atomic_exchange(&core->store_posted, true))
    core_rpc_post(core->loop, store_deliver, core);
}

/* ---- the state graph, which is loaded while the rest starts ---- */

/* The core is ready, or has to end: a log that does not come out is not served on. */
static void psg_loaded(void *argument) {
  struct core *core = argument;
  struct error err = {0};
  if (!core->psg)
    return;
  if (!psg_wait(core->psg, &err)) {
    log_error_value(LOG_FATAL, "core", "the core cannot start", &err);
    core->status = EXIT_ENVIRONMENT;
    core_rpc_loop_stop(core->loop, 0);
    return;
  }
  int64_t startup_ms = clock_monotonic_ms() - core->began_ms;
  lifecycle_ready_tell(core->lifecycle, (uint32_t)startup_ms);
  log_event(LOG_INFO, "core", "ready", LOG_TEXT("version", GATEHOUSE_VERSION), LOG_INT("startup_ms", startup_ms));
}

static void psg_wake(void *argument) {
  struct core *core = argument;
  core_rpc_post(core->loop, psg_loaded, core);
}

/* ---- signals: read on the I/O thread ---- */

static void leave(void *argument) {
  struct core *core = argument;
  lifecycle_leave(core->lifecycle);
  core_rpc_loop_stop(core->loop, STOP_GRACE_MS);
}

static void on_signal(evutil_socket_t fd, short what, void *argument) {
  struct core *core = argument;
  struct signalfd_siginfo info;
  (void)what;
  if (read((int)fd, &info, sizeof(info)) == sizeof(info)) {
    log_event(LOG_INFO, "core", "told to end", LOG_INT("signal", info.ssi_signo));
    core_rpc_post(core->loop, leave, core);
  }
}

static void signals_begin(void *argument) {
  struct core *core = argument;
  core->signal_event = event_new(core_rpc_io_base(core->loop), core->signal_fd, EV_READ | EV_PERSIST, on_signal, core);
  event_add(core->signal_event, NULL);
}

static void signals_end(void *argument) {
  struct core *core = argument;
  event_free(core->signal_event);
}

static void on_supervisor_gone(void *argument) {
  leave(argument);
}

static void on_serving(void *argument, const struct lifecycle_instance *instance, bool serving) {
  struct core *core = argument;
  (void)instance;
  if (serving && core->dispatch)
    dispatch_serving_tell(core->dispatch);
}

/* ---- numbers that other rooms keep, taken over when someone looks ---- */

static void gauges_refresh(void *argument) {
  const struct core *core = argument;
  const struct {
    enum observe_metric metric;
    double value;
  } gauges[] = {
      {OBSERVE_CONTEXTS, (double)policy_context_count(core->policy)},
      {OBSERVE_SESSIONS, (double)sessions_count(core->sessions)},
      {OBSERVE_CATALOG_RECORDS, (double)catalog_record_count(core->catalog)},
      {OBSERVE_CATALOG_REVISION, (double)catalog_revision(core->catalog)},
      {OBSERVE_GRAPH_NODES, (double)psg_node_count(core->psg)},
      {OBSERVE_GRAPH_EDGES, (double)psg_edge_count(core->psg)},
  };
  for (size_t i = 0; i < sizeof(gauges) / sizeof(gauges[0]); i++)
    observe_gauge_set(core->observe, gauges[i].metric, NULL, gauges[i].value);
}

/* ---- opening ---- */

static bool open_store(struct core *core, struct error *err) {
  static const char *const backends[] = {"sqlite", "memory"};
  const struct store_options options = {
      .backend = backends[core->config->store_backend],
      .path = core->config->store_path,
      .durability =
          core->config->store_durability == CONFIG_DURABILITY_FULL && core->config->store_backend != CONFIG_STORE_MEMORY
              ? STORE_DURABLE
              : STORE_EPHEMERAL,
      .wake = store_wake,
      .wake_arg = core,
  };
  core->store = store_open(&options, err);
  return core->store != NULL;
}

static bool open_secrets(struct core *core, struct error *err) {
  char *made = base_asprintf("%s/master.key", core->config->state_dir);
  const char *named = core->config->secrets_master_key_file;
  const struct secrets_options options = {.key_file = str_is_empty(named) ? made : named,
                                          .key_environment = "GATEHOUSE_MASTER_KEY"};
  core->secrets = secrets_create(&options, err);
  base_free(made);
  return core->secrets != NULL;
}

/* The key file must be the core's own. */
static bool jwt_key_read(const char *path, struct buf *key, struct error *err) {
  struct stat status;
  if (stat(path, &status) != 0 || !io_read_file(path, JWT_KEY_BYTES_MAX, key, err))
    return error_set(err, ERR_CONFIG_READ, "auth.jwt.key_file cannot be read");
  if (status.st_mode & 077)
    return error_set(err, ERR_CONFIG_VALUE, "auth.jwt.key_file must not be readable by others");
  while (key->length > 0 && (key->data[key->length - 1] == '\n' || key->data[key->length - 1] == '\r'))
    key->length--;
  return true;
}

static bool open_policy(struct core *core, struct error *err) {
  const struct config *config = core->config;
  struct buf key = {0};
  struct policy_jwt_key jwt = {.algorithm = "HS256"};
  struct policy_options options = {
      .store = core->store,
      .anonymous_allowed = !str_is_empty(config->auth_anonymous_role),
      .anonymous_role = str_is_empty(config->auth_anonymous_role) ? NULL : config->auth_anonymous_role,
      .jwt_keys = &jwt,
      .jwt_issuer = str_is_empty(config->auth_jwt_issuer) ? NULL : config->auth_jwt_issuer,
      .jwt_audience = str_is_empty(config->auth_jwt_audience) ? NULL : config->auth_jwt_audience,
  };
  if (!str_is_empty(config->auth_jwt_key_file)) {
    if (!jwt_key_read(config->auth_jwt_key_file, &key, err))
      return false;
    jwt.key = key.data;
    jwt.key_length = key.length;
    options.jwt_key_count = 1;
  }
  core->policy = policy_create(&options, err);
  if (key.data)
    secret_wipe(key.data, key.capacity);
  buf_free(&key);
  return core->policy != NULL;
}

static bool open_catalog(struct core *core, struct error *err) {
  const struct catalog_options options = {.store = core->store, .policy = core->policy, .secrets = core->secrets};
  core->catalog = catalog_open(&options, err);
  return core->catalog != NULL;
}

static bool open_observe(struct core *core, struct error *err) {
  const struct observe_options options = {.store = core->store, .state_dir = core->config->state_dir};
  core->observe = observe_open(&options, err);
  return core->observe != NULL;
}

static bool open_psg(struct core *core, struct error *err) {
  const struct psg_options options = {
      .loop = core->loop, .store = core->store, .flush_ms = TRACE_FLUSH_MS, .wake = psg_wake, .wake_arg = core};
  core->psg = psg_open(&options, err);
  return core->psg != NULL;
}

static bool open_sessions(struct core *core, struct error *err) {
  const struct sessions_options options = {.loop = core->loop, .store = core->store};
  core->sessions = sessions_open(&options, err);
  return core->sessions != NULL;
}

/* A descriptor that the supervisor left us; -1: none. */
static bool descriptor_read(const char *variable, int *fd, struct error *err) {
  const char *text = getenv(variable);
  uint64_t number = 0;
  *fd = -1;
  if (!text)
    return true;
  if (!str_parse_u64(text, &number) || number > 1000000)
    return error_set(err, ERR_ARGUMENT_INVALID, "%s is not a descriptor", variable);
  *fd = (int)number;
  return true;
}

static struct config *config_read(const struct config_source *source);

/* The supervisor says that gatehouse.yaml says something else: of the modules' configurations, since everything else is
 * followed by a new core. It was read without a problem by the supervisor a moment ago. */
static void on_reconfigured(void *argument) {
  struct core *core = argument;
  struct config *next = config_read(core->source);
  if (!next)
    return;
  struct lifecycle_module_config *modules = base_calloc(next->modules_count + 1, sizeof(*modules));
  for (size_t i = 0; i < next->modules_count; i++)
    modules[i] = (struct lifecycle_module_config){.module_id = next->modules[i].id,
                                                  .config_json = next->modules[i].config,
                                                  .config_length = strlen(next->modules[i].config)};
  core->reread = base_realloc_array(core->reread, core->reread_count + 1, sizeof(next));
  core->reread[core->reread_count++] = next;
  log_event(LOG_INFO, "core", "configurations of modules were read again");
  lifecycle_reconfigure(core->lifecycle, modules, next->modules_count);
  base_free(modules);
}

#define PROBE(module, kind)                                                                                            \
  {                                                                                                                    \
    (uint32_t)(module).probe_##kind##_interval_ms, (uint32_t)(module).probe_##kind##_timeout_ms,                       \
        (uint32_t)(module).probe_##kind##_failures, (uint32_t)(module).probe_##kind##_successes                        \
  }

/* The supervisor asks for signs of life as systemd does; alone, the configuration says. */
static uint32_t heartbeat_within_ms(const struct config *config) {
  uint64_t interval_us;
  const char *asked = getenv("WATCHDOG_USEC");
  if (asked && str_parse_u64(asked, &interval_us) && interval_us / 1000 <= UINT32_MAX)
    return (uint32_t)(interval_us / 1000);
  return (uint32_t)config->core_watchdog_ms;
}

static bool open_lifecycle(struct core *core, struct error *err) {
  static const char *const levels[] = {"debug", "info", "warn", "error", "fatal"};
  const struct config *config = core->config;
  int control_fd, watch_fd;
  if (!descriptor_read(CONTROL_FD_VARIABLE, &control_fd, err) ||
      !descriptor_read(CONTROL_WATCH_FD_VARIABLE, &watch_fd, err))
    return false;
  core->modules = base_calloc(config->modules_count + 1, sizeof(*core->modules));
  for (size_t i = 0; i < config->modules_count; i++)
    core->modules[i] = (struct lifecycle_module_config){
        .module_id = config->modules[i].id,
        .config_json = config->modules[i].config,
        .config_length = strlen(config->modules[i].config),
        .start_timeout_ms = (uint32_t)config->modules[i].start_timeout_ms,
        .drain_timeout_ms = (uint32_t)config->modules[i].drain_timeout_ms,
        .intensity = {(uint32_t)config->modules[i].quarantine_deaths, (uint32_t)config->modules[i].quarantine_window_ms,
                      (uint32_t)config->modules[i].quarantine_late_starts},
        .quarantine_retry_ms = (uint32_t)config->modules[i].quarantine_retry_ms,
        .startup = PROBE(config->modules[i], startup),
        .liveness = PROBE(config->modules[i], liveness),
        .readiness = PROBE(config->modules[i], readiness),
        .binary = config->modules[i].binary,
        .fallback = config->modules[i].fallback,
        .probation_ms = (uint32_t)config->modules[i].upgrade_probation_ms,
        .criteria = {.error_points = (uint32_t)config->modules[i].upgrade_error_points,
                     .error_calls = (uint32_t)config->modules[i].upgrade_error_calls,
                     .latency_percent = (uint32_t)config->modules[i].upgrade_latency_percent,
                     .latency_calls = (uint32_t)config->modules[i].upgrade_latency_calls,
                     .memory_bytes = (uint64_t)config->modules[i].upgrade_memory_bytes}};
  const struct lifecycle_options options = {
      .loop = core->loop,
      .store = core->store,
      .secrets = core->secrets,
      .policy = core->policy,
      .psg = core->psg,
      .observe = core->observe,
      .run_dir = config->run_dir,
      .versions_dir = config->versions_dir,
      .log_level = levels[config->log_level],
      .control_fd = control_fd,
      .watch_fd = watch_fd,
      .in_flight_max = (uint32_t)config->spi_in_flight,
      .backoff_first_ms = (uint32_t)config->spi_backoff_min_ms,
      .backoff_max_ms = (uint32_t)config->spi_backoff_max_ms,
      .watchdog_ms = heartbeat_within_ms(config),
      .core_binary = config->core_binary,
      .core_probation_ms = (uint32_t)config->core_upgrade_probation_ms,
      .core_modules_ms = (uint32_t)config->core_upgrade_modules_ms,
      .store_schema = config->store_backend == CONFIG_STORE_MEMORY ? 0 : store_schema_version(),
      .modules = core->modules,
      .module_count = config->modules_count,
      .on_shutdown = on_supervisor_gone,
      .on_reconfigured = on_reconfigured,
      .on_serving = on_serving,
      .arg = core,
  };
  core->lifecycle = lifecycle_start(&options, err);
  return core->lifecycle != NULL;
}

static bool open_services(struct core *core, struct error *err) {
  (void)err;
  static const char *const backends[] = {"sqlite", "memory"};
  size_t descriptor_length;
  const unsigned char *descriptors = wire_descriptor_set(&descriptor_length);
  const struct dispatch_options dispatch_options = {.loop = core->loop,
                                                    .catalog = core->catalog,
                                                    .policy = core->policy,
                                                    .psg = core->psg,
                                                    .observe = core->observe,
                                                    .lifecycle = core->lifecycle,
                                                    .hold_ms = (uint32_t)core->config->dispatch_hold_ms,
                                                    .hold_max = (uint32_t)core->config->dispatch_hold_max};
  core->dispatch = dispatch_create(&dispatch_options);
  const struct spi_options spi_options = {.loop = core->loop,
                                          .store = core->store,
                                          .lifecycle = core->lifecycle,
                                          .policy = core->policy,
                                          .catalog = core->catalog,
                                          .dispatch = core->dispatch,
                                          .sessions = core->sessions,
                                          .observe = core->observe,
                                          .psg = core->psg};
  core->spi = spi_create(&spi_options);
  const struct admin_options admin_options = {.loop = core->loop,
                                              .store = core->store,
                                              .lifecycle = core->lifecycle,
                                              .policy = core->policy,
                                              .catalog = core->catalog,
                                              .dispatch = core->dispatch,
                                              .sessions = core->sessions,
                                              .observe = core->observe,
                                              .psg = core->psg,
                                              .store_backend = backends[core->config->store_backend]};
  core->admin = admin_create(&admin_options);
  observe_refresh_set(core->observe, gauges_refresh, core);
  core_rpc_health_register(core->loop);
  core_rpc_reflection_register(core->loop, descriptors, descriptor_length);
  return true;
}

static bool open_listeners(struct core *core, struct error *err) {
  char *grpc_path = base_asprintf("%s/core/admin.sock", core->config->run_dir);
  char *http_path = base_asprintf("%s/core/admin.http.sock", core->config->run_dir);
  struct core_rpc_listen_options options = {.path = grpc_path,
                                            .name = ADMIN_LISTENER,
                                            .mode = 0600,
                                            .owner_uid = (uid_t)-1,
                                            .owner_gid = (gid_t)-1,
                                            .on_accept = admin_peer_accept};
  core->admin_listener = core_rpc_listen(core->loop, &options, err);
  options.path = http_path;
  if (core->admin_listener)
    core->admin_http_listener = core_rpc_http_listen(core->loop, &options, err);
  base_free(grpc_path);
  base_free(http_path);
  return core->admin_http_listener != NULL;
}

static bool open_directories(struct core *core, struct error *err) {
  char *folder = base_asprintf("%s/core", core->config->run_dir);
  bool ok = io_make_directories(core->config->state_dir, 0700, err) && io_make_directories(folder, 0711, err);
  base_free(folder);
  return ok;
}

static bool core_open(struct core *core, struct error *err) {
  static bool (*const steps[])(struct core *, struct error *) = {
      open_directories, open_store,    open_psg,       open_secrets,  open_observe,  open_policy,
      open_catalog,     open_sessions, open_lifecycle, open_services, open_listeners};
  for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
    if (!steps[i](core, err))
      return false;
  core_rpc_io_post(core->loop, signals_begin, core);
  return true;
}

/* What waits for the store comes back while the rooms that it is for are still there. */
static void store_settle(struct core *core) {
  if (!core->store)
    return;
  struct store_batch *barrier = store_batch_create();
  store_commit_sync(core->store, &barrier, NULL, NULL);
}

/* The reverse of opening; what was not opened is NULL. */
static void core_close(struct core *core) {
  core_rpc_listener_close(&core->admin_listener, true);
  core_rpc_listener_close(&core->admin_http_listener, true);
  store_settle(core);
  admin_free(&core->admin);
  spi_free(&core->spi);
  dispatch_free(&core->dispatch);
  lifecycle_stop(core->lifecycle);
  sessions_close(&core->sessions);
  psg_close(&core->psg);
  catalog_close(&core->catalog);
  observe_close(&core->observe);
  store_close(&core->store);
  policy_free(&core->policy);
  secrets_free(&core->secrets);
  if (core->signal_event)
    core_rpc_io_post(core->loop, signals_end, core);
  core_rpc_loop_free(&core->loop);
  lifecycle_free(&core->lifecycle);
  base_free(core->modules);
  for (size_t i = 0; i < core->reread_count; i++)
    config_free(&core->reread[i]);
  base_free(core->reread);
  close(core->signal_fd);
}

/* ---- command line ---- */

static void usage(FILE *out) {
  fputs(
      "Usage: gatehouse-core [--config FILE] [--set KEY=VALUE]... [--describe | --help | --version]\n"
      "The process that decides. Started by gatehouse-supervisor, or alone with modules that attach by themselves.\n\n"
      "  --config FILE      gatehouse.yaml; default: $GATEHOUSE_CONFIG, ./gatehouse.yaml, "
      "/etc/gatehouse/gatehouse.yaml\n"
      "  --set KEY=VALUE    overrides one key\n"
      "  --describe         say in JSON which version this is and which schema of the store it writes, and exit\n"
      "  --help, --version  print and exit\n\n"
      "Exit codes: 0 asked to end, 100 usage or configuration, 111 environment, 112 out of memory, 113 a loop hung.\n",
      out);
}

static void describe(void) {
  const struct lifecycle_core_description description = {.version = GATEHOUSE_VERSION,
                                                         .store_schema = store_schema_version()};
  struct buf line = {0};
  lifecycle_core_description_write(&description, &line);
  puts(line.data);
  buf_free(&line);
}

#define SETS_MAX 64

static struct config *config_read(const struct config_source *source) {
  struct config_problems problems = {0};
  struct config *config = config_load(source, &problems);
  struct buf text = {0};
  for (size_t i = 0; !config && i < problems.count; i++) {
    buf_clear(&text);
    config_problem_format(&problems.items[i], &text);
    fprintf(stderr, "%s\n", text.data);
  }
  buf_free(&text);
  return config;
}

/* Blocks what is read by signalfd, before any thread starts (T14). */
static int signals_block(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigprocmask(SIG_BLOCK, &set, NULL);
  signal(SIGPIPE, SIG_IGN);
  return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int main(int argc, char **argv) {
  static const struct option long_options[] = {
      {"config", required_argument, NULL, 'c'}, {"set", required_argument, NULL, 's'},
      {"describe", no_argument, NULL, 'd'},     {"help", no_argument, NULL, 'h'},
      {"version", no_argument, NULL, 'v'},      {NULL, 0, NULL, 0}};
  const char *path = NULL, *sets[SETS_MAX];
  size_t set_count = 0;
  int option;
  int64_t began_ms = clock_monotonic_ms();
  while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
    if (option == 'h') {
      usage(stdout);
      return 0;
    }
    if (option == 'd') {
      describe();
      return 0;
    }
    if (option == 'v') {
      puts("gatehouse-core " GATEHOUSE_VERSION);
      return 0;
    }
    if (option == 'c') {
      path = optarg;
    } else if (option == 's' && set_count < SETS_MAX) {
      sets[set_count++] = optarg;
    } else {
      usage(stderr);
      return EXIT_USAGE;
    }
  }
  if (optind != argc) {
    usage(stderr);
    return EXIT_USAGE;
  }

  const struct config_source source = {.path = path, .environment = environ, .sets = sets, .set_count = set_count};
  struct core core = {.config = config_read(&source), .source = &source, .began_ms = began_ms};
  if (!core.config)
    return EXIT_USAGE;
  log_init("core", (enum log_level)core.config->log_level);
  error_origin_default_set(ERROR_ORIGIN_CORE);
  crash_handler_install("core");
  secret_harden_process();
  umask(077);
  core.signal_fd = signals_block();
  watchdog_start((uint32_t)core.config->core_hang_ms);
  const struct core_rpc_options options = {.message_max_bytes = (uint32_t)core.config->spi_message_bytes,
                                           .in_flight_max = (uint32_t)core.config->spi_in_flight};
  core.loop = core_rpc_loop_create(&options);
  struct error err = {0};
  if (core_open(&core, &err)) {
    core_rpc_loop_run(core.loop);
    log_event(LOG_INFO, "core", "ending");
  } else {
    log_error_value(LOG_FATAL, "core", "the core cannot start", &err);
    core.status = EXIT_ENVIRONMENT;
  }
  core_close(&core);
  config_free(&core.config);
  return core.status;
}
