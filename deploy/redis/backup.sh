#!/bin/sh
# Copies what Redis has on its disk, and says what is in a copy.
#
#   backup.sh make STATE_DIR BACKUPS  copy it, while Redis runs, and print the copy's folder
#   backup.sh look BACKUP             say of which moment a copy is, and what it has
#   backup.sh plain STATE_DIR         while Redis is stopped: write it so that any version can read it
#
# REDIS_SERVER, REDIS_CLI  those of the version that wrote it, where they aren't on PATH
set -eu
umask 077

cli() {
    "${REDIS_CLI:-redis-cli}" -s "$private/redis.sock" "$@"
}

begin() { # a server on a folder that nobody else can reach; further words are its options
    folder=$1
    shift
    "${REDIS_SERVER:-redis-server}" --dir "$folder" --port 0 --unixsocket "$private/redis.sock" \
        --appendonly yes --save "" --auto-aof-rewrite-percentage 0 --logfile "$private/log" "$@" &
    server=$!
    until [ "$(cli PING 2> /dev/null)" = PONG ]; do # it reads its files first
        kill -0 "$server" 2> /dev/null || { tail -n 3 "$private/log" >&2; exit 1; }
        sleep 0.1
    done
}

finish() { # whatever happens: no server stays, and nothing half done
    [ -z "$server" ] || { kill "$server" 2> /dev/null && wait "$server"; } || :
    rm -rf ${private:+"$private"} ${linked:+"$linked"} ${copy:+"$copy.part"}
}

is_whole() { # whether the files are there that the manifest in a folder names, but for past ones
    while read -r _ file _ _ _ type _; do
        [ "$type" = h ] || [ -f "$1/$file" ] || return 1
    done < "$1/appendonly.aof.manifest"
}

make() {
    linked=$1/.backup.$$ copy=$2/$(date -u +%Y-%m-%dT%H-%M-%SZ)
    [ -f "$1/appendonlydir/appendonly.aof.manifest" ] || {
        echo "error: $1: expected a folder of Redis's, with an appendonlydir" >&2
        exit 2
    }
    # Redis may end a file and begin another one meanwhile; what is linked stays.
    mkdir "$linked"
    until cp -alf "$1/appendonlydir/." "$linked" && is_whole "$linked"; do
        tries=$((${tries:-0} + 1))
        [ "$tries" -lt 20 ] || exit 1
        rm -f "$linked"/*
        sleep 0.1
    done
    mkdir -p "$copy.part/appendonlydir"
    cp -r "$linked/." "$copy.part/appendonlydir"
    sync
    mv "$copy.part" "$copy"
    echo "$copy"
}

look() {
    private=$(mktemp -d)
    cp -r "$1/appendonlydir" "$private" # a server writes where it reads
    begin "$private"
    events=0 last=0
    for name in $(cli --scan --pattern 'sellfern:*accepted'); do
        events=$((events + $(cli ZCARD "$name")))
    done
    for name in $(cli --scan --pattern 'sellfern:*marker'); do
        at=$(cli HGET "$name" at)
        [ "${at%.*}" -le "$last" ] || last=${at%.*}
    done
    echo "of $(date -u -d "@$last" '+%Y-%m-%d %H:%M:%S UTC'): $events unfinished events, $(cli DBSIZE) keys"
}

plain() {
    private=$(mktemp -d)
    begin "$1" --aof-use-rdb-preamble no
    cli BGREWRITEAOF > /dev/null
    while ! cli INFO persistence | grep -q '^aof_rewrite_in_progress:0'; do sleep 0.1; done
    cli INFO persistence | grep -q '^aof_last_bgrewrite_status:ok'
}

command=${1:-} server=''
trap finish EXIT
trap 'exit 1' HUP INT TERM
case $command:$# in
    make:3 | look:2 | plain:2)
        shift
        "$command" "$@" ;;
    *)
        sed -n '/^#   /s/^#   //p' "$0" >&2
        exit 2 ;;
esac
