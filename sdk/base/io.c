/* io.c: small file helpers. Errors for the caller carry no path or errno text (ERR-3); the log line of the caller may.
 */
#include "sdk/base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sdk/base/alloc.h"

#define READ_STEP_BYTES 16384u

static bool flag_set(int fd, int get, int set, int flag, bool on) {
  int flags = fcntl(fd, get);
  if (flags < 0)
    return false;
  int wanted = on ? flags | flag : flags & ~flag;
  return wanted == flags || fcntl(fd, set, wanted) == 0;
}

bool io_set_nonblocking(int fd, bool nonblocking) {
  return flag_set(fd, F_GETFL, F_SETFL, O_NONBLOCK, nonblocking);
}

bool io_set_cloexec(int fd, bool cloexec) {
  return flag_set(fd, F_GETFD, F_SETFD, FD_CLOEXEC, cloexec);
}

bool io_write_all(int fd, const void *data, size_t length) {
  const char *p = data;
  while (length) {
    ssize_t count = write(fd, p, length);
    if (count < 0 && errno == EINTR)
      continue;
    if (count <= 0)
      return false;
    p += count;
    length -= (size_t)count;
  }
  return true;
}

bool io_read_file(const char *path, size_t limit_bytes, struct buf *out, struct error *err) {
  size_t length_before = out->length;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return error_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "A file cannot be opened.");
  bool ok = false;
  for (;;) {
    size_t used = out->length - length_before;
    size_t want = limit_bytes - used < READ_STEP_BYTES ? limit_bytes - used + 1 : READ_STEP_BYTES;
    char *target = buf_reserve(out, want);
    ssize_t count = read(fd, target, want);
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0) {
      error_set(err, ERR_IO, "A file cannot be read.");
      break;
    }
    if ((size_t)count > limit_bytes - used) {
      error_set(err, ERR_ARGUMENT_TOO_LARGE, "A file is larger than allowed.");
      break;
    }
    out->length += (size_t)count;
    if (count == 0) {
      ok = true;
      break;
    }
  }
  close(fd);
  if (!ok)
    out->length = length_before;
  if (out->data)
    out->data[out->length] = 0;
  return ok;
}

/* The rename is durable once the directory is. */
static bool sync_parent(const char *path) {
  const char *slash = strrchr(path, '/');
  char *parent = slash ? base_strndup(path, slash == path ? 1 : (size_t)(slash - path)) : base_strdup(".");
  int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  base_free(parent);
  if (fd < 0)
    return false;
  bool ok = fsync(fd) == 0;
  close(fd);
  return ok;
}

bool io_write_file_atomic(const char *path, const void *data, size_t length, mode_t mode, struct error *err) {
  char *temporary = base_asprintf("%s.XXXXXX", path);
  bool ok = false;
  int fd = mkostemp(temporary, O_CLOEXEC);
  if (fd < 0)
    goto out;
  ok = fchmod(fd, mode) == 0 && io_write_all(fd, data, length) && fsync(fd) == 0;
  ok = close(fd) == 0 && ok;
  if (!ok || rename(temporary, path) != 0) {
    ok = false;
    unlink(temporary);
    goto out;
  }
  ok = sync_parent(path);
out:
  base_free(temporary);
  return ok || error_set(err, ERR_IO, "A file cannot be written.");
}

bool io_make_directories(const char *path, mode_t mode, struct error *err) {
  char *copy = base_strdup(path);
  size_t length = strlen(copy);
  bool created = false, ok = length > 0;
  while (length > 1 && copy[length - 1] == '/')
    copy[--length] = 0;
  for (char *p = copy; ok && *p; p++) {
    bool last = p[1] == 0;
    if (!last && (p[1] != '/' || *p == '/'))
      continue;
    char saved = p[1];
    p[1] = 0;
    if (mkdir(copy, mode) == 0)
      created = true;
    else
      ok = errno == EEXIST;
    if (last) {
      struct stat status;
      ok = ok && stat(copy, &status) == 0 && S_ISDIR(status.st_mode) && (!created || chmod(copy, mode) == 0);
    } else {
      created = false;
    }
    p[1] = saved;
  }
  base_free(copy);
  return ok || error_set(err, ERR_IO, "A directory cannot be created.");
}
