/* admin.c: the door of the admin socket: each call is decoded by its row of methods.def and handed to its handler. */
#include "core/admin/admin.h"

#include <unistd.h>

#include "core/admin/admin_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"
#include "wire/pbc/core/admin/v1/admin.pb-c.h"
#include "wire/pbc/core/spi/psg/v1/psg.pb-c.h"

struct admin_row {
  const ProtobufCMessageDescriptor *request;
  admin_handler *handler;
};

static const struct admin_row rows[] = {
#define ADMIN_ROW(service, method, kind, request, handler) {&request##__descriptor, handler},
#include "core/admin/methods.def"
#undef ADMIN_ROW
};
#define ROW_COUNT (sizeof(rows) / sizeof(rows[0]))

struct admin_entry {
  const struct admin_row *row;
  struct admin *admin;
};
static struct admin_entry entries[ROW_COUNT];

static struct core_rpc_method methods[ROW_COUNT] = {
#define ADMIN_ROW(service, method_, kind_, request, handler_)                                                          \
  {.path = "/" service "/" method_, .kind = CORE_RPC_##kind_},
#include "core/admin/methods.def"
#undef ADMIN_ROW
};

static void enter(struct core_rpc_call *rpc_call, void *user) {
  const struct admin_entry *entry = user;
  /* A module's socket reaches the same server: operators' methods are for the operators' listeners only. */
  if (!str_equal(core_rpc_call_peer(rpc_call)->listener, ADMIN_LISTENER)) {
    core_rpc_call_fail_code(rpc_call, ERR_AUTH_FAMILY_DENIED);
    return;
  }
  if (!entry->row->handler) {
    core_rpc_call_fail_code(rpc_call, ERR_UNSUPPORTED);
    return;
  }
  arena_reset(entry->admin->arena);
  const ProtobufCMessage *request = core_rpc_call_unpack(rpc_call, entry->row->request, entry->admin->arena);
  if (!request)
    return;
  const struct admin_call call = {.admin = entry->admin, .call = rpc_call, .request = request};
  entry->row->handler(&call);
}

bool admin_peer_accept(struct core_rpc_peer *peer, void *user) {
  (void)user;
  if (peer->uid == 0 || peer->uid == geteuid())
    return true;
  log_event(LOG_WARN, "admin", "a connection to the admin socket was refused", LOG_INT("uid", peer->uid));
  return false;
}

struct admin *admin_create(const struct admin_options *options) {
  struct admin *admin = BASE_NEW(struct admin);
  admin->magic = ADMIN_MAGIC;
  admin->options = *options;
  admin->arena = arena_create(0);
  for (size_t i = 0; i < ROW_COUNT; i++) {
    entries[i] = (struct admin_entry){.row = &rows[i], .admin = admin};
    methods[i].handler = enter;
    methods[i].user = &entries[i];
  }
  core_rpc_server_register(options->loop, methods, ROW_COUNT);
  return admin;
}

void admin_free(struct admin **holder) {
  struct admin *admin = BASE_TAKE(*holder);
  if (!admin)
    return;
  arena_free(&admin->arena);
  admin->magic = 0;
  base_free(admin);
}

/* ---- for the handlers ---- */

void admin_audit(struct admin *admin, const char *action, const char *target, const struct error *err) {
  observe_audit_append(admin->options.observe, &(struct observe_audit){.action = action,
                                                                       .actor = "operator",
                                                                       .target = target,
                                                                       .outcome = err ? "failed" : "done"});
}

struct admin_write *admin_write_begin(const struct admin_call *call, const char *target) {
  struct admin_write *write = BASE_NEW(struct admin_write);
  write->admin = call->admin;
  write->call = call->call;
  str_copy(write->target, sizeof(write->target), target);
  return write;
}

bool admin_write_done(const struct admin_write *write, const char *action, const struct error *err) {
  admin_audit(write->admin, action, write->target, err);
  if (err)
    core_rpc_call_fail(write->call, err);
  return !err;
}
