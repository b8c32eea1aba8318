#!/bin/sh
# Makes what compose.yaml and compose.cluster.yaml keep secret, each once: files in deploy/secrets, and deploy/.env.
#
# By hand go into deploy/secrets: into acme what Sellfern signs acme's deliveries with, into alerts_url where alerts are sent.
# Each run writes the URLs of Redis anew, with the last line of each password's file.
set -eu
cd "${1:-$(dirname "$0")}"
umask 077
mkdir -p secrets

# Readable by the users in the containers; the folder is not readable by others on this machine. They are written in place,
# since a container has this very file.
for name in ingress worker operator replica cluster; do
    [ -s "secrets/$name" ] || od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "secrets/$name"
done
for name in ingress worker operator; do
    password=$(tail -n 1 "secrets/$name")
    printf 'redis://%s:%s@redis:6379/0\n' "$name" "$password" > "secrets/url_$name"
    printf 'redis+cluster://%s:%s@redis,redis-2,redis-3\n' "$name" "$password" > "secrets/cluster_url_$name"
done
[ -e secrets/acme ] || echo whsec_to_be_replaced > secrets/acme
[ -e secrets/alerts_url ] || echo https://chat.example.com/hooks/to_be_replaced > secrets/alerts_url
chmod 644 secrets/*

grep -q ^CONSOLE_TOKEN= .env 2> /dev/null || cat >> .env <<END
CONSOLE_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
GRAFANA_PASSWORD=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')

# The folder of endpoints.toml, and that of your own handlers (below /srv in the workers).
ENDPOINTS_DIR=./example
HANDLERS_DIR=./example
WORKER_HANDLERS=worker.handlers:handlers

# Where deliveries come in. Put TLS in front of it before it leaves this machine.
PUBLIC_ADDRESS=127.0.0.1:8080
END
echo "deploy/secrets and deploy/.env are there; put Sellfern's secret into deploy/secrets/acme, and into alerts_url where alerts go"
