/* limits.c: what the operator allows public requests (`limits` in gatehouse.yaml) and the SPI channel (`spi`), as the
 * supervisor hands it over in the environment. Values that are no numbers above zero are passed over: the defaults of
 * the HTTP server and of the channel hold. */
#include <stdlib.h>

#include "sdk/base/str.h"
#include "sdk/http/http_server.h"
#include "sdk/module/module_internal.h"

static uint64_t limit_get(const char *name, uint64_t standard) {
  const char *text = getenv(name);
  uint64_t value;
  return text && str_parse_u64(text, &value) && value > 0 && value <= INT64_MAX ? value : standard;
}

void module_http_limits(struct http_server_options *options) {
  struct http_server_limits *limits = &options->limits;
  limits->header_bytes_max = limit_get("GATEHOUSE_LIMIT_HEADER_BYTES", limits->header_bytes_max);
  limits->body_bytes_max = limit_get("GATEHOUSE_LIMIT_BODY_BYTES", limits->body_bytes_max);
  limits->connections_max = limit_get("GATEHOUSE_LIMIT_CONNECTIONS", limits->connections_max);
  uint64_t timeout_ms = limit_get("GATEHOUSE_LIMIT_REQUEST_TIMEOUT_MS", 0);
  if (timeout_ms > 0)
    limits->header_timeout_ms = limits->body_timeout_ms = (int64_t)timeout_ms;
}

void module_spi_limits(struct rpc_channel_options *options) {
  options->backoff_first_ms = (uint32_t)limit_get("GATEHOUSE_SPI_BACKOFF_MIN_MS", 0);
  options->backoff_max_ms = (uint32_t)limit_get("GATEHOUSE_SPI_BACKOFF_MAX_MS", 0);
  options->message_bytes_max = limit_get("GATEHOUSE_SPI_MESSAGE_BYTES", 0);
}
