/* scope.c: what narrows a credential besides teams (SPI-20): server, permissions, client addresses, hours and days. A
 * scope that cannot be read completely is refused as a whole, because what was not understood might have narrowed it.
 */
#include <arpa/inet.h>
#include <string.h>

#include "core/policy/policy_internal.h"

#define ADDRESS_MAX_BYTES 64
#define SECOND_US INT64_C(1000000)
#define HOUR_US (3600 * SECOND_US)
#define DAY_US (24 * HOUR_US)
#define BUSINESS_START_US (9 * HOUR_US)
#define BUSINESS_END_US (17 * HOUR_US)

/* ---- Addresses ---- */

struct address {
  int family;
  unsigned bits; /* 32 or 128 */
  uint8_t bytes[16];
};

static bool address_parse(const char *text, struct address *address) {
  static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
  memset(address, 0, sizeof(*address));
  if (inet_pton(AF_INET, text, address->bytes) == 1) {
    address->family = AF_INET;
    address->bits = 32;
    return true;
  }
  if (inet_pton(AF_INET6, text, address->bytes) != 1)
    return false;
  address->family = AF_INET6;
  address->bits = 128;
  if (memcmp(address->bytes, mapped, sizeof(mapped)) == 0) { /* an IPv4 client on a dual-stack listener */
    memmove(address->bytes, address->bytes + 12, 4);
    memset(address->bytes + 4, 0, 12);
    address->family = AF_INET;
    address->bits = 32;
  }
  return true;
}

static bool cidr_parse(const char *cidr, struct address *network, unsigned *prefix) {
  char text[ADDRESS_MAX_BYTES];
  if (cidr == NULL || !str_copy(text, sizeof(text), cidr))
    return false;
  char *slash = strchr(text, '/');
  if (slash != NULL)
    *slash = '\0';
  if (!address_parse(text, network))
    return false;
  *prefix = network->bits;
  if (slash == NULL)
    return true;
  bool mapped = network->family == AF_INET && strchr(text, ':') != NULL;
  const char *digits = slash + 1;
  uint64_t number;
  if (strlen(digits) > 3 || (digits[0] == '0' && digits[1] != '\0') || !str_parse_u64(digits, &number))
    return false;
  if (mapped) { /* ::ffff:a.b.c.d/96+n is a.b.c.d/n */
    if (number < 96)
      return false;
    number -= 96;
  }
  if (number > network->bits)
    return false;
  *prefix = (unsigned)number;
  return true;
}

bool scope_cidr_valid(const char *cidr) {
  struct address network;
  unsigned prefix;
  return cidr_parse(cidr, &network, &prefix);
}

bool scope_cidr_contains(const char *cidr, const char *text) {
  struct address network, address;
  unsigned prefix;
  if (!cidr_parse(cidr, &network, &prefix) || text == NULL || !address_parse(text, &address) ||
      address.family != network.family)
    return false;
  if (memcmp(network.bytes, address.bytes, prefix / 8) != 0)
    return false;
  unsigned rest = prefix % 8;
  return rest == 0 || ((network.bytes[prefix / 8] ^ address.bytes[prefix / 8]) >> (8 - rest)) == 0;
}

bool scope_address_allowed(const struct policy_scope *scope, const char *address) {
  if (scope->ip_restriction_count == 0)
    return true;
  for (size_t i = 0; i < scope->ip_restriction_count; i++)
    if (scope_cidr_contains(scope->ip_restrictions[i], address))
      return true;
  return false;
}

/* ---- Hours and days (UTC, proleptic: day 0 was a Thursday) ---- */

static int64_t day_of(int64_t wall_us) {
  return wall_us >= 0 ? wall_us / DAY_US : -((-wall_us + DAY_US - 1) / DAY_US);
}

static int weekday_of(int64_t day) { /* 0: Monday */
  return (int)(((day + 3) % 7 + 7) % 7);
}

bool scope_time_allowed(const struct policy_scope *scope, int64_t wall_us) {
  int64_t day = day_of(wall_us);
  int64_t time_us = wall_us - day * DAY_US;
  if (scope->business_hours_only && (time_us < BUSINESS_START_US || time_us >= BUSINESS_END_US))
    return false;
  return !scope->weekdays_only || weekday_of(day) < 5;
}

int64_t scope_window_end_us(const struct policy_scope *scope, int64_t wall_us) {
  int64_t day = day_of(wall_us);
  if (scope->business_hours_only)
    return day * DAY_US + BUSINESS_END_US;
  if (scope->weekdays_only)
    return (day + 5 - weekday_of(day)) * DAY_US;
  return INT64_MAX;
}

/* ---- The struct ---- */

