#!/bin/sh
# In the Dockerfile: puts packages into the image's Python, with the uv that lies beside this script.
#     into_image.sh NAME.txt        the packages of that cut of the lock, by their hashes
#     into_image.sh MEMBER...       our own wheels
# Everything is compiled here and now: a container with a read-only root cannot keep what Python compiles.
set -eu
here=$(dirname "$0")
install() {
    UV_CACHE_DIR=${UV_CACHE_DIR:-/cache/uv} UV_SYSTEM_CERTS=1 UV_LINK_MODE=copy \
        "$here/uv" pip install --quiet --system --no-deps --compile-bytecode "$@"
}
case $1 in
*.txt) install --require-hashes -r "$here/$1" ;;
*)
    wheels=""
    for member in "$@"; do wheels="$wheels $(echo "$here/$member"-*.whl)"; done
    # shellcheck disable=SC2086
    install $wheels
    ;;
esac
