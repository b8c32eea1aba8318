#!/bin/sh
# Makes the passwords for this example, each once, in secrets/ beside this file.
#
# The secret that Sellfern signs acme's deliveries with goes into secrets/acme by hand.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
sh ../../redis/passwords.sh make secrets ingress worker operator
[ -e secrets/acme ] || printf whsec_to_be_replaced > secrets/acme
cat > secrets/redis.env <<END
REDIS_URL_INGRESS=redis://ingress:$(tail -n 1 secrets/ingress)@sellfern-redis:6379/0
REDIS_URL_WORKER=redis://worker:$(tail -n 1 secrets/worker)@sellfern-redis:6379/0
REDIS_URL_OPERATOR=redis://operator:$(tail -n 1 secrets/operator)@sellfern-redis:6379/0
END
[ -s secrets/console.env ] || {
    sh ../../redis/passwords.sh make secrets console
    printf 'CONSOLE_TOKEN=%s\n' "$(cat secrets/console)" > secrets/console.env
}
echo "secrets/ is there; put Sellfern's secret into secrets/acme"
