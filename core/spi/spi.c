/* spi.c: the door of the SPI. Each call passes, in this order: the method's row, the channel's identity (TRN-4), the
 * granted family (SPI-1), the lifecycle phase, the decoding of its request; then its handler runs. Whatever fails on
 * the way is answered, counted, and, where someone tried what they may not, audited. */
#include "core/spi/spi.h"

#include <string.h>

#include "core/spi/spi_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/clock.h"
#include "sdk/base/str.h"
#include "wire/pbc/core/spi/auth/v1/auth.pb-c.h"
#include "wire/pbc/core/spi/catalog/v1/catalog.pb-c.h"
#include "wire/pbc/core/spi/config/v1/config.pb-c.h"
#include "wire/pbc/core/spi/observability/v1/observability.pb-c.h"
#include "wire/pbc/core/spi/plugin/v1/plugin.pb-c.h"
#include "wire/pbc/core/spi/psg/v1/psg.pb-c.h"
#include "wire/pbc/core/spi/session/v1/session.pb-c.h"

struct spi_row {
  const char *method;
  const char *family;
  unsigned phases;
  const ProtobufCMessageDescriptor *request;
  spi_handler *handler;
};

#define I LIFECYCLE_PHASE_INITIALIZING
#define S LIFECYCLE_PHASE_SERVING
#define D LIFECYCLE_PHASE_DRAINING
static const struct spi_row rows[] = {
#define SPI_ROW(service, method, kind, family, phases, request, handler)                                               \
  {method, family, phases, &request##__descriptor, handler},
#include "core/spi/methods.def"
#undef SPI_ROW
};
#undef I
#undef S
#undef D
#define REQUEST_ARENA_BYTES 16384
#define ROW_COUNT (sizeof(rows) / sizeof(rows[0]))

/* What a registered method points at: its row and its room. */
struct spi_entry {
  const struct spi_row *row;
  struct spi *spi;
};
static struct spi_entry entries[ROW_COUNT];
static struct core_rpc_method methods[ROW_COUNT];

/* ---- the door ---- */

static bool admit(struct spi *spi, const struct spi_row *row, struct core_rpc_call *call,
                  const struct lifecycle_instance **instance, struct error *err) {
  *instance = lifecycle_authenticate(spi->options.lifecycle, call, err);
  if (!*instance)
    return false;
  if (!lifecycle_instance_is_granted(*instance, row->family)) {
    observe_audit_append(spi->options.observe, &(struct observe_audit){.action = "spi.family.denied",
                                                                       .actor = lifecycle_instance_name(*instance),
                                                                       .target = core_rpc_call_method(call),
                                                                       .outcome = "denied"});
    return error_set(err, ERR_AUTH_FAMILY_DENIED, NULL);
  }
  if (!(row->phases & lifecycle_instance_phase(*instance)))
    return error_set(err, ERR_MODULE_PHASE, NULL);
  if (!row->handler)
    return error_set(err, ERR_UNSUPPORTED, NULL);
  return true;
}

static void enter(struct core_rpc_call *rpc_call, void *user) {
  const struct spi_entry *entry = user;
  struct spi *spi = entry->spi;
  const struct lifecycle_instance *instance = NULL;
  struct error err = {0};
  ProtobufCMessage *request = NULL;
  bool admitted = admit(spi, entry->row, rpc_call, &instance, &err);
  if (admitted) {
    size_t length;
    const uint8_t *data = core_rpc_call_request(rpc_call, &length);
    arena_reset(spi->arena);
    request = core_rpc_unpack(entry->row->request, spi->arena, data, length);
    if (!request)
      error_set(&err, ERR_RPC_MESSAGE_MALFORMED, NULL);
  }
  const char *const labels[] = {core_rpc_call_peer(rpc_call)->listener, entry->row->method,
                                error_is_set(&err) ? err.code : "admitted", NULL};
  observe_count(spi->options.observe, OBSERVE_SPI_CALLS, labels, 1);
  if (request) {
    const struct spi_call call = {.spi = spi, .call = rpc_call, .instance = instance, .request = request};
    entry->row->handler(&call);
  } else {
    core_rpc_call_fail(rpc_call, &err);
  }
}

struct spi *spi_create(const struct spi_options *options) {
  static const char *const paths[ROW_COUNT] = {
#define SPI_ROW(service, method, kind, family, phases, request, handler) "/" service "/" method,
#include "core/spi/methods.def"
#undef SPI_ROW
  };
  static const enum core_rpc_kind kinds[ROW_COUNT] = {
#define SPI_ROW(service, method, kind, family, phases, request, handler) CORE_RPC_##kind,
#include "core/spi/methods.def"
#undef SPI_ROW
  };
  struct spi *spi = BASE_NEW(struct spi);
  spi->magic = SPI_MAGIC;
  spi->options = *options;
  spi->arena = arena_create(REQUEST_ARENA_BYTES);
  LIST_INIT(&spi->watchers);
  for (size_t i = 0; i < ROW_COUNT; i++) {
    entries[i] = (struct spi_entry){.row = &rows[i], .spi = spi};
    methods[i] = (struct core_rpc_method){.path = paths[i], .kind = kinds[i], .handler = enter, .user = &entries[i]};
  }
  core_rpc_server_register(options->loop, methods, ROW_COUNT);
  spi_watchers_start(spi);
  return spi;
}

void spi_free(struct spi **holder) {
  struct spi *spi = BASE_TAKE(*holder);
  if (!spi)
    return;
  spi_watchers_stop(spi);
  arena_free(&spi->arena);
  spi->magic = 0;
  base_free(spi);
}

/* ---- for the handlers ---- */

const struct policy_context *spi_caller(const struct spi_call *call, const Core__Common__V1__CallerContext *caller,
                                        struct error *err) {
  const char *reference = NULL;
  const Core__Common__V1__AuthContext *full = NULL;
  if (caller && caller->caller_case == CORE__COMMON__V1__CALLER_CONTEXT__CALLER_REFERENCE)
    reference = caller->reference;
  else if (caller && caller->caller_case == CORE__COMMON__V1__CALLER_CONTEXT__CALLER_CONTEXT) {
    full = caller->context;
    reference = full->reference;
  }
  if (str_is_empty(reference)) {
    error_set(err, ERR_ARGUMENT_MISSING, "the caller is missing");
    return NULL;
  }
  const struct policy_context *context = policy_context_find(
      call->spi->options.policy, lifecycle_instance_module_id(call->instance), reference, strlen(reference), err);
  if (context && full && (!full->subject || !str_equal(full->subject->user_email, context->user_email))) {
    error_set(err, ERR_AUTH_CONTEXT_EXPIRED, NULL);
    return NULL;
  }
  return context;
}

const struct policy_context *spi_caller_or_fail(const struct spi_call *call,
                                                const Core__Common__V1__CallerContext *caller) {
  struct error err = {0};
  const struct policy_context *context = spi_caller(call, caller, &err);
  if (!context)
    core_rpc_call_fail(call->call, &err);
  return context;
}

void spi_lease_fill(const struct spi *spi, const struct policy_context *context, Core__Common__V1__Lease *lease) {
  core__common__v1__lease__init(lease);
  int64_t left_ms = context ? context->expires_at_ms - clock_wall_ms() : SPI_LEASE_MS;
  lease->ttl_ms = left_ms <= 0 ? 0 : left_ms < SPI_LEASE_MS ? (uint32_t)left_ms : SPI_LEASE_MS;
  lease->revision = catalog_revision(spi->options.catalog);
}
