#!/usr/bin/env bash
# Build the wheel, install it in a fresh environment, and use it from outside the checkout: without
# a backend, with TensorFlow, and with each backend in whose environment TensorFlow is missing.
#   tests/project/wheel.sh PYTHON [BACKEND=PYTHON ...]    the first has `build`
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m build --outdir "$work/dist" "$root" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
wheel=$(echo "$work"/dist/*.whl)
cp "$root/tests/project/smoke.py" "$work"

for pair in "$@"; do
  backend=${pair%%=*}
  other=$(cd "$root/$(dirname "${pair#*=}")" && pwd)/$(basename "$pair")
  "$other" -m pip install --quiet --no-deps --target "$work/site-packages" --upgrade "$wheel"
  if "$other" -c 'import tensorflow' 2>/dev/null; then
    echo "The environment of $backend must not contain TensorFlow." && exit 1
  fi
  mkdir "$work/on-$backend" && cd "$work/on-$backend"
  KERAS_BACKEND=$backend PYTHONPATH="$work/site-packages" "$other" ../smoke.py
done

"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet "$wheel"
mkdir "$work/on-none" && cd "$work/on-none"
if KERAS_BACKEND=tensorflow "$work/venv/bin/python" -c 'import keras_initkit' 2>error.txt; then
  echo "Without a backend, importing must fail." && exit 1
fi
grep -q "No module named 'tensorflow'" error.txt || { cat error.txt; exit 1; }
"$work/venv/bin/keras-initkit" report "$work/on-jax" -o report.html  # of a log that JAX has written

"$work/venv/bin/python" -m pip install --quiet "$wheel[tensorflow]"
mkdir "$work/on-tensorflow" && cd "$work/on-tensorflow"
"$work/venv/bin/python" -W error::ResourceWarning ../smoke.py
