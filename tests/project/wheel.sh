#!/usr/bin/env bash
# Build the wheel, install it in a fresh environment, and use it from outside the checkout.
#   tests/project/wheel.sh PYTHON    a Python that has `build`
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m build --outdir "$work/dist" "$root" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet "$work"/dist/*.whl
cp "$root/tests/project/smoke.py" "$work"
cd "$work"
"$work/venv/bin/python" -W error::ResourceWarning smoke.py
