#!/bin/sh
# Makes what compose.yaml and compose.cluster.yaml keep secret, each once: files in deploy/secrets. deploy/.env has the rest.
#
# By hand go into deploy/secrets: into acme what Sellfern signs acme's deliveries with, into alerts_url where alerts are sent.
# Each run writes the URLs of Redis anew, with the last line of each password's file.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "${1:-$here}"
umask 077
mkdir -p secrets
touch .env

# An earlier version had these two in .env. Grafana keeps the password that it was given first, which is what Compose read there.
blank='[[:space:]]'
for each in CONSOLE_TOKEN:console GRAFANA_PASSWORD:grafana; do
    name=${each%:*} file=secrets/${each#*:}
    line="^$blank*(export$blank+)?$name$blank*="
    raw=$(sed -n -E "s/$line$blank*//p" .env | tail -n 1 | tr -d '\r')
    if [ ! -s "$file" ]; then
        case $raw in
            \'*) ;;
            *\$* | \"*\\[nrt]*)
                echo "error: .env: expected a $name without \$ and \\n, or one in single quotes: write what it stands for into $file" >&2
                exit 2
                ;;
        esac
        value=$(printf '%s\n' "$raw" | sed -E \
            -e "/^'/{ s/^'([^']*)'.*/\1/; b" -e '}' \
            -e '/^"/{ s/^"(([^"\\]|\\.)*)".*/\1/; s/\\(.)/\1/g; b' -e '}' \
            -e "s/(^|$blank)#.*//; s/$blank+\$//")
        [ -z "$value" ] || printf '%s\n' "$value" > "$file"
    fi
    sed -i -E "/$line/d" .env
done

# Readable by the users in the containers; the folder is not readable by others on this machine. They are written in place,
# since a container has this very file.
sh "$here/redis/passwords.sh" make secrets ingress worker operator replica cluster console grafana
for name in ingress worker operator; do
    password=$(tail -n 1 "secrets/$name")
    printf 'redis://%s:%s@redis:6379/0\n' "$name" "$password" > "secrets/url_$name"
    printf 'redis+cluster://%s:%s@redis,redis-2,redis-3\n' "$name" "$password" > "secrets/cluster_url_$name"
done
[ -e secrets/acme ] || echo whsec_to_be_replaced > secrets/acme
[ -e secrets/alerts_url ] || echo https://chat.example.com/hooks/to_be_replaced > secrets/alerts_url
chmod 644 secrets/*

grep -q ^ENDPOINTS_DIR= .env || cat >> .env <<END
# The folder of endpoints.toml, and that of your own handlers (below /srv in the workers).
ENDPOINTS_DIR=./example
HANDLERS_DIR=./example
WORKER_HANDLERS=worker.handlers:handlers

# Where deliveries come in. Put TLS in front of it before it leaves this machine.
PUBLIC_ADDRESS=127.0.0.1:8080
END
echo "deploy/secrets and deploy/.env are there; put Sellfern's secret into deploy/secrets/acme, and into alerts_url where alerts go"
