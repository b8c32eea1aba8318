#!/bin/sh
# Makes the passwords that servers with Sentinels need beside those of ../example, each once, in secrets/ beside this file, and
# the URLs: run ../example/example.sh first.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
sh ../../redis/passwords.sh make secrets replica sentinel
hosts=$(for n in 0 1 2; do printf ',sellfern-sentinel-%s.sellfern-sentinel:26379' "$n"; done)
for user in ingress worker operator; do
    password=$(tail -n 1 "../example/secrets/$user")
    printf 'REDIS_URL_%s=redis+sentinel://%s:%s@%s/sellfern/0?sentinel_username=%s&sentinel_password=%s\n' \
        "$(echo "$user" | tr a-z A-Z)" "$user" "$password" "${hosts#,}" "$user" "$password"
done > secrets/redis.env
echo "secrets/ is there"
