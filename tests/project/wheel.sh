#!/usr/bin/env bash
# Build the wheel and use it from outside the checkout: in a fresh environment, first without a
# backend, then with JAX alone; the same with each newer Python that is there; and in the
# environments of other backends.
#   tests/project/wheel.sh PYTHON [BACKEND=PYTHON ...]    the first has `build`
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m build --wheel --outdir "$work/dist" "$root" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
wheel=$(echo "$work"/dist/*.whl)
cp "$root/tests/project/smoke.py" "$work"

install() { # PYTHON WHAT...
  if command -v uv >/dev/null; then
    uv pip install --quiet --python "$@"
  else
    "$1" -m pip install --quiet --no-compile "${@:2}"
  fi
}

use() { # BACKEND PYTHON
  mkdir "$work/on-$1" && cd "$work/on-$1"
  KERAS_BACKEND=$1 "$2" -W error::ResourceWarning ../smoke.py
}

"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --no-compile "$wheel"
cd "$work"
if KERAS_BACKEND=tensorflow "$work/venv/bin/python" -c 'import keras_initkit' 2>error.txt; then
  echo "Without a backend, importing must fail." && exit 1
fi
grep -q "No module named 'tensorflow'" error.txt || { cat error.txt; exit 1; }

install "$work/venv/bin/python" "$wheel[jax]"
use jax "$work/venv/bin/python"
"$work/venv/bin/keras-initkit" report "$work/on-jax" -o report.html

for version in 3.12 3.13; do
  newer=$(ls "$(pyenv root 2>/dev/null)/versions/$version"*/bin/python 2>/dev/null | tail -1 || command -v "python$version" || true)
  if [ -z "$newer" ]; then
    echo "Python $version is not on this machine: the wheel was not tried with it."
    continue
  fi
  "$newer" -m venv "$work/venv-$version"
  install "$work/venv-$version/bin/python" "$wheel[jax]"
  mkdir "$work/with-$version" && cd "$work/with-$version"
  KERAS_BACKEND=jax "$work/venv-$version/bin/python" -W error::ResourceWarning ../smoke.py
done

export PYTHONPATH="$work/site-packages"
for pair in "$@"; do
  other=$root/${pair#*=}
  "$other" -m pip install --quiet --no-compile --no-deps --target "$work/site-packages" --upgrade "$wheel"
  use "${pair%%=*}" "$other"
done
