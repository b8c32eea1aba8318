#!/bin/sh
# Asks the registries which digest each tag of deploy/images has now, and writes both down: for Compose and the Dockerfile
# into deploy/.env, for kustomize into deploy/kubernetes/pinned. What runs is then these very bytes, until this runs again.
#
#   sh deploy/pin-images.sh
#
# It needs docker with buildx, and the registries. Without them, write the lines by hand: NAME=IMAGE@sha256:DIGEST.
set -eu
images=$(cd "$(dirname "$0")" && pwd)/images
cd "${1:-$(dirname "$0")}"
umask 077
draft=$(mktemp -d)
trap 'rm -rf "$draft"' EXIT

[ ! -e .env ] || grep -v '^[A-Z]*_IMAGE=' .env > "$draft/env" || true
cat > "$draft/kustomization.yaml" <<END
# Made by pin-images.sh
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
images:
END
while read -r name image; do
    case $name in '' | '#'*) continue ;; esac
    digest=$(docker buildx imagetools inspect "$image" --format '{{.Manifest.Digest}}' < /dev/null) || digest=nothing
    expr "$digest" : 'sha256:[0-9a-f]\{64\}$' > /dev/null || {
        echo "error: $image: expected its digest from docker buildx imagetools, got $digest; nothing is written" >&2
        exit 1
    }
    printf '%s=%s@%s\n' "$name" "${image%:*}" "$digest" >> "$draft/env"
    printf '  - { name: %s, digest: "%s" }\n' "${image%:*}" "$digest" >> "$draft/kustomization.yaml"
done < "$images"
mkdir -p kubernetes/pinned
cat "$draft/env" > .env
cat "$draft/kustomization.yaml" > kubernetes/pinned/kustomization.yaml
echo "deploy/.env and deploy/kubernetes/pinned have the digests"
