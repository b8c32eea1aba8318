#!/bin/sh
# Starts Redis, or with `cluster` as the first word a node of a cluster, with `sentinel` a Sentinel, with the passwords that
# stand in files; with `reload` before that, has the one that runs take those that stand there now, which ends no connection
# (Redis 7.0 ends all).
#
#   start.sh [cluster|sentinel] [OPTIONS OF redis-server]
#   start.sh reload [sentinel] [OPTIONS OF redis-cli]
#
# CONFIG_DIR  redis.conf, cluster.conf and users.acl, or sentinel.conf and sentinel-users.acl   (/etc/redis)
# SECRETS_DIR one file a user, of the user's name: its password, or the old one and below it the new one   (/run/secrets/redis)
# STATE_DIR   where Redis keeps its data, and its own copies of them   (/data)
# REPLICA_OF  "host port" of the primary, where this server starts as a replica; Sentinel knows later
# PRIMARY     "host port" of the same, for a Sentinel that starts for the first time   (what sentinel.conf says)
#
# A user without a file can't log in. Passwords reach neither the command line nor the environment.
set -eu
umask 077

config=${CONFIG_DIR:-/etc/redis} secrets=${SECRETS_DIR:-/run/secrets/redis} state=${STATE_DIR:-/data}

passwords() { # of a user, one on each line
    [ ! -f "$secrets/$1" ] || tr -d '\r' < "$secrets/$1" | grep . || true
}

password() { # with which this server comes to others: the new one
    passwords "$1" | tail -n 1
}

refuse() {
    echo "error: $1" >&2
    exit 2
}

# Redis writes some of them into its own files, and Sentinel does so without quotes.
for file in "$secrets"/*; do
    name=${file##*/}
    ! passwords "$name" | grep -q "[[:space:]\"'\\\\]" ||
        refuse "$name: expected a password without spaces, quotes or backslashes"
    count=$(passwords "$name" | wc -l)
    [ "$count" -le 2 ] || refuse "$name: expected a password, or two while one is changed, got $((count)) lines"
done

users() { # the rules of a file, with the passwords' digests
    while IFS= read -r line; do
        name=${line#user }
        name=${name%% *}
        printf %s "$line"
        passwords "$name" | while IFS= read -r secret; do
            printf ' #%s' "$(printf %s "$secret" | sha256sum | cut -d ' ' -f 1)"
        done
        echo
    done < "$config/$1" > "$state/$1.new"
    mv "$state/$1.new" "$state/$1"
}

if [ "${1:-}" = reload ]; then
    shift
    rules=users.acl port=6379
    [ "${1:-}" != sentinel ] || { rules=sentinel-users.acl port=26379 && shift; }
    users "$rules"
    said="there is no password of operator in $secrets"
    # The new one is known once this has been done.
    for secret in $(passwords operator); do
        said=$(REDISCLI_AUTH=$secret "${REDIS_CLI:-redis-cli}" -p "$port" --user operator "$@" ACL LOAD 2>&1) || true
        [ "$said" != OK ] || exit 0
    done
    refuse "expected OK, got $said"
fi

# Each start writes passwords anew: one is changed by changing its file.
if [ "${1:-}" = sentinel ]; then
    shift
    users sentinel-users.acl
    # Later it holds what this Sentinel has learned.
    [ -f "$state/sentinel.conf" ] ||
        sed "${PRIMARY:+s/^\\(sentinel monitor sellfern\\) .* /\\1 $PRIMARY /}" "$config/sentinel.conf" > "$state/sentinel.conf"
    # Sentinel writes users down itself where it was started without a file of them, as by an earlier
    # version of this script.
    grep -v -E '^(aclfile|user|requirepass|sentinel (auth-pass|sentinel-user|sentinel-pass)) ' \
        "$state/sentinel.conf" > "$state/sentinel.conf.new"
    secret=$(password sentinel)
    {
        printf 'aclfile %s/sentinel-users.acl\n' "$state"
        [ -z "$secret" ] || printf 'sentinel sentinel-user sentinel\nsentinel sentinel-pass "%s"\n' "$secret"
        [ -z "$secret" ] || printf 'sentinel auth-pass sellfern "%s"\n' "$secret"
    } >> "$state/sentinel.conf.new"
    mv "$state/sentinel.conf.new" "$state/sentinel.conf"
    exec "${REDIS_SERVER:-redis-server}" "$state/sentinel.conf" --sentinel --dir "$state" "$@"
fi

if [ "${1:-}" = cluster ]; then
    shift
    set -- --include "$config/cluster.conf" "$@"
fi
users users.acl
if [ ! -f "$state/redis.conf" ]; then # later it holds which primary Sentinel has set
    printf 'include %s/redis.conf\n' "$config" > "$state/redis.conf"
    [ -z "${REPLICA_OF:-}" ] || printf 'replicaof %s\n' "$REPLICA_OF" >> "$state/redis.conf"
fi
printf 'aclfile %s/users.acl\ndir %s\n' "$state" "$state" > "$state/secrets.conf"
secret=$(password replica)
[ -z "$secret" ] || printf 'masteruser replica\nmasterauth "%s"\n' "$secret" >> "$state/secrets.conf"
exec "${REDIS_SERVER:-redis-server}" "$state/redis.conf" --include "$state/secrets.conf" "$@"
