/* console.h: what an operator's monitoring asks over HTTP: GET /metrics (the core's Prometheus text, SPI-16) and GET
 * /healthz. No credential is asked for, therefore the console serves local callers only: a listener must be bound to a
 * loopback address or a Unix socket, and the Host of a request must name this machine (a web page of elsewhere that
 * points its own name here is refused). An operator who has another protection in front may allow other addresses.
 * One thread: the module's loop. */
#ifndef GATEHOUSE_MODULES_CONSOLE_H
#define GATEHOUSE_MODULES_CONSOLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sdk/base/error.h"

struct console;
struct module;

/* The module's configuration. */
struct console_config {
  bool allow_non_loopback; /* allowNonLoopback, default false */
};

/* JSON Schema of it, as the descriptor declares it. */
extern const char console_config_schema[];

/* Reads it, strictly. Error: ERR_MODULE_CONFIG; *config is then untouched. */
bool console_config_read(const char *json, size_t length, struct console_config *config, struct error *err);

/* True for "localhost", 127.0.0.0/8 and [::1], each with or without a port. NULL: false. */
bool console_host_is_local(const char *host);

/* May this listening socket be served? Error: ERR_MODULE_CONFIG, for an address that others can reach. */
bool console_listener_check(int fd, const struct console_config *config, struct error *err);

/* The server; never NULL. It is freed by console_free (NULL-safe, nulls the pointer). */
struct console *console_create(struct module *module);
void console_free(struct console **console);

/* Holds a listening socket until console_serve; owns it from here on. */
void console_listener_add(struct console *console, int fd);
/* Takes a configuration over when every socket held or served may be served under it; else nothing changes. */
bool console_configure(struct console *console, const struct console_config *config, struct error *err);
/* Starts serving every held socket; how many sockets are served now. */
size_t console_serve(struct console *console);
/* Requests in flight. */
size_t console_in_flight(const struct console *console);
/* Stops accepting and tells the module when nothing is left. */
void console_drain(struct console *console, int64_t deadline_ms);

#endif
