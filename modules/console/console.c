/* console.c: the server: which sockets it holds and serves, its two pages. */
#include "modules/console/console.h"

#include <string.h>
#include <unistd.h>

#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"
#include "sdk/http/http_server.h"
#include "sdk/module/module.h"
#include "wire/nano/core/spi/observability/v1/observability.pb.h"

#define CONSOLE_MAGIC 0x434f4e53u
#define LISTENERS_MAX 8
#define METRICS_DEADLINE_MS 5000
#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"
#define BODY_BYTES_MAX 1024

struct console {
  uint32_t magic;
  struct module *module;
  struct http_server *server;
  struct console_config config;
  int held[LISTENERS_MAX];   /* not served yet; console_serve gives them to the server */
  int served[LISTENERS_MAX]; /* the server's own: only looked at */
  size_t held_count, served_count;
};

/* One GET /metrics that waits for the core. Lives in the request's arena. */
struct scrape {
  struct http_request *request;
  struct rpc_call *call;
};

/* ---- pages ---- */

static void scrape_answered(void *arg, const struct rpc_status *status, void *reply) {
  struct scrape *scrape = arg;
  struct http_request *request = scrape->request;
  const core_spi_observability_v1_GetMetricsResponse *metrics = reply;
  scrape->call = NULL;
  http_request_on_close(request, NULL, NULL);
  if (status->code != RPC_OK) {
    http_response_send_error(request, &status->error);
    return;
  }
  const char *text = metrics->text ? metrics->text : "";
  http_response_send(request, 200, METRICS_TYPE, text, strlen(text));
}

static void scrape_closed(void *context, struct http_request *request, enum http_close_reason reason) {
  struct scrape *scrape = http_request_data(request);
  (void)context, (void)reason;
  rpc_call_cancel(BASE_TAKE(scrape->call));
  http_request_abort(request);
}

static void page_metrics(struct console *console, struct http_request *request) {
  struct error err = {0};
  if (!module_is_attached(console->module)) {
    error_set(&err, ERR_UNAVAILABLE, "The core cannot be reached; retry.");
    http_response_send_error(request, &err);
    return;
  }
  const core_spi_observability_v1_GetMetricsRequest ask = {0};
  struct scrape *scrape = arena_alloc(http_request_arena(request), sizeof(*scrape));
  scrape->request = request;
  http_request_data_set(request, scrape);
  scrape->call = module_spi_call(console->module, SPI_OBSERVABILITY_GET_METRICS, &ask, METRICS_DEADLINE_MS,
                                 scrape_answered, scrape);
  http_request_on_close(request, scrape_closed, console);
}

/* Healthy: the console serves and the core answers it. */
static void page_health(struct console *console, struct http_request *request) {
  bool attached = module_is_attached(console->module) && !module_is_draining(console->module);
  const char *body = attached ? "{\"status\":\"ok\"}\n" : "{\"status\":\"unavailable\"}\n";
  http_response_send(request, attached ? 200 : 503, "application/json", body, strlen(body));
}

static const struct {
  const char *path;
  void (*page)(struct console *console, struct http_request *request);
} pages[] = {{"/metrics", page_metrics}, {"/healthz", page_health}};

static void on_request(void *context, struct http_request *request) {
  struct console *console = context;
  const char *method = http_request_method(request);
  struct error err = {0};
  http_response_header_add(request, "Cache-Control", "no-store");
  http_response_header_add(request, "X-Content-Type-Options", "nosniff");
  if (!console->config.allow_non_loopback && !console_host_is_local(http_request_host(request))) {
    error_set(&err, ERR_AUTH_PERMISSION_DENIED, "This host name is not served here.");
    http_response_send_error(request, &err);
    return;
  }
  for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
    if (!str_equal(http_request_path(request), pages[i].path))
      continue;
    if (str_equal(method, "GET") || str_equal(method, "HEAD")) {
      pages[i].page(console, request);
      return;
    }
    static const char refusal[] = "{\"title\":\"Only GET and HEAD are served here.\",\"status\":405,"
                                  "\"code\":\"http.method.unsupported\"}\n";
    http_response_header_add(request, "Allow", "GET, HEAD");
    http_response_send(request, 405, "application/problem+json", refusal, sizeof(refusal) - 1);
    return;
  }
  error_set(&err, ERR_NOT_FOUND, "No such page; there are /metrics and /healthz.");
  http_response_send_error(request, &err);
}

/* ---- life ---- */

struct console *console_create(struct module *module) {
  struct http_server_options options;
  struct console *console = BASE_NEW(struct console);
  console->magic = CONSOLE_MAGIC;
  console->module = module;
  http_server_options_init(&options);
  module_http_limits(&options);
  options.limits.body_bytes_max = BODY_BYTES_MAX;
  options.on_request = on_request;
  options.context = console;
  console->server = http_server_create(module_event_base(module), &options);
  return console;
}

void console_free(struct console **holder) {
  struct console *console = BASE_TAKE(*holder);
  if (!console)
    return;
  http_server_free(&console->server);
  for (size_t i = 0; i < console->held_count; i++)
    close(console->held[i]);
  base_free(console);
}

void console_listener_add(struct console *console, int fd) {
  BASE_CHECK_MAGIC(console, CONSOLE_MAGIC);
  if (console->held_count + console->served_count < LISTENERS_MAX) {
    console->held[console->held_count++] = fd;
  } else {
    log_event(LOG_WARN, "console", "too many listeners; one is not served", LOG_INT("most", LISTENERS_MAX));
    close(fd);
  }
}

bool console_configure(struct console *console, const struct console_config *config, struct error *err) {
  BASE_CHECK_MAGIC(console, CONSOLE_MAGIC);
  for (size_t i = 0; i < console->held_count; i++)
    if (!console_listener_check(console->held[i], config, err))
      return false;
  for (size_t i = 0; i < console->served_count; i++)
    if (!console_listener_check(console->served[i], config, err))
      return false;
  console->config = *config;
  return true;
}

size_t console_serve(struct console *console) {
  BASE_CHECK_MAGIC(console, CONSOLE_MAGIC);
  struct error err = {0};
  while (console->held_count > 0) {
    int fd = console->held[--console->held_count];
    if (http_server_listen_fd(console->server, fd, NULL, &err)) {
      console->served[console->served_count++] = fd;
    } else {
      log_error_value(LOG_ERROR, "console", "a listener cannot be served", &err);
      close(fd);
    }
  }
  return console->served_count;
}

size_t console_in_flight(const struct console *console) {
  BASE_CHECK_MAGIC(console, CONSOLE_MAGIC);
  return http_server_in_flight(console->server);
}

static void drained(void *context) {
  struct console *console = context;
  module_drained(console->module);
}

void console_drain(struct console *console, int64_t deadline_ms) {
  BASE_CHECK_MAGIC(console, CONSOLE_MAGIC);
  console->served_count = 0; /* the server closes them now */
  http_server_drain(console->server, deadline_ms, drained, console);
}
