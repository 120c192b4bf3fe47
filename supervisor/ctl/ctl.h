/* ctl.h: the operator CLI, the binary `gatehouse`. One table (commands.c) says which commands there are; dispatch,
 * --help, shell completion and docs/cli.md come from it. Everything but `up`, `config` and `completion` asks the core
 * on its admin socket. One thread. */
#ifndef GATEHOUSE_CTL_H
#define GATEHOUSE_CTL_H

#include "sdk/base/buf.h"

/* Exit statuses: CTL_EXIT_OK … from exit_codes.def. */
enum ctl_exit {
#define CTL_EXIT(name, value, meaning) CTL_EXIT_##name = value,
#include "supervisor/ctl/exit_codes.def"
#undef CTL_EXIT
};

/* The whole program: reads arguments, runs one command, answers the exit status. */
int ctl_main(int argc, char **argv);

/* The reference of all commands as Markdown: docs/cli.md. */
void ctl_reference_write(struct buf *target);

#endif
