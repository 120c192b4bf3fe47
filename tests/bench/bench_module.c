/* bench_module.c: a module whose protocol is "measure the SPI": a real one, started by the supervisor and attached to
 * the core, that calls it as any module does. It takes one connection at a time from its listener "bench"; lines come
 * in, one line of JSON goes out for each:
 *
 *   caller TOKEN TOOL                  resolves the token and remembers the tool; {"ok": true}
 *   OUTSTANDING PACE_US MS PID WORD    a run (measure.h); WORD is "check" (CheckPermission) or "get" (Catalog.Get)
 *
 * A call counts as right when the permission was granted, or the record is that tool. */
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sdk/base/alloc.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"
#include "sdk/module/module.h"
#include "sdk/wire/wire.h"
#include "tests/bench/spi_run.h"
#include "wire/nano/core/spi/auth/v1/auth.pb.h"

struct bench {
  struct module *module;
  struct evconnlistener *listener;
  struct bufferevent *driver;
  struct measure measure;
  char reference[256], tool[128];
  const struct kind *kind;
};

/* ---- the calls ---- */

static core_common_v1_CallerContext caller_of(struct bench *bench) {
  return (core_common_v1_CallerContext){.which_caller = core_common_v1_CallerContext_reference_tag,
                                        .caller.reference = bench->reference};
}

static void check_start(struct bench *bench, rpc_unary_message_callback *callback, void *arg) {
  core_common_v1_CallerContext caller = caller_of(bench);
  const core_spi_auth_v1_CheckPermissionRequest request = {.caller = &caller, .permission = "tools.execute"};
  module_spi_call(bench->module, SPI_AUTH_CHECK_PERMISSION, &request, 0, callback, arg);
}

static bool check_is_right(const struct bench *bench, const void *reply) {
  (void)bench;
  return ((const core_spi_auth_v1_CheckPermissionResponse *)reply)->allowed;
}

static void get_start(struct bench *bench, rpc_unary_message_callback *callback, void *arg) {
  core_common_v1_CallerContext caller = caller_of(bench);
  core_common_v1_RecordReference target = {.kind = core_common_v1_EntityKind_ENTITY_KIND_TOOL, .name = bench->tool};
  const core_spi_catalog_v1_GetRequest request = {.caller = &caller, .target = &target};
  module_spi_call(bench->module, SPI_CATALOG_GET, &request, 0, callback, arg);
}

static bool get_is_right(const struct bench *bench, const void *reply) {
  const core_spi_catalog_v1_Record *record = ((const core_spi_catalog_v1_GetResponse *)reply)->record;
  return record && record->reference && str_equal(record->reference->name, bench->tool) && record->definition_json;
}

static const struct kind {
  const char *word;
  void (*start)(struct bench *bench, rpc_unary_message_callback *callback, void *arg);
  bool (*is_right)(const struct bench *bench, const void *reply);
} kinds[] = {{"check", check_start, check_is_right}, {"get", get_start, get_is_right}};

struct pending {
  struct bench *bench;
  struct spi_run_call *call;
};

static void call_done(void *arg, const struct rpc_status *status, void *reply) {
  struct pending pending = *(struct pending *)arg;
  base_free(arg);
  if (status->code != RPC_OK)
    log_error_value(LOG_ERROR, "bench", "a call failed", &status->error);
  spi_run_call_ended(pending.call, status->code == RPC_OK && pending.bench->kind->is_right(pending.bench, reply));
}

static void call_start(struct spi_run_call *call, void *arg) {
  struct bench *bench = arg;
  struct pending *pending = BASE_NEW(struct pending);
  *pending = (struct pending){.bench = bench, .call = call};
  bench->kind->start(bench, call_done, pending);
}

/* ---- the driver's lines ---- */

static void answer(struct bench *bench, const char *line) {
  if (bench->driver)
    evbuffer_add_printf(bufferevent_get_output(bench->driver), "%s\n", line);
}

static void run_done(struct measure *measure, void *arg) {
  char line[512];
  measure_end(measure, line, sizeof(line));
  answer(arg, line);
}

