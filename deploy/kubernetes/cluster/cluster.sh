#!/bin/sh
# Makes the passwords that a cluster needs beside those of ../example, each once, in secrets/ beside this file, and the
# URLs: run ../example/example.sh first.
set -eu
cd "${1:-$(dirname "$0")}"
umask 077
mkdir -p secrets
for name in replica cluster; do
    [ -s "secrets/$name" ] || od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "secrets/$name"
done
sed 's,=redis://,=redis+cluster://,; s,/0$,,' ../example/secrets/redis.env > secrets/redis.env
echo "secrets/ is there"
