#!/usr/bin/env bash
# Run numcodecs' own tests of gzip and zlib, and zarr's own tests of codecs, with this package serving both ids. All pass:
# there is no list of exceptions. On Python 3.11 and on the newest Python here, each with the newest zarr and numcodecs that
# it gets, from the wheels that make wheel built. zarr's tests are in its sdist. numcodecs 0.16, the last version for Python
# 3.11, installs its tests; 0.17 does not.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

# zarr's tests that make or configure codecs. Those of pipelines are new since zarr 3.1.6.
zarrs=(test_codecs/ test_v2.py test_buffer.py test_config.py test_codec_entrypoints.py 'test_*pipeline*.py')

run() { # a title, a folder with the tests, and arguments of pytest
    echo "== $1"
    # zarr's own addopts are options of plugins that are not needed here.
    (cd "$2" && PYTHONPATH=$root/tools "$venv/bin/python" -m pytest -q -o addopts= -p upstream_plugin "${@:3}")
}

while read -r version python; do
    venv=$root/.venv-upstream-$version
    rm -rf "$venv"
    PYTHON=$python tools/install.sh "$venv" "$(echo dist/*-cp"${version/./}"-*.whl)[zarr]" \
        hypothesis pytest pytest-asyncio pytest-benchmark
    zarr=$("$venv/bin/python" -c 'import importlib.metadata as m; print("zarr-" + m.version("zarr"))')
    "$venv/bin/pip" download -q --disable-pip-version-check --no-binary zarr --no-deps -d "$venv" "${zarr/-/==}"
    tar -xzf "$venv/$zarr.tar.gz" -C "$venv"

    if [ "$version" = 3.11 ]; then
        run "Python $version, numcodecs' tests of gzip and zlib" "$venv" -c /dev/null --rootdir=. -p no:asyncio \
            -p numcodecs_qpl.enabled --pyargs numcodecs.tests.test_gzip numcodecs.tests.test_zlib
    fi
    files=$(cd "$venv/$zarr/tests" && shopt -s nullglob && printf 'tests/%s ' ${zarrs[*]})
    run "Python $version, $zarr's tests of codecs" "$venv/$zarr" -p numcodecs_qpl.enabled $files
    # The tests that make gzip by its name and so through zarr's registry: in zarr 3.1.6, benchmarks that run as tests.
    by_name=(tests/test_codec_pipeline_suite.py)
    [ -e "$venv/$zarr/${by_name[0]}" ] || by_name=(--benchmark-disable tests/benchmarks/test_e2e.py -k "gzip and memory")
    ZARR_CODECS__GZIP=numcodecs_qpl.zarr.GzipCodec run "Python $version, $zarr's gzip chosen by the environment" \
        "$venv/$zarr" "${by_name[@]}"
done < <(tools/pythons.sh | sed -n '1p; 1!{$p}')
