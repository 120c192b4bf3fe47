#!/bin/sh
# Writes the names of the system calls that the headers of this machine know: call_names.sh COMPILER FILE.
set -eu
echo '#include <sys/syscall.h>' | "$1" -E -dM - |
  sed -n 's/^#define SYS_\([a-z][a-z0-9_]*\) __NR_[a-z0-9_]*$/SYSTEM_CALL(\1)/p' | LC_ALL=C sort >"$2.new"
[ "$(wc -l <"$2.new")" -gt 200 ] || {
  echo "$0: hardly any system calls found" >&2
  exit 1
}
mv "$2.new" "$2"
