/* cli.c: writes docs/cli.md from the command table.
 *   cli_reference > docs/cli.md           write
 *   cli_reference --check docs/cli.md     exit 1 when the file is stale */
#include <stdio.h>
#include <string.h>

#include "sdk/base/io.h"
#include "supervisor/ctl/ctl.h"

int main(int argc, char **argv) {
  struct buf wanted = {0}, found = {0};
  int status = 0;
  ctl_reference_write(&wanted);
  if (argc == 3 && strcmp(argv[1], "--check") == 0) {
    bool read = io_read_file(argv[2], 1024 * 1024, &found, NULL);
    if (!read || found.length != wanted.length || memcmp(found.data, wanted.data, wanted.length) != 0) {
      fprintf(stderr, "%s is stale; write it again: cli_reference > %s\n", argv[2], argv[2]);
      status = 1;
    }
  } else if (argc == 1) {
    status = fwrite(wanted.data, 1, wanted.length, stdout) == wanted.length ? 0 : 1;
  } else {
    fprintf(stderr, "usage: cli_reference [--check FILE]\n");
    status = 100;
  }
  buf_free(&wanted);
  buf_free(&found);
  return status;
}
