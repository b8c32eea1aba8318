#!/bin/sh
# Makes what compose.yaml and compose.cluster.yaml keep secret, each once: files in deploy/secrets, and deploy/.env.
#
# The secret that Sellfern signs acme's deliveries with goes into deploy/secrets/acme by hand.
set -eu
cd "${1:-$(dirname "$0")}"
umask 077
mkdir -p secrets

# Readable by the users in the containers; the folder is not readable by others on this machine.
for name in ingress worker operator replica cluster; do
    [ -s "secrets/$name" ] || od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "secrets/$name"
    chmod 444 "secrets/$name"
done
[ -e secrets/acme ] || { echo whsec_to_be_replaced > secrets/acme && chmod 444 secrets/acme; }

grep -q ^REDIS_INGRESS_PASSWORD= .env 2> /dev/null || cat >> .env <<END
REDIS_INGRESS_PASSWORD=$(cat secrets/ingress)
REDIS_WORKER_PASSWORD=$(cat secrets/worker)
REDIS_OPERATOR_PASSWORD=$(cat secrets/operator)
CONSOLE_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
GRAFANA_PASSWORD=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')

# The folder of endpoints.toml, and that of your own handlers (below /srv in the workers).
ENDPOINTS_DIR=./example
HANDLERS_DIR=./example
WORKER_HANDLERS=worker.handlers:handlers

# Where deliveries come in. Put TLS in front of it before it leaves this machine.
PUBLIC_ADDRESS=127.0.0.1:8080
END
echo "deploy/secrets and deploy/.env are there; put Sellfern's secret into deploy/secrets/acme"
