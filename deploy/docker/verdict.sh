#!/bin/sh
# `jettison ab serve` where nothing else of Jettison can run: this image has no model library.
set -eu
if [ "${1-} ${2-}" = "ab serve" ]; then
    shift 2
    exec python3 -m jettison.cli.verdict "$@"
fi
echo "jettison in the verdict image: expected \`ab serve\`, found \`$*\`. Use the builder image for other verbs" >&2
exit 2
