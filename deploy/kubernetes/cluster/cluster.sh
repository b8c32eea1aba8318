#!/bin/sh
# Makes the passwords that a cluster needs beside those of ../example, each once, in secrets/ beside this file, and the
# URLs: run ../example/example.sh first.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
sh ../../redis/passwords.sh make secrets replica cluster
sed 's,=redis://,=redis+cluster://,; s,/0$,,' ../example/secrets/redis.env > secrets/redis.env
echo "secrets/ is there"
