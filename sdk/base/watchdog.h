/* watchdog.h: a process notices by itself that one of its loops hangs, says where, and ends, so that whoever restarts
 * it does. A loop that is watched feeds its watchdog from a timer of its own; a timer of the process (ITIMER_REAL, so
 * it owns SIGALRM) looks four times in hang_ms whether it did. After five looks without a feed the thread that hangs
 * writes the report of crash.h, with its stack, and the process ends with WATCHDOG_EXIT_HANG.
 *
 *   {"level":"panic","process":"mcp","room":"crash","message":"the loop has not turned for 5000 ms"}
 *   {"level":"panic","process":"mcp","room":"crash","stack":"gatehouse-mcp+0x1f00c libc.so.6+0x3c050 …"}
 *
 * No thread, no descriptor, no allocation, and no system call but the one that starts it: a feed is one addition.
 *
 * Time in which the process could not run does not count, because looks are counted and no clock is read. While a
 * process is stopped (SIGSTOP, a debugger, a frozen cgroup) a pending signal is pending once, so that a stop costs one
 * look of the five, however long it was, and a loop has had hang_ms of its own before it is said to hang. A suspended
 * machine costs nothing: its monotonic clock stands. A process that gets too little of a busy machine to run its loop
 * gets too little to look. Only stepping through one turn in a debugger for longer than hang_ms looks like a hang:
 * switch it off for that (0). A hang is found after hang_ms, and at most half as much later. */
#ifndef GATEHOUSE_BASE_WATCHDOG_H
#define GATEHOUSE_BASE_WATCHDOG_H

#include <stdint.h>

#define WATCHDOG_EXIT_HANG 113

struct watchdog_loop; /* one loop that is watched; not allocated */

/* Starts the watch over this process, once; 0: there is none, and the rest of this header does nothing. */
void watchdog_start(uint32_t hang_ms);

/* How often a loop must feed, in milliseconds; 0: nobody watches. */
uint32_t watchdog_feed_ms(void);

/* The calling thread's loop is watched from now on. name: for the report. At most WATCHDOG_LOOPS_MAX at a time. Lets
 * SIGALRM through to the thread. NULL: nobody watches. */
#define WATCHDOG_LOOPS_MAX 4
struct watchdog_loop *watchdog_loop_begin(const char *name);
void watchdog_loop_feed(struct watchdog_loop *loop); /* NULL is fine */
/* Nulls the pointer; NULL-safe. Before the thread ends. */
void watchdog_loop_end(struct watchdog_loop **loop);

#endif
