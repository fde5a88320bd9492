#!/bin/sh
# A kind cluster with a registry of its own, and the chart's CPU preset in it, from a model repository.
# Usage: deploy/kind/up.sh MODEL_REPOSITORY      (remove it all: deploy/kind/up.sh --down)
# Needs docker, kind, kubectl and helm.
set -eu

CLUSTER=jettison
REGISTRY=jettison-registry
# The node's image decides the version of Kubernetes; kind's own default without it.
NODE_IMAGE=${NODE_IMAGE:-}
PORT=${PORT:-5001}
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)

fail() {
    printf '%s\n' "up.sh: $1" >&2
    exit 1
}

need() {
    command -v "$1" > /dev/null || fail "expected the program $1, found none. Install it: $2"
}

down() {
    kind delete cluster --name "$CLUSTER"
    docker rm --force "$REGISTRY" > /dev/null 2>&1 || true
}

registry() {
    docker start "$REGISTRY" > /dev/null 2>&1 ||
        docker run --detach --restart=always --publish "127.0.0.1:$PORT:5000" --name "$REGISTRY" registry:2
}

# Nodes find the registry under the name by which this machine does.
# Source: https://kind.sigs.k8s.io/docs/user/local-registry/
cluster() {
    if ! kind get clusters | grep -qx "$CLUSTER"; then
        kind create cluster --name "$CLUSTER" --wait 120s ${NODE_IMAGE:+--image "$NODE_IMAGE"}
    fi
    for node in $(kind get nodes --name "$CLUSTER"); do
        hosts=/etc/containerd/certs.d/localhost:$PORT
        docker exec "$node" mkdir -p "$hosts"
        printf '[host."http://%s:5000"]\n' "$REGISTRY" | docker exec -i "$node" cp /dev/stdin "$hosts/hosts.toml"
    done
    docker network connect kind "$REGISTRY" 2> /dev/null || true
}

# Prints the digest of the image with the models.
push_models() {
    image=localhost:$PORT/models:1
    printf 'FROM busybox\nCOPY . /models\n' | docker build --quiet --tag "$image" --file - "$1" > /dev/null
    docker push --quiet "$image" > /dev/null
    docker inspect --format '{{index .RepoDigests 0}}' "$image" | cut -d @ -f 2
}

install() {
    helm upgrade try "$root/helm/jettison" --install --namespace models --create-namespace \
        --kube-context "kind-$CLUSTER" --values "$root/deploy/edge/cpu.yaml" \
        --set "model.source.image.repository=localhost:$PORT/models" --set "variants.baseline.digest=$1" \
        --set "model.critical=$2" --set "model.names={$2}" --wait --timeout 10m
    helm test try --namespace models --kube-context "kind-$CLUSTER" --logs
}

need docker https://docs.docker.com/engine/install/
need kind https://kind.sigs.k8s.io/docs/user/quick-start/
if [ "${1:-}" = --down ]; then
    down
    exit 0
fi
need kubectl https://kubernetes.io/docs/tasks/tools/
need helm https://helm.sh/docs/intro/install/
[ -d "${1:-}" ] || fail "expected a model repository, found '${1:-}'. Make one: make demo, or jettison publish"
models=$(CDPATH='' cd -- "$1" && pwd)
critical=$(find "$models" -mindepth 2 -maxdepth 2 -name config.pbtxt | sort | head -n 1)
[ -n "$critical" ] || fail "models in $models: expected MODEL/config.pbtxt, found none. Name the folder above the models"

registry
cluster
digest=$(push_models "$models")
install "$digest" "$(basename "$(dirname "$critical")")"
kubectl --context "kind-$CLUSTER" --namespace models get pods
