/* spi.h: the core's SPI as modules call it (SPI-*): identity, allow-list, translation; no logic of its own. Every
 * method is a row of methods.def: which family it belongs to, in which phases of the module's lifecycle it may be
 * called. A call that no row allows never reaches a room. One thread: the core thread. */
#ifndef GATEHOUSE_CORE_SPI_H
#define GATEHOUSE_CORE_SPI_H

#include "core/catalog/catalog.h"
#include "core/dispatch/dispatch.h"
#include "core/lifecycle/lifecycle.h"
#include "core/observe/observe.h"
#include "core/policy/policy.h"
#include "core/psg/psg.h"
#include "core/rpc/core_rpc.h"
#include "core/sessions/sessions.h"

struct spi;

struct spi_options {
  struct core_rpc_loop *loop;
  struct store *store;
  struct lifecycle *lifecycle;
  struct policy *policy;
  struct catalog *catalog;
  struct dispatch *dispatch;
  struct sessions *sessions;
  struct observe *observe;
  struct psg *psg;
};

/* Registers every SPI method with the loop; before the loop runs. */
struct spi *spi_create(const struct spi_options *options);
/* After the loop has ended. */
void spi_free(struct spi **spi);

#endif
