#!/usr/bin/env bash
# Run one stage of make test. Its outcome, its time and the CPU time of its processes become a line of the file STAGES/NAME.
# usage: STAGES=FOLDER tools/stage.sh NAME COMMAND [ARGUMENT...]
set -euo pipefail

name=$1
echo "== $name"
"${@:2}" && status=0 || status=$?
[ $status = 0 ] && outcome=passed || outcome=FAILED
times >"$STAGES/$name"
cpu=$(awk -F '[ms ]' 'NR == 2 {print int($1 * 60 + $2 + $4 * 60 + $5)}' "$STAGES/$name")
printf '%-8s %-14s %2d min %02d s  CPU %4d s\n' $outcome "$name" $((SECONDS / 60)) $((SECONDS % 60)) "$cpu" >"$STAGES/$name"
exit $status
