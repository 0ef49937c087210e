#!/bin/sh
# Builds model_store/*.mar, the archives that TorchServe loads:  ./archive.sh [demo|PATH] [MODEL...] [options]
# See: segserve archive --help
set -eu
cd "$(dirname "$0")"
if [ -x .venv/bin/segserve ]; then
    exec .venv/bin/segserve archive "$@"
fi
exec segserve archive "$@"
