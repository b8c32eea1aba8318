#!/bin/sh
# Lays out /etc/sellfern for the units beside this file: passwords, settings and an example of endpoints, each once; Redis's rules and
# scripts, and the URLs with the last line of each password's file, at each run.
#
#   files.sh [FOLDER]
#
# By hand goes into /etc/sellfern/acme what Sellfern signs acme's deliveries with. Each file is for root and for the group of the one
# program that needs it.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-/etc/sellfern}
umask 027
mkdir -p "$folder/redis" "$folder/passwords"
cd "$folder"

[ -e redis/redis.conf ] || cp "$here/redis/redis.conf" redis
for file in users.acl start.sh passwords.sh backup.sh; do
    cp "$here/redis/$file" redis
done
sh redis/passwords.sh make passwords ingress worker operator
for user in ingress worker operator; do
    printf 'redis://%s:%s@127.0.0.1:6379/0\n' "$user" "$(tail -n 1 "passwords/$user")" > "url-$user"
done

[ -e endpoints.toml ] || cat > endpoints.toml <<END
# An example to start from: one endpoint, whose secret stands in a file beside this one.

[[endpoint]]
id = "acme"
organization_id = "org_123"
secrets = [{ file = "acme" }]
END
[ -e acme ] || echo whsec_to_be_replaced > acme

settings() { # for a program that is a user of Redis
    printf '%s\n' "ENDPOINTS_FILE=$folder/endpoints.toml" "REDIS_URL_FILE=$folder/url-$1"
}
# INGRESS_HOST=0.0.0.0 lets others in than a proxy on this machine.
[ -e ingress.env ] || settings ingress > ingress.env
[ -e worker.env ] || settings worker > worker.env
[ -e console.env ] || {
    sh redis/passwords.sh make . console-token
    settings operator && echo "CONSOLE_TOKEN_FILE=$folder/console-token"
} > console.env
# One by an earlier version has the URL itself: its program would be refused once the old password has gone.
for each in ingress-ingress worker-worker console-operator; do
    grep -q "^REDIS_URL_FILE=" "${each%-*}.env" ||
        echo "warning: $folder/${each%-*}.env: expected REDIS_URL_FILE=$folder/url-${each#*-}, or its program hears of no new password" >&2
done

chgrp sellfern . endpoints.toml
chgrp -R sellfern-redis redis passwords
chgrp sellfern-ingress acme url-ingress ingress.env
chgrp sellfern-worker url-worker worker.env
chgrp sellfern-console url-operator console*
echo "$folder is there; put Sellfern's secret into $folder/acme"
