#!/usr/bin/env bash
# Runs check.py in the root of a checkout: bash tests/gpu/check.sh [arguments of check.py].
# Packages that the machine lacks (gin-config, usually) may lie as wheels in .whl/.
set -u
here=$(cd "$(dirname "$0")" && pwd)
if compgen -G ".whl/*.whl" >/dev/null; then
    site=$(mktemp -d)
    python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" .whl/*.whl || exit
    export PYTHONPATH="$site:${PYTHONPATH:-}"
fi
export PYTHONPATH="$PWD:${PYTHONPATH:-}" PYTHONUNBUFFERED=1
exec "${PYTHON:-python3}" "$here/check.py" --out "${OUT:-gpu-check}" "$@"
