#!/bin/sh
# Waits until the Job has built this target's engines: its repository appears as a whole.
set -eu
waited=0
while [ ! -d "$REPOSITORY" ]; do
    if [ "$waited" -ge "$TIMEOUT_S" ]; then
        printf '%s\n' "jettison: engines of target $TARGET: expected $REPOSITORY within $TIMEOUT_S s, and it is \
not there. Look at the Job: kubectl logs -l app.kubernetes.io/component=engine" >&2
        exit 1
    fi
    sleep 5
    waited=$((waited + 5))
done
printf '%s\n' "jettison: engines of target $TARGET are there"
