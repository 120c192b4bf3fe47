/* io.h: small file helpers. Any thread; EINTR is handled inside. */
#ifndef GATEHOUSE_BASE_IO_H
#define GATEHOUSE_BASE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "sdk/base/buf.h"
#include "sdk/base/error.h"

/* Sets or clears O_NONBLOCK. False: fd is not an open descriptor. */
bool io_set_nonblocking(int fd, bool nonblocking);

/* Sets or clears FD_CLOEXEC. False: fd is not an open descriptor. */
bool io_set_cloexec(int fd, bool cloexec);

/* Writes everything to a blocking descriptor. False: errno tells. */
bool io_write_all(int fd, const void *data, size_t length);

/* Appends the whole file to *out (the caller owns the buffer). Errors: ERR_NOT_FOUND (no such file),
 * ERR_ARGUMENT_TOO_LARGE (more than limit_bytes), ERR_IO; on error *out is as before. Messages carry no path. */
bool io_read_file(const char *path, size_t limit_bytes, struct buf *out, struct error *err);

/* Replaces the file as one: temporary file beside it, fsync, rename, fsync of the directory; permissions are exactly
 * mode. After a crash the old or the new content is there, never a mix. Error: ERR_IO; the old file is then untouched.
 */
bool io_write_file_atomic(const char *path, const void *data, size_t length, mode_t mode, struct error *err);

/* Creates the directory and its missing parents with mode (the umask does not apply to the last one). Error: ERR_IO. */
bool io_make_directories(const char *path, mode_t mode, struct error *err);

#endif
