#!/bin/sh
# Builds Jaeger (the version pinned in tests/live/jaeger/go.mod) where it is not built yet, and runs
# it in memory on loopback until it is stopped. JAEGER_BIN: a binary to use instead; ports by
# JAEGER_UI_PORT, JAEGER_QUERY_PORT, OTLP_GRPC_PORT and OTLP_HTTP_PORT (see config.yaml).
# --build: build only, and print the path of the binary.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
module="$here/../../tests/live/jaeger"
bin=${JAEGER_BIN:-${XDG_CACHE_HOME:-$HOME/.cache}/latdiag/jaeger-1.76.0}
if [ ! -x "$bin" ]; then
    command -v go > /dev/null || { echo "Go 1.24 or newer is needed, or a binary: JAEGER_BIN=PATH" >&2; exit 1; }
    echo "building Jaeger once, in $bin: minutes of CPU, and some 2 GB of Go's caches" >&2
    mkdir -p "$(dirname "$bin")"
    nice go build -C "$module" -p "${JAEGER_BUILD_JOBS:-1}" -o "$bin" github.com/jaegertracing/jaeger/cmd/jaeger
fi
if [ "${1:-}" = --build ]; then
    echo "$bin"
    exit 0
fi
exec "$bin" --config "$here/config.yaml"
