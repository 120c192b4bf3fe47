/* module_main.c: the process around a module: command line, environment, signals, loop, end. */
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/crash.h"
#include "sdk/base/io.h"
#include "sdk/base/log.h"
#include "sdk/base/secret.h"
#include "sdk/base/str.h"
#include "sdk/http/http_server.h"
#include "sdk/module/module_internal.h"

#define STOP_GRACE_DEFAULT_MS 10000 /* of one that is started by hand */

static void usage(const struct module_definition *definition, FILE *out) {
  fprintf(out,
          "Usage: gatehouse-%s [--describe | --help | --version]\n"
          "%s\n\n"
          "  --describe   print the module's descriptor as JSON and exit\n"
          "  --help       print this and exit\n"
          "  --version    print the version and exit\n\n"
          "Started by gatehouse-supervisor, or by hand with this environment:\n"
          "  GATEHOUSE_RUN             run directory (the runtime socket is <run>/modules/<id>/runtime.sock)\n"
          "  GATEHOUSE_RUNTIME_SOCKET  path of the runtime socket, instead\n"
          "  GATEHOUSE_SPI_SOCKET      path of the core's SPI socket (default: <run>/core/spi/<id>.sock)\n"
          "  GATEHOUSE_MODULE_ID       id of the module (default: %s)\n"
          "  GATEHOUSE_GENERATION      number of this instance\n"
          "  GATEHOUSE_LOG_LEVEL       debug, info, warn or error\n"
          "  GATEHOUSE_CORE_UID        uid of the core when it is neither root nor ours\n"
          "  GATEHOUSE_HANG_MS         it ends itself when its loop did not turn for so long; 0: never (default: %d)\n"
          "  GATEHOUSE_STOP_GRACE_MS   milliseconds from SIGTERM to its end; it keeps a tenth of it (default: %d)\n"
          "  LISTEN_FDS, LISTEN_FDNAMES, NOTIFY_SOCKET, WATCHDOG_USEC as systemd defines them\n\n"
          "Exit codes: 0 asked to end, 100 usage, 111 environment, 112 out of memory, 113 its loop hung.\n",
          definition->module_id, definition->summary, definition->module_id, MODULE_HANG_DEFAULT_MS,
          STOP_GRACE_DEFAULT_MS);
}

/* ---- what a module may use ---- */

struct event_base *module_event_base(const struct module *module) {
  BASE_CHECK_MAGIC(module, MODULE_MAGIC);
  return module->base;
}

void *module_state(const struct module *module) {
  BASE_CHECK_MAGIC(module, MODULE_MAGIC);
  return module->state;
}

void module_state_set(struct module *module, void *state) {
  BASE_CHECK_MAGIC(module, MODULE_MAGIC);
  module->state = state;
}

const char *module_id(const struct module *module) {
  return module->id;
}

uint64_t module_generation(const struct module *module) {
  return module->generation;
}

bool module_is_draining(const struct module *module) {
  return module->draining;
}

void module_exit_soon(struct module *module, int exit_code) {
  /* One more turn of the loop, so that the answer that was just queued is written. */
  struct timeval delay = {.tv_usec = 20000};
  module->exit_code = exit_code;
  event_base_loopexit(module->base, &delay);
}

void module_fail(struct module *module, const char *reason) {
  log_event(LOG_FATAL, "module", "the module cannot go on", LOG_TEXT("reason", reason));
  module_exit_soon(module, MODULE_EXIT_ENVIRONMENT);
}

/* ---- process ---- */

static void on_signal(evutil_socket_t signal_number, short what, void *arg) {
  struct module *module = arg;
  (void)what;
  bool again = module->leaving || module->drained; /* in a hurry, or there is nothing to wait for */
  module->leaving = true;
  if (again)
    module_exit_soon(module, MODULE_EXIT_OK);
  else
    module_drain_begin(module, module->stop_grace_ms - module->stop_grace_ms / 10,
                       signal_number == SIGTERM ? "SIGTERM" : "SIGINT");
}

