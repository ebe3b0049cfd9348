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
compile() {
    # shellcheck disable=SC2086
    "$uv" pip compile --quiet --universal --python-version 3.12 --generate-hashes --no-emit-index-url \
        --no-annotate --custom-compile-command 'make lock' $own $inputs "$@"
}
compile --group pyproject.toml:dev --output-file requirements.lock "$@"
# The images for a GPU take the same versions, with onnxruntime-gpu in place of onnxruntime.
compile --group pyproject.toml:gpu --override scripts/overrides/gpu.txt --constraint requirements.lock \
    --output-file requirements-gpu.lock
