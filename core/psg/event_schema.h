/* event_schema.h: which schema an event follows. */
#ifndef GATEHOUSE_CORE_PSG_EVENT_SCHEMA_H
#define GATEHOUSE_CORE_PSG_EVENT_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>

#include "sdk/base/error.h"

/* Those before SA are CORE and more, and open; SA and MAP are closed and stand alone. */
enum psg_event_schema {
  PSG_SCHEMA_CORE,
  PSG_SCHEMA_GRAPH_UPDATE,
  PSG_SCHEMA_PIPELINE_STAGE,
  PSG_SCHEMA_RUNTIME_EXECUTION,
  PSG_SCHEMA_SA,
  PSG_SCHEMA_MAP,
};

/* psg_event_check, and which schema it was. */
bool psg_event_examine(const char *json, size_t length, enum psg_event_schema *schema, struct error *err);

#endif