static void on_alive(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  (void)module_notify(arg, "WATCHDOG=1"); /* the next one follows */
}

static void alive_start(struct module *module) {
  uint64_t period_us = 0;
  const char *text = getenv("WATCHDOG_USEC");
  if (!module->notify_socket || !text || !str_parse_u64(text, &period_us) || period_us < 2000)
    return;
  struct timeval period = {.tv_sec = (time_t)(period_us / 2 / 1000000),
                           .tv_usec = (suseconds_t)(period_us / 2 % 1000000)};
  module->alive_timer = event_new(module->base, -1, EV_PERSIST, on_alive, module);
  event_add(module->alive_timer, &period);
}

static void on_turn(evutil_socket_t fd, short what, void *arg) {
  const struct module *module = arg;
  (void)fd, (void)what;
  watchdog_loop_feed(module->loop);
}

/* The loop runs; if its watchdog is on it is watched until it ends. */
static void loop_run(struct module *module) {
  uint32_t feed_ms = watchdog_feed_ms();
  const struct timeval period = {.tv_sec = feed_ms / 1000, .tv_usec = (suseconds_t)(feed_ms % 1000) * 1000};
  if (feed_ms > 0) {
    module->turn_timer = event_new(module->base, -1, EV_PERSIST, on_turn, module);
    event_add(module->turn_timer, &period);
    module->loop = watchdog_loop_begin("the loop");
  }
  event_base_dispatch(module->base);
  watchdog_loop_end(&module->loop);
}

static bool environment_read(struct module *module, struct error *err) {
  const char *id = getenv("GATEHOUSE_MODULE_ID"), *run = getenv("GATEHOUSE_RUN");
  const char *socket_path = getenv("GATEHOUSE_RUNTIME_SOCKET"), *generation = getenv("GATEHOUSE_GENERATION");
  const char *notify = getenv("NOTIFY_SOCKET"), *hang = getenv("GATEHOUSE_HANG_MS");
  const char *grace = getenv("GATEHOUSE_STOP_GRACE_MS");
  uint64_t hang_ms = MODULE_HANG_DEFAULT_MS, grace_ms = STOP_GRACE_DEFAULT_MS;
  module->id = base_strdup(str_is_empty(id) ? module->definition->module_id : id);
  if (generation && !str_parse_u64(generation, &module->generation))
    return error_set(err, ERR_ARGUMENT_INVALID, "GATEHOUSE_GENERATION is not a number");
  if (hang && (!str_parse_u64(hang, &hang_ms) || hang_ms > UINT32_MAX))
    return error_set(err, ERR_ARGUMENT_INVALID, "GATEHOUSE_HANG_MS is not a number of milliseconds");
  if (grace && (!str_parse_u64(grace, &grace_ms) || grace_ms > UINT32_MAX))
    return error_set(err, ERR_ARGUMENT_INVALID, "GATEHOUSE_STOP_GRACE_MS is not a number of milliseconds");
  module->stop_grace_ms = (uint32_t)grace_ms;
  watchdog_start((uint32_t)hang_ms);
  module->notify_socket = str_is_empty(notify) ? NULL : base_strdup(notify);
  if (!str_is_empty(socket_path))
    module->runtime_socket = base_strdup(socket_path);
  else if (!str_is_empty(run))
    module->runtime_socket = base_asprintf("%s/modules/%s/runtime.sock", run, module->id);
  else
    return error_set(err, ERR_ARGUMENT_MISSING, "GATEHOUSE_RUN or GATEHOUSE_RUNTIME_SOCKET is needed; see --help");
  return true;
}

