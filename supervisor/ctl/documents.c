/* documents.c: where documents come from: a file, standard input, the files of a directory. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sdk/base/io.h"
#include "sdk/base/str.h"
#include "supervisor/ctl/ctl_internal.h"

static bool read_input(struct buf *text, struct error *err) {
  for (;;) {
    char *room = buf_reserve(text, 65536);
    ssize_t count = read(STDIN_FILENO, room, 65536);
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      return error_set(err, ERR_IO, "standard input cannot be read: %s", strerror(errno));
    if (count == 0)
      return true;
    text->length += (size_t)count;
    if (text->length > CTL_YAML_BYTES_MAX)
      return error_set(err, ERR_ARGUMENT_TOO_LARGE, "-:1:1: larger than 8 MiB");
  }
}

static bool load_file(const char *path, struct ctl_documents *documents, struct error *err) {
  struct buf text = {0};
  bool ok;
  if (str_equal(path, "-")) {
    ok = read_input(&text, err);
  } else {
    ok = io_read_file(path, CTL_YAML_BYTES_MAX, &text, err);
    if (!ok)
      error_set(err,
                error_is(err, ERR_NOT_FOUND) ? ERR_NOT_FOUND
                : error_is(err, ERR_IO)      ? ERR_IO
                                             : ERR_ARGUMENT_TOO_LARGE,
                "%.180s: %s", path,
                error_is(err, ERR_NOT_FOUND) ? "no such file"
                : error_is(err, ERR_IO)      ? "cannot be read"
                                             : "larger than 8 MiB");
  }
  ok = ok && ctl_yaml_read(path, text.data ? text.data : "", text.length, documents, err);
  buf_free(&text);
  return ok;
}

static int is_document_file(const struct dirent *entry) {
  return entry->d_name[0] != '.' && (str_ends_with(entry->d_name, ".yaml") || str_ends_with(entry->d_name, ".yml") ||
                                     str_ends_with(entry->d_name, ".json"));
}

static int by_name(const struct dirent **a, const struct dirent **b) {
  return strcmp((*a)->d_name, (*b)->d_name); /* the same in every locale */
}

static bool load_directory(const char *path, struct ctl_documents *documents, struct error *err) {
  struct dirent **entries = NULL;
  int count = scandir(path, &entries, is_document_file, by_name);
  bool ok = count > 0;
  if (count < 0)
    error_set(err, ERR_IO, "%.180s: the directory cannot be read", path);
  else if (count == 0)
    error_set(err, ERR_NOT_FOUND, "%.150s: no *.yaml, *.yml or *.json file in this directory", path);
  for (int i = 0; i < count; i++) {
    char *file = base_asprintf("%s/%s", path, entries[i]->d_name);
    ok = ok && load_file(file, documents, err);
    base_free(file);
    free(entries[i]); /* from scandir */
  }
  free(entries);
  return ok;
}

bool ctl_documents_load(const char *path, struct ctl_documents *documents, struct error *err) {
  struct stat status;
  if (!str_equal(path, "-") && stat(path, &status) == 0 && S_ISDIR(status.st_mode))
    return load_directory(path, documents, err);
  return load_file(path, documents, err);
}

void ctl_documents_free(struct ctl_documents *documents) {
  for (size_t i = 0; i < documents->count; i++) {
    base_free(documents->items[i].json);
    base_free(documents->items[i].file);
  }
  base_free(documents->items);
  *documents = (struct ctl_documents){0};
}
