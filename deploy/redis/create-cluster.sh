#!/bin/sh
# Makes a cluster of nodes that know nothing of each other, a third of them primaries with two replicas each; in the
# container of one of them. Nodes that are one already stay as they are.
#
#   create-cluster.sh ADDRESS:PORT…
set -eu
REDISCLI_AUTH=$(head -n 1 "${SECRETS_DIR:-/run/secrets/redis}/cluster")
export REDISCLI_AUTH
known=$(redis-cli --user cluster -h "${1%:*}" -p "${1##*:}" CLUSTER INFO | tr -d '\r')
case $known in
    *cluster_slots_assigned:0*) ;;
    *cluster_slots_assigned:16384*) echo "they are a cluster already"; exit ;;
    *) echo "error: $1: expected a node without slots, or of a whole cluster, got: $known" >&2; exit 1 ;;
esac
exec redis-cli --user cluster --cluster create "$@" --cluster-replicas 2 --cluster-yes
