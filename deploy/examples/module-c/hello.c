/* hello.c: a complete module, and the example of docs/writing-a-module.md. It serves GET /hello on its listener
 * "hello", asks the core who is calling, and greets that user; whom the core refuses, it refuses. The whole of a
 * module's duty is in it: untrusted bytes end here, every decision is the core's, and without a core nothing is served.
 */
#include <string.h>

#include "sdk/base/alloc.h"
#include "sdk/base/str.h"
#include "sdk/http/http_server.h"
#include "sdk/module/module.h"
#include "wire/nano/core/spi/auth/v1/auth.pb.h"

#define RESOLVE_DEADLINE_MS 2000

/* One request that waits for the core. Lives in the request's arena. */
struct greeting {
  struct http_request *request;
  struct rpc_call *call;
};

/* The core's word: a context, or an error that is safe to show. */
static void resolved(void *arg, const struct rpc_status *status, void *reply) {
  struct greeting *greeting = arg;
  const core_spi_auth_v1_ResolveCallerResponse *response = reply;
  http_request_on_close(greeting->request, NULL, NULL);
  if (status->code != RPC_OK) {
    http_response_send_error(greeting->request, &status->error);
    return;
  }
  const core_common_v1_Subject *subject = response->context ? response->context->subject : NULL;
  const char *user = subject && !str_is_empty(subject->user_email) ? subject->user_email : "stranger";
  const char *body = arena_printf(http_request_arena(greeting->request), "Hello, %s!\n", user);
  http_response_send(greeting->request, 200, "text/plain; charset=utf-8", body, strlen(body));
}

/* The client is gone: so is the question. */
static void closed(void *context, struct http_request *request, enum http_close_reason reason) {
  struct greeting *greeting = http_request_data(request);
  (void)context, (void)reason;
  rpc_call_cancel(greeting->call);
  http_request_abort(request);
}

static void on_request(void *context, struct http_request *request) {
  struct module *module = context;
  struct error err = {0};
  const char *credential = http_request_header(request, "authorization");
  if (!str_equal(http_request_path(request), "/hello") || !str_equal(http_request_method(request), "GET")) {
    error_set(&err, ERR_NOT_FOUND, "There is only GET /hello.");
    http_response_send_error(request, &err);
    return;
  }
  if (!module_is_attached(module)) { /* a new core does not know this module yet: nobody can be asked */
    error_set(&err, ERR_UNAVAILABLE, NULL);
    http_response_send_error(request, &err);
    return;
  }
  core_common_v1_Header header = {.name = (char *)(uintptr_t) "authorization", .value = (char *)(uintptr_t)credential};
  const core_spi_auth_v1_ResolveCallerRequest question = {
      .transport = (char *)(uintptr_t) "http",
      .headers_count = credential ? 1 : 0,
      .headers = &header,
      .client_address = (char *)(uintptr_t)http_request_client_address(request),
      .protocol_family = (char *)(uintptr_t) "hello",
  };
  struct greeting *greeting = arena_alloc(http_request_arena(request), sizeof(*greeting));
  greeting->request = request;
  http_request_data_set(request, greeting);
  greeting->call = module_spi_call(module, SPI_AUTH_RESOLVE_CALLER, &question, RESOLVE_DEADLINE_MS, resolved, greeting);
  http_request_on_close(request, closed, NULL);
}

static bool create(struct module *module, struct error *err) {
  struct http_server_options options;
  (void)err;
  http_server_options_init(&options);
  options.on_request = on_request;
  options.context = module;
  module_state_set(module, http_server_create(module_event_base(module), &options));
  return true;
}

/* The deny path is proven and the core answers: only now the door opens; not that of a process that is about to go. */
static void attached(struct module *module, bool attached) {
  struct error err = {0};
  int fd = attached && !module_is_draining(module) ? module_listener_take(module, "hello") : -1;
  if (fd >= 0)
    module_listening_set(module, http_server_listen_fd(module_state(module), fd, NULL, &err), err.message);
  if (attached)
    module_warm_set(module, true, NULL);
}

static void all_gone(void *context) {
  module_drained(context);
}

static void drain(struct module *module, uint32_t deadline_ms) {
  http_server_drain(module_state(module), deadline_ms, all_gone, module);
}

static uint32_t in_flight(struct module *module) {
  return (uint32_t)http_server_in_flight(module_state(module));
}

static void destroy(struct module *module) {
  struct http_server *server = module_state(module);
  http_server_free(&server);
}

int main(int argc, char **argv) {
  static const struct module_capability capabilities[] = {{"greeting", true}};
  static const char *const families[] = {"auth", NULL};
  static const struct module_definition definition = {
      .module_id = "hello",
      .protocol_family = "hello",
      .version = "1.0.0",
      .summary = "Greets callers that the core knows.",
      .capabilities = capabilities,
      .capability_count = sizeof(capabilities) / sizeof(capabilities[0]),
      .spi_families = families,
      .create = create,
      .attached = attached,
      .drain = drain,
      .in_flight = in_flight,
      .destroy = destroy,
  };
  return module_main(argc, argv, &definition);
}
