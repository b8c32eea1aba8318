#!/bin/sh
# Makes rules.yaml beside this file: the alerts, as they stand in deploy/prometheus/alerts.yml, for the Prometheus Operator.
set -eu
cd "$(dirname "$0")"
{
    cat <<END
# Made by rules.sh
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: sellfern
spec:
END
    sed 's/^\(.\)/  \1/' ../../../prometheus/alerts.yml
} > rules.yaml.new
mv rules.yaml.new rules.yaml
echo "rules.yaml has the alerts"
