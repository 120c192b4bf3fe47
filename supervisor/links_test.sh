#!/bin/sh
# The supervisor forks: what it links is kept to a list. Fails when ldd shows anything beside it.
set -eu
extra=$(ldd "$1" | awk '{print $1}' | grep -Ev '^(linux-vdso|libc|libm|libyaml-0|libevent_core-2\.1|libseccomp|libasan|libubsan|libtsan|libgcc_s|libstdc\+\+|libdl|libpthread|librt)\.so|^/lib' || true)
if [ -n "$extra" ]; then
  echo "gatehouse-supervisor links more than it may: $extra"
  exit 1
fi
echo "gatehouse-supervisor links only what it may"
