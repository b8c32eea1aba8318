#!/bin/sh
# A new password for users of Redis, in the files that start.sh reads: `make` writes one where there is none, `add` one below the
# old one, `drop` leaves it alone. In place, since a container may have this very file. What is done between `add` and `drop`:
# README.md, "A new password".
#
#   passwords.sh make|add|drop FOLDER USER…
set -eu
umask o=
doing=${1:-} folder=${2:-}
[ "$#" -gt 2 ] || doing=
case $doing in make | add | drop) ;; *) echo "usage: passwords.sh make|add|drop FOLDER USER…" >&2 && exit 2 ;; esac
shift 2

random() {
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
}

if [ "$doing" = make ]; then
    for user in "$@"; do
        [ -s "$folder/$user" ] || random > "$folder/$user"
    done
    exit
fi

refuse() {
    echo "error: $1" >&2
    exit 2
}

# All of them first: who types it again has none that is half-way.
for user in "$@"; do
    file=$folder/$user
    [ -s "$file" ] || refuse "$file: expected a password, got nothing"
    lines=$(grep -c . "$file" || true)
    case $doing-$lines in
        add-1 | drop-[12]) ;;
        *) refuse "$file: expected one password, got $lines: one is being changed, which ends with \`reload\`, the URLs and \`drop\`" ;;
    esac
done

for user in "$@"; do
    file=$folder/$user
    if [ "$doing" = add ]; then
        # Behind the old one, which a full disk doesn't take away then.
        new=$(random)
        [ -z "$(tail -c 1 "$file")" ] || new="
$new"
        printf '%s\n' "$new" >> "$file"
    elif [ "$(grep -c . "$file")" = 2 ]; then
        new=$(grep . "$file" | tail -n 1)
        printf '%s\n' "$new" > "$file"
    fi
done