static void caller_done(void *arg, const struct rpc_status *status, void *reply) {
  struct bench *bench = arg;
  const core_spi_auth_v1_ResolveCallerResponse *response = reply;
  bool ok = status->code == RPC_OK && response->context &&
            str_copy(bench->reference, sizeof(bench->reference), wire_text(response->context->reference));
  answer(bench, ok ? "{\"ok\": true}" : "{\"ok\": false}");
}

static void caller_resolve(struct bench *bench, const char *token) {
  char *bearer = base_asprintf("Bearer %s", token);
  core_common_v1_Header header = {.name = "authorization", .value = bearer};
  const core_spi_auth_v1_ResolveCallerRequest request = {.transport = "http/1.1",
                                                         .headers = &header,
                                                         .headers_count = 1,
                                                         .client_address = "127.0.0.1",
                                                         .protocol_family = "bench"};
  module_spi_call(bench->module, SPI_AUTH_RESOLVE_CALLER, &request, 0, caller_done, bench);
  base_free(bearer);
}

static bool run_begin(struct bench *bench, const char *line) {
  struct measure_command command;
  if (!measure_command_parse(line, &command))
    return false;
  for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
    if (str_equal(command.word, kinds[i].word)) {
      bench->kind = &kinds[i];
      measure_begin(&bench->measure, &command);
      spi_run_begin(module_event_base(bench->module), &bench->measure, call_start, run_done, bench);
      return true;
    }
  }
  return false;
}

static void on_line(struct bufferevent *driver, void *arg) {
  struct bench *bench = arg;
  char *line = evbuffer_readln(bufferevent_get_input(driver), NULL, EVBUFFER_EOL_LF);
  char token[256];
  if (line == NULL)
    return;
  if (sscanf(line, "caller %255s %127s", token, bench->tool) == 2)
    caller_resolve(bench, token);
  else if (!run_begin(bench, line))
    answer(bench, "{\"ok\": false}");
  free(line); /* libevent's own */
}

static void on_driver_event(struct bufferevent *driver, short what, void *arg) {
  struct bench *bench = arg;
  (void)what;
  bufferevent_free(driver);
  bench->driver = NULL;
}

static void on_driver(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int length,
                      void *arg) {
  struct bench *bench = arg;
  (void)listener, (void)address, (void)length;
  if (bench->driver)
    bufferevent_free(bench->driver);
  bench->driver = bufferevent_socket_new(module_event_base(bench->module), fd, BEV_OPT_CLOSE_ON_FREE);
  bufferevent_setcb(bench->driver, on_line, NULL, on_driver_event, bench);
  bufferevent_enable(bench->driver, EV_READ | EV_WRITE);
}

/* ---- the module ---- */

static bool create(struct module *module, struct error *err) {
  (void)err;
  struct bench *bench = BASE_NEW(struct bench);
  *bench = (struct bench){.module = module};
  module_state_set(module, bench);
  return true;
}

static void attached(struct module *module, bool is_attached) {
  struct bench *bench = module_state(module);
  if (!is_attached || bench->listener)
    return;
  int fd = module_listener_take(module, "bench");
  if (fd >= 0)
    bench->listener = evconnlistener_new(module_event_base(module), on_driver, bench,
                                         LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
  module_warm_set(module, bench->listener != NULL, "no listener named bench");
}

static void destroy(struct module *module) {
  struct bench *bench = module_state(module);
  if (bench->listener)
    evconnlistener_free(bench->listener);
  if (bench->driver)
    bufferevent_free(bench->driver);
  measure_free(&bench->measure);
  base_free(bench);
}

int main(int argc, char **argv) {
  static const char *const families[] = {"auth", "catalog", "config", "observability", NULL};
  static const struct module_definition definition = {.module_id = "bench",
                                                      .protocol_family = "bench",
                                                      .version = GATEHOUSE_VERSION,
                                                      .summary = "measures calls to the core",
                                                      .spi_families = families,
                                                      .create = create,
                                                      .attached = attached,
                                                      .destroy = destroy};
  return module_main(argc, argv, &definition);
}
