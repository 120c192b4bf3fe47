/* known.h: the programs of a module that can be named by their version (LIF-9): those in the directory of versions, and
 * those that the module runs or ran. Looks at directories; holds nothing between two questions. */
#ifndef GATEHOUSE_CORE_LIFECYCLE_KNOWN_H
#define GATEHOUSE_CORE_LIFECYCLE_KNOWN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "sdk/base/error.h"

#define LIFECYCLE_PROGRAM_BYTES 256
#define LIFECYCLE_VERSION_BYTES 64
#define LIFECYCLE_KNOWN_MAX 128

struct lifecycle_known_program {
  char version[LIFECYCLE_VERSION_BYTES];
  char program[LIFECYCLE_PROGRAM_BYTES]; /* "": as configured */
  dev_t device;                          /* of its file, by which one that has two names is one; 0: not looked at */
  ino_t inode;
};

struct lifecycle_known {
  struct lifecycle_known_program items[LIFECYCLE_KNOWN_MAX];
  size_t count;
  char trouble[LIFECYCLE_PROGRAM_BYTES + 64]; /* with the directory of versions; "": none */
};

/* Adds a program, unless the same version of the same file is there, there is no such file that could be executed, or
 * there is no room. file: where it lies; NULL: only the supervisor knows. */
void lifecycle_known_add(struct lifecycle_known *known, const char *version, const char *program, const char *file);

/* Adds what lies in the directory as <base>-<version> or <version>/<base>. A directory that cannot be read has
 * nothing, and the error about an unknown version says so. */
void lifecycle_known_scan(struct lifecycle_known *known, const char *directory, const char *base);

/* By version, as people read them: numbers in it count as numbers. */
void lifecycle_known_sort(struct lifecycle_known *known);

/* The one of that version. NULL: ERR_MODULE_VERSION_UNKNOWN, which names those that there are, or
 * ERR_MODULE_VERSION_AMBIGUOUS, which names the programs. */
const struct lifecycle_known_program *lifecycle_known_find(const struct lifecycle_known *known, const char *version,
                                                           struct error *err);

#endif