/* Where the core is expected; Initialize has the last word. */
static void channel_open(struct module *module) {
  const char *named = getenv("GATEHOUSE_SPI_SOCKET"), *run = getenv("GATEHOUSE_RUN");
  char *path = !str_is_empty(named) ? base_strdup(named)
                                    : base_asprintf("%s/core/spi/%s.sock", str_is_empty(run) ? "." : run, module->id);
  module_attach_open(module, path);
  base_free(path);
}

/* The folder of the runtime socket: made when the supervisor has not done so. */
static bool runtime_folder_make(struct module *module, struct error *err) {
  char *folder = base_strdup(module->runtime_socket);
  char *slash = strrchr(folder, '/');
  bool ok = true;
  if (slash && slash != folder) {
    *slash = '\0';
    ok = access(folder, F_OK) == 0 || io_make_directories(folder, 0700, err);
  }
  base_free(folder);
  return ok;
}

static bool start(struct module *module, struct error *err) {
  if (!environment_read(module, err) || !runtime_folder_make(module, err))
    return false;
  module_listeners_adopt(module);
  module->base = http_event_base_new();
  module->signal_term = evsignal_new(module->base, SIGTERM, on_signal, module);
  module->signal_int = evsignal_new(module->base, SIGINT, on_signal, module);
  evsignal_add(module->signal_term, NULL);
  evsignal_add(module->signal_int, NULL);
  alive_start(module);
  channel_open(module);
  if (module->definition->create && !module->definition->create(module, err))
    return false;
  return module_runtime_start(module, err);
}

static void finish(struct module *module) {
  module_runtime_stop(module);
  module_publish_stop(module);
  module_attach_close(module);
  if (module->definition->destroy && module->state)
    module->definition->destroy(module);
  module_listeners_close(module);
  struct event **events[] = {&module->alive_timer, &module->turn_timer, &module->drain_timer, &module->signal_term,
                             &module->signal_int};
  for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++)
    if (*events[i])
      event_free(*events[i]);
  if (module->base)
    event_base_free(module->base);
  base_free(module->id);
  base_free(module->runtime_socket);
  base_free(module->notify_socket);
}

int module_main(int argc, char **argv, const struct module_definition *definition) {
  static const struct option options[] = {{"describe", no_argument, NULL, 'd'},
                                          {"help", no_argument, NULL, 'h'},
                                          {"version", no_argument, NULL, 'v'},
                                          {NULL, 0, NULL, 0}};
  int option;
  while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
    switch (option) {
    case 'd':
      return module_descriptor_print(definition) ? MODULE_EXIT_OK : MODULE_EXIT_ENVIRONMENT;
    case 'h':
      usage(definition, stdout);
      return MODULE_EXIT_OK;
    case 'v':
      printf("gatehouse-%s %s\n", definition->module_id, definition->version);
      return MODULE_EXIT_OK;
    default:
      usage(definition, stderr);
      return MODULE_EXIT_USAGE;
    }
  }
  if (optind != argc) {
    usage(definition, stderr);
    return MODULE_EXIT_USAGE;
  }

  enum log_level level = LOG_INFO;
  const char *level_name = getenv("GATEHOUSE_LOG_LEVEL");
  if (level_name)
    log_level_parse(level_name, &level);
  log_init(definition->module_id, level);
  error_origin_default_set(ERROR_ORIGIN_MODULE);
  crash_handler_install(definition->module_id);
  secret_harden_process();
  signal(SIGPIPE, SIG_IGN);

  struct module module = {.magic = MODULE_MAGIC, .definition = definition};
  TAILQ_INIT(&module.invocations);
  struct error err = {0};
  if (start(&module, &err)) {
    log_event(LOG_INFO, "module", "started", LOG_TEXT("version", definition->version),
              LOG_INT("generation", module.generation));
    loop_run(&module);
  } else {
    log_error_value(LOG_FATAL, "module", "the module cannot start", &err);
    module.exit_code = MODULE_EXIT_ENVIRONMENT;
  }
  finish(&module);
  return module.exit_code;
}
