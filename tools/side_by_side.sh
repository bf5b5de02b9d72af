#!/usr/bin/env bash
# Run the commands on stdin, one a line, as many at a time as there are processors. The output of each command is printed
# when the command ends. After a failure no further command starts, and this one fails.
# usage: printf '%s\n' COMMAND... | tools/side_by_side.sh
set -euo pipefail

# xargs starts nothing more after a command that ends with 255.
xargs -d '\n' -n 1 -P "$(nproc)" bash -c '
    output=$(bash -euo pipefail -c "$1" 2>&1) && status=0 || status=255
    [ -z "$output" ] || printf "%s\n" "$output"
    [ $status = 0 ] || printf "FAILED: %s\n" "$1" >&2
    exit $status
' side_by_side
