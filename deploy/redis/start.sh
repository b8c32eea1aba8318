#!/bin/sh
# Starts Redis, or with `sentinel` as the first word a Sentinel, with the passwords that stand in files.
#
#   start.sh [sentinel] [OPTIONS OF redis-server]
#
# CONFIG_DIR  redis.conf, sentinel.conf and users.acl   (/etc/redis)
# SECRETS_DIR one file a user, of the user's name: its password   (/run/secrets/redis)
# STATE_DIR   where Redis keeps its data, and its own copies of them   (/data)
# REPLICA_OF  "host port" of the primary, where this server starts as a replica; Sentinel knows later
#
# A user without a file can't log in. Passwords reach neither the command line nor the environment.
set -eu
umask 077

config=${CONFIG_DIR:-/etc/redis} secrets=${SECRETS_DIR:-/run/secrets/redis} state=${STATE_DIR:-/data}

password() { # of a user, without the line's end
    [ ! -f "$secrets/$1" ] || tr -d '\r\n' < "$secrets/$1"
}

# Redis writes some of them into its own files, and Sentinel does so without quotes.
for file in "$secrets"/*; do
    case $(password "${file##*/}") in
        *[[:space:]\"\'\\]*)
            echo "error: ${file##*/}: expected a password without spaces, quotes or backslashes" >&2
            exit 2 ;;
    esac
done

# Each start writes it anew: a password is changed by changing its file.
while IFS= read -r line; do
    name=${line#user }
    name=${name%% *}
    secret=$(password "$name")
    hash=${secret:+ "#$(printf %s "$secret" | sha256sum | cut -d ' ' -f 1)"}
    printf '%s%s\n' "$line" "$hash"
done < "$config/users.acl" > "$state/users.acl"

if [ "${1:-}" = sentinel ]; then
    shift
    if [ ! -f "$state/sentinel.conf" ]; then # later it holds what this Sentinel has learned
        cp "$config/sentinel.conf" "$state/sentinel.conf"
        secret=$(password sentinel)
        [ -z "$secret" ] || printf 'sentinel auth-pass sellfern "%s"\n' "$secret" >> "$state/sentinel.conf"
    fi
    exec "${REDIS_SERVER:-redis-server}" "$state/sentinel.conf" --sentinel --dir "$state" "$@"
fi

if [ ! -f "$state/redis.conf" ]; then # later it holds which primary Sentinel has set
    printf 'include %s/redis.conf\n' "$config" > "$state/redis.conf"
    [ -z "${REPLICA_OF:-}" ] || printf 'replicaof %s\n' "$REPLICA_OF" >> "$state/redis.conf"
fi
printf 'aclfile %s/users.acl\ndir %s\n' "$state" "$state" > "$state/secrets.conf"
secret=$(password replica)
[ -z "$secret" ] || printf 'masteruser replica\nmasterauth "%s"\n' "$secret" >> "$state/secrets.conf"
exec "${REDIS_SERVER:-redis-server}" "$state/redis.conf" --include "$state/secrets.conf" "$@"
