/* tables.c: types, edges and statuses as data. */
#include <string.h>

#include "core/psg/psg_internal.h"
#include "sdk/base/str.h"

#define MACHINE_(name) PSG_MACHINE_##name

const struct psg_type_info psg_types[PSG_TYPE_COUNT] = {
#define PSG_TYPE(name_, word_, id_, parent_field_, parent_, edge_, goes_, machine_, writer_)                           \
  [PSG_TYPE_##name_] = {#name_,                                                                                        \
                        word_,                                                                                         \
                        id_,                                                                                           \
                        parent_field_,                                                                                 \
                        PSG_TYPE_##parent_,                                                                            \
                        PSG_EDGE_##edge_,                                                                              \
                        PSG_GOES_##goes_,                                                                              \
                        MACHINE_(machine_),                                                                            \
                        PSG_WRITER_##writer_},
#include "core/psg/types.def"
#undef PSG_TYPE
};

const struct psg_edge_info psg_edge_types[PSG_EDGE_COUNT] = {
#define PSG_EDGE(name_, from_, to_, acyclic_) [PSG_EDGE_##name_] = {#name_, PSG_TYPE_##from_, PSG_TYPE_##to_, acyclic_},
#include "core/psg/edges.def"
#undef PSG_EDGE
};

static const struct psg_status_info statuses[] = {
#define PSG_STATUS(machine_, status_, stage_, kind_) {PSG_MACHINE_##machine_, status_, stage_, PSG_STATUS_##kind_},
#define PSG_TRANSITION(machine_, from_, to_)
#include "core/psg/statuses.def"
#undef PSG_STATUS
#undef PSG_TRANSITION
};

static const struct {
  enum psg_machine machine;
  const char *from, *to;
} transitions[] = {
#define PSG_STATUS(machine_, status_, stage_, kind_)
#define PSG_TRANSITION(machine_, from_, to_) {PSG_MACHINE_##machine_, from_, to_},
#include "core/psg/statuses.def"
#undef PSG_STATUS
#undef PSG_TRANSITION
};

enum psg_type psg_type_find(const char *name, size_t length) {
  for (int i = 0; i < PSG_TYPE_COUNT; i++)
    if (strlen(psg_types[i].name) == length && memcmp(psg_types[i].name, name, length) == 0)
      return (enum psg_type)i;
  return PSG_TYPE_NONE;
}

enum psg_edge_type psg_edge_type_find(const char *name, size_t length) {
  for (int i = 0; i < PSG_EDGE_COUNT; i++)
    if (strlen(psg_edge_types[i].name) == length && memcmp(psg_edge_types[i].name, name, length) == 0)
      return (enum psg_edge_type)i;
  return PSG_EDGE_NONE;
}

const struct psg_status_info *psg_status_find(enum psg_machine machine, const char *status) {
  for (size_t i = 0; status && i < sizeof(statuses) / sizeof(statuses[0]); i++)
    if (statuses[i].machine == machine && str_equal(statuses[i].status, status))
      return &statuses[i];
  return NULL;
}

bool psg_transition_allowed(enum psg_machine machine, const char *from, const char *to) {
  for (size_t i = 0; i < sizeof(transitions) / sizeof(transitions[0]); i++)
    if (transitions[i].machine == machine && str_equal(transitions[i].from, from) && str_equal(transitions[i].to, to))
      return true;
  return false;
}
