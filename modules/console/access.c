/* access.c: who may be served: the module's configuration, the address of a listener, the Host of a request. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "modules/console/console.h"
#include "sdk/base/json.h"
#include "sdk/base/str.h"

const char console_config_schema[] =
    "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{\"allowNonLoopback\":{\"type\":\"boolean\","
    "\"description\":\"Serve addresses that other machines can reach. Nothing asks for a credential there.\"}}}";

static bool token_is(const char *token, size_t length, const char *text) {
  return length == strlen(text) && memcmp(token, text, length) == 0;
}

bool console_config_read(const char *json, size_t length, struct console_config *config, struct error *err) {
  struct json_cursor cursor;
  struct console_config read = {0};
  const char *key, *value;
  size_t key_length, value_length;
  if (!json_check(json, length, JSON_DEPTH_MAX, NULL) || !json_walk(json, length, '{', &cursor))
    return error_set(err, ERR_MODULE_CONFIG, "the configuration must be a JSON object");
  while (json_next(&cursor, &key, &key_length, &value, &value_length)) {
    if (!token_is(key, key_length, "\"allowNonLoopback\""))
      return error_set(err, ERR_MODULE_CONFIG, "unknown key %.*s", (int)(key_length < 64 ? key_length : 64), key);
    read.allow_non_loopback = token_is(value, value_length, "true");
    if (!read.allow_non_loopback && !token_is(value, value_length, "false"))
      return error_set(err, ERR_MODULE_CONFIG, "allowNonLoopback must be true or false");
  }
  *config = read;
  return true;
}

static bool address_is_loopback(int family, const void *address) {
  if (family == AF_INET)
    return (ntohl(((const struct in_addr *)address)->s_addr) >> 24) == IN_LOOPBACKNET;
  return family == AF_INET6 && IN6_IS_ADDR_LOOPBACK((const struct in6_addr *)address);
}

/* A port, or nothing. */
static bool is_port_part(const char *text) {
  return *text == '\0' || (*text == ':' && text[1] != '\0' && strspn(text + 1, "0123456789") == strlen(text + 1));
}

bool console_host_is_local(const char *host) {
  char name[64];
  unsigned char address[sizeof(struct in6_addr)];
  if (!host)
    return false;
  bool bracketed = host[0] == '[';
  const char *end = bracketed ? strchr(host, ']') : host + strcspn(host, ":");
  size_t length = end ? (size_t)(end - host) - bracketed : sizeof(name);
  if (length >= sizeof(name) || !is_port_part(end + bracketed))
    return false;
  memcpy(name, host + bracketed, length);
  name[length] = '\0';
  if (!bracketed && strcasecmp(name, "localhost") == 0)
    return true;
  int family = bracketed ? AF_INET6 : AF_INET;
  return inet_pton(family, name, address) == 1 && address_is_loopback(family, address);
}

bool console_listener_check(int fd, const struct console_config *config, struct error *err) {
  union {
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct sockaddr_storage storage;
  } bound = {0};
  socklen_t length = sizeof(bound);
  if (getsockname(fd, &bound.any, &length) != 0)
    return error_set(err, ERR_MODULE_CONFIG, "the listener is no socket");
  if (config->allow_non_loopback || bound.any.sa_family == AF_UNIX)
    return true;
  const void *address = bound.any.sa_family == AF_INET ? (const void *)&bound.in.sin_addr : &bound.in6.sin6_addr;
  if (!address_is_loopback(bound.any.sa_family, address))
    return error_set(err, ERR_MODULE_CONFIG,
                     "the listener is not on loopback, and nothing asks for a credential there (allowNonLoopback)");
  return true;
}
