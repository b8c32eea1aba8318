#!/bin/sh
# A new password for users of Redis, in the files that start.sh reads: `add` writes it below the old one, `drop` leaves it
# alone. In place, since a container may have this very file. What is done in between: README.md, "A new password".
#
#   passwords.sh add|drop FOLDER USER…
set -eu
umask 077
doing=${1:-} folder=${2:-}
case $doing in add | drop) ;; *) echo "usage: passwords.sh add|drop FOLDER USER…" >&2 && exit 2 ;; esac
shift 2
for user in "$@"; do
    file=$folder/$user
    [ -s "$file" ] || { echo "error: $file: expected a password, got nothing" >&2 && exit 2; }
    lines=$(grep -c . "$file")
    case $doing-$lines in
        add-1) text="$(grep . "$file")
$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')" ;;
        drop-2) text=$(grep . "$file" | tail -n 1) ;;
        drop-1) continue ;;
        *) echo "error: $file: expected one password, got $lines: \`drop\` leaves the last one" >&2 && exit 2 ;;
    esac
    printf '%s\n' "$text" > "$file"
done
