#!/usr/bin/env bash
# Run one stage of make test. Its outcome and time become a line of the file STAGES/NAME.
# usage: STAGES=FOLDER tools/stage.sh NAME COMMAND [ARGUMENT...]
set -euo pipefail

name=$1
echo "== $name"
"${@:2}" && status=0 || status=$?
[ $status = 0 ] && outcome=passed || outcome=FAILED
printf '%-8s %-14s %2d min %02d s\n' $outcome "$name" $((SECONDS / 60)) $((SECONDS % 60)) >"$STAGES/$name"
exit $status
