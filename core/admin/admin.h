/* admin.h: what operators ask (core.admin.v1), on core/admin.sock. The socket belongs to the core's user and has mode
 * 0600; the peer's uid is checked again on each connection. Translation only; every write is audited. One thread: the
 * core thread. */
#ifndef GATEHOUSE_CORE_ADMIN_H
#define GATEHOUSE_CORE_ADMIN_H

#include "core/catalog/catalog.h"
#include "core/dispatch/dispatch.h"
#include "core/lifecycle/lifecycle.h"
#include "core/observe/observe.h"
#include "core/policy/policy.h"
#include "core/psg/psg.h"
#include "core/rpc/core_rpc.h"
#include "core/sessions/sessions.h"

/* The name of the operators' listeners: no module id can be it, so no module's socket opens this door. */
#define ADMIN_LISTENER "@admin"

struct admin;

struct admin_options {
  struct core_rpc_loop *loop;
  struct store *store;
  struct lifecycle *lifecycle;
  struct policy *policy;
  struct catalog *catalog;
  struct dispatch *dispatch;
  struct sessions *sessions;
  struct observe *observe;
  struct psg *psg;
  const char *store_backend;
};

/* Registers the services with the loop; before the loop runs. */
struct admin *admin_create(const struct admin_options *options);
/* For the listeners' on_accept: root and the core's own user. */
bool admin_peer_accept(struct core_rpc_peer *peer, void *user);
void admin_free(struct admin **admin);

#endif
