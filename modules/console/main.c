/* main.c: gatehouse-console, protocol family "console": what the module is, and its phases. The pages are console.c's.
 * It needs two SPI families: auth, to prove its deny path like every module, and observability. */
#include <string.h>

#include "modules/console/console.h"
#include "sdk/module/module.h"

#define LISTENER_USUAL "metrics" /* also without a supervisor that tells the names */

static bool create(struct module *module, struct error *err) {
  (void)err;
  module_state_set(module, console_create(module));
  return true;
}

static void listeners_take(struct module *module, const char *name) {
  for (int fd; (fd = module_listener_take(module, name)) >= 0;)
    console_listener_add(module_state(module), fd);
}

static bool initialize(struct module *module, const core_module_v1_InitializeRequest *request, struct error *err) {
  const char *json = request->config_json ? request->config_json : "{}";
  struct console_config config;
  if (!console_config_read(json, strlen(json), &config, err))
    return false;
  for (pb_size_t i = 0; i < request->listeners_count; i++)
    listeners_take(module, request->listeners[i].name ? request->listeners[i].name : "");
  listeners_take(module, LISTENER_USUAL);
  return console_configure(module_state(module), &config, err);
}

static void attached(struct module *module, bool attached) {
  if (!attached || module_is_draining(module))
    return;
  bool listening = console_serve(module_state(module)) > 0;
  module_listening_set(module, listening, listening ? NULL : "no listener was passed in");
  module_warm_set(module, true, NULL);
}

static void drain(struct module *module, uint32_t deadline_ms) {
  console_drain(module_state(module), deadline_ms);
}

static uint32_t in_flight(struct module *module) {
  return (uint32_t)console_in_flight(module_state(module));
}

static void destroy(struct module *module) {
  struct console *console = module_state(module);
  console_free(&console);
}

int main(int argc, char **argv) {
  static const struct module_capability capabilities[] = {{"metrics", true}, {"health", true}};
  static const char *const families[] = {"auth", "observability", NULL};
  static const struct module_definition definition = {
      .module_id = "console",
      .protocol_family = "console",
      .version = GATEHOUSE_VERSION,
      .summary = "Prometheus metrics and health over HTTP, for operators on this machine.",
      .capabilities = capabilities,
      .capability_count = sizeof(capabilities) / sizeof(capabilities[0]),
      .spi_families = families,
      .config_schema_json = console_config_schema,
      .create = create,
      .initialize = initialize,
      .attached = attached,
      .drain = drain,
      .in_flight = in_flight,
      .destroy = destroy,
  };
  return module_main(argc, argv, &definition);
}
