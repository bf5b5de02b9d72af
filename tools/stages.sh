#!/usr/bin/env bash
# Run stages of make test, two at a time: some of them wait more than they compute. A stage that fails stops only those
# that need it. In the end there is a line for each stage, and a verdict.
# usage: tools/stages.sh STAGE...
set -euo pipefail
cd "$(dirname "$0")/.."

export STAGES=$PWD/build/stages
rm -rf "$STAGES"
mkdir -p "$STAGES"
make -s -k -j 2 --output-sync=target "${@/%/.stage}" || true

failed=0
echo "== make test"
for name; do
    line=$(cat "$STAGES/$name" 2>/dev/null) || line="NOT RUN  $name"
    echo "$line"
    [[ $line == passed* ]] || failed=$((failed + 1))
done
if [ $failed = 0 ]; then
    echo "All $# stages passed."
else
    echo "$failed of $# stages did not pass."
    exit 1
fi
