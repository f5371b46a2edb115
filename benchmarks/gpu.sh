#!/usr/bin/env bash
# Measure the monitor's cost on a GPU: see gpu.py. Needed are Python with JAX or PyTorch, and Keras.
#
#   benchmarks/gpu.sh [--wheels FOLDER] [OPTIONS OF gpu.py]
#
# Without a network, packages that are missing travel as wheels in a folder. Beside the framework and
# NumPy these are what Keras and the monitor's log import:
#   pip download --no-deps -d FOLDER keras absl-py h5py ml-dtypes namex optree packaging rich \
#     typing-extensions google-crc32c protobuf tensorboard
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
# In a checkout that is not installed, this is where the callbacks are imported from.
[ -e keras_initkit/callbacks ] || ln -s ../callbacks keras_initkit/callbacks
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
if [ "${1:-}" = --wheels ]; then
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$python" -m pip install -q --no-index --no-deps --no-compile --target "$site" "$2"/*.whl
  export PYTHONPATH=$PYTHONPATH:$site
  shift 2
fi
"$python" -m benchmarks.gpu "$@"
