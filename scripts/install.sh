#!/bin/sh
# Makes .venv in the root of the checkout: every pinned dependency, then this workspace's own packages,
# editable. Needs any Python with pip, or uv; finds or fetches Python 3.12 or 3.13 itself.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'install: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# Trust what the system trusts: behind a company's proxy that is more than uv brings along.
if [ -f /etc/ssl/certs/ca-certificates.crt ]; then
    export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-1}" UV_NATIVE_TLS="${UV_NATIVE_TLS:-1}"
fi

members="proto $(ls -d services/*/ plugins/*/ | sed 's,/$,,' | while read -r d; do [ -f "$d/pyproject.toml" ] && echo "$d"; done)"
# Unchanged since the last time? Then there is nothing to do.
state=$(for m in $members; do echo "$m"; done | cat - requirements.lock scripts/install.sh \
        $(for m in $members; do echo "$m/pyproject.toml"; done) | cksum)
if [ -x .venv/bin/gripwire ] && [ "$(cat .venv/installed 2>/dev/null)" = "$state" ]; then exit 0; fi

find_uv() {
    if command -v uv >/dev/null 2>&1 && uv --version >/dev/null 2>&1; then command -v uv; return; fi
    if [ -x .uv/bin/uv ]; then echo .uv/bin/uv; return; fi
    say "no uv here: fetching it into .uv/ with pip"
    for python in python3 python; do
        # --target needs no venv module and touches nothing outside this folder.
        if "$python" -m pip --version >/dev/null 2>&1; then
            "$python" -m pip install -qq --disable-pip-version-check --root-user-action=ignore \
                --upgrade --target .uv uv >&2 && { echo .uv/bin/uv; return; }
        fi
    done
    die "neither uv nor a Python with pip was found: install one of them (Debian: apt install python3-pip)"
}

usable() { "$1" -c 'import sys; sys.exit(not (3, 12) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; }

find_python() {
    for python in python3.12 python3.13 python3; do
        path=$(command -v "$python" 2>/dev/null) && usable "$path" && { echo "$path"; return; }
    done
    # pyenv shows on PATH only the version that is switched on; the others stand in its folder.
    for root in "${PYENV_ROOT:-}" "$HOME/.pyenv" /opt/pyenv /usr/local/pyenv "$(pyenv root 2>/dev/null || true)"; do
        [ -n "$root" ] || continue
        for path in "$root"/versions/3.12*/bin/python "$root"/versions/3.13*/bin/python; do
            [ -x "$path" ] && usable "$path" && { echo "$path"; return; }
        done
    done
    path=$("$uv" python find '>=3.12,<3.14' 2>/dev/null) && usable "$path" && { echo "$path"; return; }
    say "no Python 3.12 or 3.13 here: fetching one"
    "$uv" python install --quiet 3.12 >&2 && "$uv" python find 3.12 && return
    die "no Python 3.12 or 3.13 was found and none could be fetched: install one (with pyenv, uv or your system)"
}

uv=$(find_uv)
python=$(find_python)
say "using $("$uv" --version) and $("$python" --version) from $python"
if ! { [ -x .venv/bin/python ] && usable .venv/bin/python; }; then
    "$uv" venv --quiet --clear --python "$python" .venv
fi
say "installing $(grep -c '==' requirements.lock) pinned packages into .venv (a few minutes the first time)"
"$uv" pip sync --quiet --python .venv/bin/python --require-hashes requirements.lock
editable=""
for m in $members; do editable="$editable -e $m"; done
# shellcheck disable=SC2086
"$uv" pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation $editable
echo "$state" > .venv/installed
say "done: .venv/bin/gripwire $(.venv/bin/gripwire --version | cut -d' ' -f2)"
