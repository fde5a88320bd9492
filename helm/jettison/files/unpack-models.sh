#!/bin/sh
# Unpacks the one archive in /download into MODELS, after its digest was found to be DIGEST.
set -eu
download=${DOWNLOAD:-/download}

fail() {
    printf '%s\n' "jettison: $1" >&2
    exit 1
}

set -- "$download"/*.tar
{ [ $# -eq 1 ] && [ -f "$1" ]; } || fail "models: expected one archive (.tar) in $download, found $# ($*). \
Publish the model repository as one tar file"

if [ "$CHECK_SHA256" = true ]; then
    found="sha256:$(sha256sum "$1" | cut -d ' ' -f 1)"
    [ "$found" = "$DIGEST" ] || fail "models: expected an archive of digest $DIGEST, found $found. \
Set variants.*.digest to the archive that you mean, or upload it again"
fi
tar --extract --file "$1" --directory "$MODELS" --no-same-owner --no-same-permissions ||
    fail "models: $1 is no archive that tar reads. Make it with \`tar -cf models.tar -C REPOSITORY .\`"
printf '%s\n' "jettison: models unpacked to $MODELS"
