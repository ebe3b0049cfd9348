#!/bin/sh
# Writes requirements.lock: every third-party package with its hashes, for all platforms, without URLs.
set -eu
cd "$(dirname "$0")/.."
uv=$(command -v uv || echo .uv/bin/uv)
inputs="pyproject.toml"
own=""
for file in proto/pyproject.toml services/*/pyproject.toml plugins/*/pyproject.toml; do
    inputs="$inputs $file"
    own="$own --no-emit-package $(sed -n 's/^name = "\(.*\)"/\1/p' "$file" | head -n 1)"
done
# shellcheck disable=SC2086
"$uv" pip compile --quiet --universal --python-version 3.12 --generate-hashes --no-emit-index-url \
    --no-annotate --custom-compile-command 'make lock' --group pyproject.toml:dev \
    $own $inputs --output-file requirements.lock "$@"
