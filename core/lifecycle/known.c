/* known.c: see known.h. */
#include "core/lifecycle/known.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "sdk/base/buf.h"
#include "sdk/base/str.h"

/* What can be a version, in a name or by a module's word: it is shown, and is the name of a directory. */
static bool version_is_good(const char *version) {
  size_t length = strlen(version);
  return length > 0 && length < LIFECYCLE_VERSION_BYTES && version[0] != '.' && version[0] != '-' &&
         strspn(version, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._+-~") == length;
}

void lifecycle_known_add(struct lifecycle_known *known, const char *version, const char *program, const char *file) {
  struct stat status = {0};
  if (!version_is_good(version) || strlen(program) >= LIFECYCLE_PROGRAM_BYTES || known->count == LIFECYCLE_KNOWN_MAX ||
      (file && (stat(file, &status) != 0 || !S_ISREG(status.st_mode) || !(status.st_mode & 0111))))
    return;
  for (size_t i = 0; i < known->count; i++) {
    const struct lifecycle_known_program *other = &known->items[i];
    if (str_equal(other->version, version) &&
        (str_equal(other->program, program) ||
         (file && other->device == status.st_dev && other->inode == status.st_ino)))
      return;
  }
  struct lifecycle_known_program *item = &known->items[known->count++];
  *item = (struct lifecycle_known_program){.device = status.st_dev, .inode = status.st_ino};
  str_copy(item->version, sizeof(item->version), version);
  str_copy(item->program, sizeof(item->program), program);
}

void lifecycle_known_scan(struct lifecycle_known *known, const char *directory, const char *base) {
  DIR *stream = directory[0] ? opendir(directory) : NULL;
  size_t base_length = strlen(base);
  const struct dirent *entry;
  if (directory[0] && !stream) /* the sandbox of the core names only what was there when it was made */
    snprintf(known->trouble, sizeof(known->trouble), "; versions_dir %s %s", directory,
             errno == EACCES   ? "was not there when the core started, or may not be read"
             : errno == ENOENT ? "is not there"
                               : "cannot be read");
  while (stream && (entry = readdir(stream))) {
    char path[2 * LIFECYCLE_PROGRAM_BYTES];
    bool named = str_starts_with(entry->d_name, base) && entry->d_name[base_length] == '-';
    const char *version = named ? entry->d_name + base_length + 1 : entry->d_name;
    int length = named ? snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name)
                       : snprintf(path, sizeof(path), "%s/%s/%s", directory, entry->d_name, base);
    if (length > 0 && length < LIFECYCLE_PROGRAM_BYTES)
      lifecycle_known_add(known, version, path, path);
  }
  if (stream)
    closedir(stream);
}

static int by_version(const void *a, const void *b) {
  const struct lifecycle_known_program *left = a, *right = b;
  int order = strverscmp(left->version, right->version);
  return order ? order : strcmp(left->program, right->program);
}

void lifecycle_known_sort(struct lifecycle_known *known) {
  qsort(known->items, known->count, sizeof(known->items[0]), by_version);
}

/* "1.2, 1.3" or the programs of one version; each text once. */
static void list(const struct lifecycle_known *known, const char *version, struct buf *target) {
  for (size_t i = 0; i < known->count; i++) {
    const struct lifecycle_known_program *item = &known->items[i];
    bool again = !version && i > 0 && str_equal(item->version, known->items[i - 1].version);
    if (again || (version && !str_equal(item->version, version)))
      continue;
    buf_printf(target, "%s%s", target->length ? ", " : "",
               !version           ? item->version
               : item->program[0] ? item->program
                                  : "the configured program");
  }
}

const struct lifecycle_known_program *lifecycle_known_find(const struct lifecycle_known *known, const char *version,
                                                           struct error *err) {
  const struct lifecycle_known_program *found = NULL;
  struct buf names = {0};
  size_t count = 0;
  for (size_t i = 0; i < known->count; i++)
    if (str_equal(known->items[i].version, version)) {
      found = &known->items[i];
      count++;
    }
  if (count == 1)
    return found;
  list(known, count ? version : NULL, &names);
  if (count)
    error_set(err, ERR_MODULE_VERSION_AMBIGUOUS, "several programs are version %.40s: %s", version, names.data);
  else
    error_set(err, ERR_MODULE_VERSION_UNKNOWN, "there is no version \"%.40s\"; there are: %s%s", version,
              names.data ? names.data : "none", known->trouble);
  buf_free(&names);
  return NULL;
}
