/* config.c: the module's configuration, checked as a whole: an unknown key or a wrong type refuses it and changes
 * nothing (SPI-15). */
#include <jansson.h>
#include <string.h>

#include "modules/mcp/mcp_internal.h"
#include "sdk/base/alloc.h"

#define BODY_BYTES_MAX (64u << 20)
#define CALL_TIMEOUT_DEFAULT_MS 60000
#define IN_FLIGHT_DEFAULT 1000
#define CORE_WAIT_DEFAULT_MS 250

const char mcp_config_schema_json[] =
    "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{"
    "\"allowedHosts\":{\"type\":\"array\",\"items\":{\"type\":\"string\"},\"description\":\"Host values served beside "
    "loopback ones, such as gateway.example.com; * for any.\"},"
    "\"allowedOrigins\":{\"type\":\"array\",\"items\":{\"type\":\"string\"},\"description\":\"Origin values allowed "
    "beside loopback ones, such as https://app.example.com; * for any.\"},"
    "\"bodyBytesMax\":{\"type\":\"integer\",\"minimum\":1024,\"maximum\":67108864},"
    "\"callTimeoutMs\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":3600000},"
    "\"sessionIdleTimeoutMs\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":2592000000},"
    "\"coreWaitMs\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":10000},"
    "\"inFlightMax\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":100000},"
    "\"pageSize\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":1000},"
    "\"listener\":{\"type\":\"string\",\"description\":\"Name of the listener to serve on; default: mcp.\"},"
    "\"instructions\":{\"type\":\"string\",\"description\":\"Told to clients that connect.\"}}}";

static bool refuse(struct error *err, const char *key) {
  return error_set(err, ERR_MODULE_CONFIG, "the value of %.40s is not allowed", key);
}

static bool list_read(const json_t *value, const char *key, char ***out, struct error *err) {
  size_t count = json_array_size(value);
  if (!json_is_array(value))
    return refuse(err, key);
  for (size_t i = 0; i < count; i++)
    if (!json_is_string(json_array_get(value, i)) || json_string_length(json_array_get(value, i)) == 0)
      return refuse(err, key);
  *out = base_calloc(count + 1, sizeof(char *));
  for (size_t i = 0; i < count; i++)
    (*out)[i] = base_strdup(json_string_value(json_array_get(value, i)));
  return true;
}

static bool number_read(const json_t *value, const char *key, json_int_t low, json_int_t high, json_int_t *out,
                        struct error *err) {
  if (!json_is_integer(value) || json_integer_value(value) < low || json_integer_value(value) > high)
    return refuse(err, key);
  *out = json_integer_value(value);
  return true;
}

static bool key_read(struct mcp_config *config, const char *key, const json_t *value, struct error *err) {
  const struct {
    const char *key;
    json_int_t low, high;
    uint32_t *slot;
  } numbers[] = {
      {"callTimeoutMs", 1, 3600000, &config->call_timeout_ms},
      {"sessionIdleTimeoutMs", 0, 2592000000, &config->session_idle_timeout_ms},
      {"coreWaitMs", 0, 10000, &config->core_wait_ms},
      {"inFlightMax", 1, 100000, &config->in_flight_max},
      {"pageSize", 0, 1000, &config->page_size},
  };
  json_int_t number;
  for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
    if (strcmp(key, numbers[i].key) != 0)
      continue;
    if (!number_read(value, key, numbers[i].low, numbers[i].high, &number, err))
      return false;
    *numbers[i].slot = (uint32_t)number;
    return true;
  }
  if (strcmp(key, "bodyBytesMax") == 0) {
    if (!number_read(value, key, 1024, BODY_BYTES_MAX, &number, err))
      return false;
    config->body_bytes_max = (size_t)number;
    return true;
  }
  if (strcmp(key, "allowedHosts") == 0)
    return list_read(value, key, &config->allowed_hosts, err);
  if (strcmp(key, "allowedOrigins") == 0)
    return list_read(value, key, &config->allowed_origins, err);
  const struct {
    const char *key;
    char **slot;
  } texts[] = {{"instructions", &config->instructions}, {"listener", &config->listener}};
  for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
    if (strcmp(key, texts[i].key) != 0)
      continue;
    if (!json_is_string(value) || json_string_length(value) == 0)
      return refuse(err, key);
    *texts[i].slot = base_strdup(json_string_value(value));
    return true;
  }
  return error_set(err, ERR_MODULE_CONFIG, "there is no key %.40s", key);
}

bool mcp_config_read(const char *json, struct mcp_config *config, struct error *err) {
  const char *key;
  json_t *value;
  *config = (struct mcp_config){.call_timeout_ms = CALL_TIMEOUT_DEFAULT_MS,
                                .in_flight_max = IN_FLIGHT_DEFAULT,
                                .core_wait_ms = CORE_WAIT_DEFAULT_MS};
  if (!json || !*json)
    return true;
  json_t *root = json_loads(json, JSON_REJECT_DUPLICATES, NULL);
  bool ok = json_is_object(root) || error_set(err, ERR_MODULE_CONFIG, "the configuration is not a JSON object");
  if (ok)
    json_object_foreach(root, key, value) if (ok) ok = key_read(config, key, value, err);
  json_decref(root);
  if (!ok)
    mcp_config_clear(config);
  return ok;
}

static void list_free(char **list) {
  for (char **item = list; item && *item; item++)
    base_free(*item);
  base_free(list);
}

void mcp_config_clear(struct mcp_config *config) {
  list_free(config->allowed_hosts);
  list_free(config->allowed_origins);
  base_free(config->instructions);
  base_free(config->listener);
  *config = (struct mcp_config){0};
}