void scope_copy(struct arena *arena, struct policy_scope *target, const struct policy_scope *source) {
  *target = (struct policy_scope){
      .server_id = arena_strdup(arena, source->server_id == NULL ? "" : source->server_id),
      .permissions = policy_names_copy(arena, source->permissions, source->permission_count),
      .permission_count = source->permission_count,
      .ip_restrictions = policy_names_copy(arena, source->ip_restrictions, source->ip_restriction_count),
      .ip_restriction_count = source->ip_restriction_count,
      .business_hours_only = source->business_hours_only,
      .weekdays_only = source->weekdays_only,
  };
}

bool scope_validate(const struct policy_scope *scope, struct error *err) {
  if (!str_is_empty(scope->server_id) && !policy_name_valid(scope->server_id))
    return error_set(err, ERR_ARGUMENT_INVALID, "The scope's server is not a valid name.");
  if (scope->permission_count > POLICY_LIST_MAX || scope->ip_restriction_count > POLICY_LIST_MAX)
    return error_set(err, ERR_ARGUMENT_TOO_LARGE, "A list of the scope has more than %d entries.", POLICY_LIST_MAX);
  for (size_t i = 0; i < scope->permission_count; i++)
    if (!policy_permission_is_known(scope->permissions[i]))
      return error_set(err, ERR_ARGUMENT_INVALID, "Number %zu of the scope's permissions is not known.", i + 1);
  for (size_t i = 0; i < scope->ip_restriction_count; i++)
    if (!scope_cidr_valid(scope->ip_restrictions[i]))
      return error_set(err, ERR_ARGUMENT_INVALID, "Number %zu of the scope's addresses is not a CIDR block.", i + 1);
  return true;
}

/* ---- JSON ---- */

static bool text_from_json(struct arena *arena, const json_t *value, const char **text) {
  if (json_is_null(value))
    return true;
  if (!json_is_string(value))
    return false;
  *text = arena_strdup(arena, json_string_value(value));
  return str_is_empty(*text) || policy_name_valid(*text);
}

static bool texts_from_json(struct arena *arena, const json_t *value, const char *const **texts, size_t *count) {
  if (json_is_null(value))
    return true;
  size_t size = json_array_size(value);
  if (!json_is_array(value) || size > POLICY_LIST_MAX)
    return false;
  const char **list = arena_alloc(arena, (size + 1) * sizeof(*list));
  for (size_t i = 0; i < size; i++) {
    const char *text = json_string_value(json_array_get(value, i));
    if (text == NULL)
      return false;
    list[i] = arena_strdup(arena, text);
  }
  *texts = list;
  *count = size;
  return true;
}

static bool flag_from_json(const json_t *value, bool *flag) {
  *flag = json_is_true(value);
  return json_is_boolean(value) || json_is_null(value);
}

static bool times_from_json(const json_t *json, struct policy_scope *scope) {
  if (json_is_null(json))
    return true;
  if (!json_is_object(json))
    return false;
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)json, key, value) {
    bool understood = str_equal(key, "business_hours_only") ? flag_from_json(value, &scope->business_hours_only)
                      : str_equal(key, "weekdays_only")     ? flag_from_json(value, &scope->weekdays_only)
                                                            : json_is_null(value);
    if (!understood)
      return false;
  }
  return true;
}

bool scope_from_json(struct arena *arena, const json_t *json, struct policy_scope *scope) {
  *scope = (struct policy_scope){.server_id = ""};
  if (json == NULL || json_is_null(json))
    return true;
  if (!json_is_object(json))
    return false;
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)json, key, value) {
    bool understood;
    if (str_equal(key, "server_id"))
      understood = text_from_json(arena, value, &scope->server_id);
    else if (str_equal(key, "permissions"))
      understood = texts_from_json(arena, value, &scope->permissions, &scope->permission_count);
    else if (str_equal(key, "ip_restrictions"))
      understood = texts_from_json(arena, value, &scope->ip_restrictions, &scope->ip_restriction_count);
    else if (str_equal(key, "time_restrictions"))
      understood = times_from_json(value, scope);
    else /* such as usage_limits: not enforced here, so only "none" is understood */
      understood = json_is_null(value) || (json_is_object(value) && json_object_size(value) == 0);
    if (!understood)
      return false;
  }
  for (size_t i = 0; i < scope->ip_restriction_count; i++)
    if (!scope_cidr_valid(scope->ip_restrictions[i]))
      return false;
  return true;
}

static json_t *texts_to_json(const char *const *texts, size_t count) {
  json_t *array = json_array();
  for (size_t i = 0; i < count; i++)
    json_array_append_new(array, json_string(texts[i]));
  return array;
}

json_t *scope_to_json(const struct policy_scope *scope) {
  return json_pack("{s:s, s:o, s:o, s:{s:b, s:b}}", "server_id", scope->server_id == NULL ? "" : scope->server_id,
                   "permissions", texts_to_json(scope->permissions, scope->permission_count), "ip_restrictions",
                   texts_to_json(scope->ip_restrictions, scope->ip_restriction_count), "time_restrictions",
                   "business_hours_only", scope->business_hours_only, "weekdays_only", scope->weekdays_only);
}
