#!/bin/sh
# Refuses a model repository that is not, file by file, the one whose SHA256SUMS has the digest DIGEST.
set -eu

fail() {
    printf '%s\n' "jettison: $1" >&2
    exit 1
}

cd "$MODELS" || fail "models in $MODELS: there is no such folder. Correct variants.*.path, or the volume"
[ -f SHA256SUMS ] || fail "models in $MODELS: there is no SHA256SUMS. Make it (docs/deploying.md, Digests), \
or set model.verify.sha256 to false"

found="sha256:$(sha256sum SHA256SUMS | cut -d ' ' -f 1)"
[ "$found" = "$DIGEST" ] || fail "models in $MODELS: expected SHA256SUMS of digest $DIGEST, found $found. \
Set variants.*.digest to the repository that you mean, or bring that repository to the node"

sha256sum --check --strict --quiet SHA256SUMS ||
    fail "models in $MODELS: files above differ from SHA256SUMS. Copy the repository again"

sed 's/^[^ ]*[ *]*//; s|^\./||' SHA256SUMS | sort > /tmp/listed
find . -type f -o -type l | sed 's|^\./||' | grep -vx SHA256SUMS | sort > /tmp/there
extra=$(comm -13 /tmp/listed /tmp/there | head -n 3)
[ -z "$extra" ] || fail "models in $MODELS: files that SHA256SUMS does not name: $extra. Remove them"
printf '%s\n' "jettison: models in $MODELS are those of $DIGEST"
