#!/bin/sh
# The supervisor forks: what it links is kept to a list. Fails when ldd shows anything beside it, or when a name of gRPC,
# SQLite, TLS or HTTP/2 is in it, which an archive brings without ldd seeing it.
set -eu
for program in "$1" "$2"; do
  [ -x "$program" ] || { echo "not built: $program"; exit 1; }
done
extra=$(ldd "$1" | awk '{print $1}' | grep -Ev '^(linux-vdso|libc|libm|libyaml-0|libevent_core-2\.1|libseccomp|libasan|libubsan|libtsan|libgcc_s|libstdc\+\+|libdl|libpthread|librt)\.so|^/lib' || true)
if [ -n "$extra" ]; then
  echo "gatehouse-supervisor links more than it may: $extra"
  exit 1
fi
# The core has them: a look for names that finds nothing there would find nothing anywhere.
foreign() { nm "$1" | awk '{print $NF}' | grep -E '^(grpc_|sqlite3_|SSL_|EVP_|nghttp2_|curl_|protobuf_c_)' || true; }
linked=$(foreign "$1" | head -5)
if [ -n "$linked" ]; then
  echo "gatehouse-supervisor has what it may not have: $linked"
  exit 1
fi
if [ -z "$(foreign "$2" | head -1)" ]; then
  echo "no names can be read from $2: this test sees nothing"
  exit 1
fi
echo "gatehouse-supervisor links only what it may"
