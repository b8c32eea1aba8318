#!/bin/sh
# Makes a cluster of nodes that know nothing of each other, a third of them primaries; in a pod of one of them.
#
#   create.sh ADDRESS:PORT…
set -eu
REDISCLI_AUTH=$(cat "${SECRETS_DIR:-/run/secrets/redis}/cluster")
export REDISCLI_AUTH
exec redis-cli --user cluster --cluster create "$@" --cluster-replicas 2 --cluster-yes
