/* crash.h: the last words of a process that crashes. A handler on a stack of its own writes what happened and where, as
 * JSON lines on stderr, each short enough to be kept whole by the supervisor; then the signal takes its course, so the
 * exit status is the crash's own. Nothing but numbers and names of files is written: no memory, no registers, and of a
 * faulting address only whether it was near null, because all of these can hold a secret.
 *
 *   {"level":"panic","process":"mcp","room":"crash","message":"signal 11 (SEGV), near null"}
 *   {"level":"panic","process":"mcp","room":"crash","stack":"gatehouse-mcp+0x1f00c libc.so.6+0x3c050 …"}
 *
 * An offset is what `addr2line -e <file>` takes. Signal-safe: poll(2) and write(2), the unwinder of libgcc, and glibc's
 * _dl_find_object, none of which takes a lock or allocates. Threads without the alternate stack use their own. */
#ifndef GATEHOUSE_BASE_CRASH_H
#define GATEHOUSE_BASE_CRASH_H

#include <signal.h>

/* For the rest of the process. process: as in the logs; its text must stay. Built with a sanitizer this does nothing:
 * its runtime has a report of its own. */
void crash_handler_install(const char *process);

/* Blocks every signal but those of crashes in this thread, and in those that it makes from then on; *before: for
 * pthread_sigmask(SIG_SETMASK). A thread that blocks the signal of its own crash dies without last words. */
void crash_signals_block_others(sigset_t *before);

/* The same report for a process that ends itself. reason: for the message, put there as it is. context: the third
 * argument of the signal handler that calls this, whose place the stack begins at; NULL: no stack. Also under a
 * sanitizer. Async-signal-safe. */
void crash_report(const char *reason, const void *context);

#endif
