# Everything is set up by the target that needs it, in the virtual environment .venv.
PYTHON ?= python3
# Two processes for two cores, each with whole files, in the order of `tests/conftest.py`.
# Left out are the patterns of `examples-test` but for a few.
PYTEST = -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m 'not pipelines'
TAB = tests/tensorboard_plugin_initkit/tab

# Packages come by uv where it is installed, which takes seconds, and by pip elsewhere, minutes.
# PyTorch comes by pip: its settings can name a place with a build for CPUs, of a tenth of the size.
PIP = $(@D)/bin/python -m pip install --quiet --no-compile
UV := $(shell command -v uv)
INSTALL = $(if $(UV),$(UV) pip install --quiet --python $(@D)/bin/python,$(PIP))

# What tests import is compiled once: processes that begin together would each do it, for 25 s.
unexport PYTHONDONTWRITEBYTECODE
COMPILE = $(@D)/bin/python -m pytest --collect-only -qq >/dev/null

.PHONY: demo test test-tab compile examples-test test-floor test-backends test-beam test-trackers lint measure docs bench wheel-test clean

demo: .venv/ready
	.venv/bin/python examples/textbook.py

test: .venv/ready
	.venv/bin/python $(PYTEST) --ignore $(TAB)

# The tab, in real TensorBoards and a real Chromium: most of it is waiting, so other tests can run
# beside it.
test-tab: .venv/ready
	.venv/bin/python $(PYTEST) $(TAB)

# Beside something else, so that the first tests find it done.
compile: .venv/ready
	.venv/bin/python -m pytest --collect-only -qq >/dev/null

# Trainings in the patterns of Keras's own examples; nothing is fetched. It takes minutes.
examples-test: .venv/ready
	.venv/bin/python -m pytest tests/pipelines

# The oldest versions that are supported, in an environment of their own. Left out is what takes long
# and does not depend on them, what is NumPy alone, and what uses other packages as tests do that
# run here: `make test` runs it.
test-floor: .venv-floor/ready
	.venv-floor/bin/python $(PYTEST) -m 'not slow and not newest and not numpy_alone and not pipelines'

# What depends on the backend, on the others.
test-backends: .venv-jax/ready .venv-torch/ready
	KERAS_BACKEND=jax .venv-jax/bin/python $(PYTEST); jax=$$?; \
	KERAS_BACKEND=torch .venv-torch/bin/python $(PYTEST) && exit $$jax

# Apache Beam, in an environment of its own: it needs an older protobuf.
test-beam: .venv-beam/ready
	.venv-beam/bin/python -m pytest tests/keras_initkit/adapt/test_beam.py

lint: .venv/ready
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

# Sizes, imports and docstrings, held against their bounds.
measure:
	$(PYTHON) -m benchmarks.measure

# The figures of docs/measurements.md but for the GPU's and the demo's; hours on a quiet machine. The
# tables that have a name there are written anew.
bench: .venv/ready .venv-jax/ready .venv-torch/ready
	.venv/bin/python benchmarks/import_time.py
	.venv/bin/python -m benchmarks.monitor_overhead --write
	.venv/bin/python -m benchmarks.monitor_overhead --write --peers --models mlp
	KERAS_BACKEND=jax .venv-jax/bin/python -m benchmarks.monitor_overhead --write
	KERAS_BACKEND=torch .venv-torch/bin/python -m benchmarks.monitor_overhead --write
	.venv/bin/python -m benchmarks.first_steps --write
	KERAS_BACKEND=jax .venv-jax/bin/python -m benchmarks.first_steps --write
	.venv/bin/python benchmarks/log.py
	.venv/bin/python -m benchmarks.judging --write
	.venv/bin/python -m benchmarks.judging --write --every-step --layers 20 200
	.venv/bin/python benchmarks/normalization.py
	.venv/bin/python benchmarks/initialization.py
	.venv/bin/python benchmarks/orthogonal.py
	.venv/bin/python -m benchmarks.normalization_peers
	.venv/bin/python -m benchmarks.tab
	.venv/bin/python -m benchmarks.kill_and_resume

# Trackers of experiments, offline, in an environment of their own.
test-trackers: .venv-trackers/ready
	KERAS_BACKEND=jax .venv-trackers/bin/python tests/project/trackers.py

# The wheel as a user gets it: built, installed outside the checkout, used.
wheel-test: .venv/ready .venv-torch/ready
	tests/project/wheel.sh .venv/bin/python tensorflow=.venv/bin/python torch=.venv-torch/bin/python

# The documentation as a site, in build/site; the tutorials are run for it.
docs: .venv/ready
	NO_MKDOCS_2_WARNING=1 JUPYTER_PLATFORM_DIRS=1 .venv/bin/mkdocs build --quiet

clean:
	rm -rf .venv .venv-* build dist runs *.egg-info

.venv/ready: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(INSTALL) --editable '.[dev]'
	touch $@

.venv-floor/ready: setup.cfg pyproject.toml tests/floor.txt
	$(PYTHON) -m venv .venv-floor
	$(INSTALL) --editable '.[tensorflow,test]' --constraint tests/floor.txt
	$(COMPILE)
	touch $@

.venv-beam/ready: setup.cfg pyproject.toml tests/beam.txt
	$(PYTHON) -m venv .venv-beam
	$(INSTALL) --editable '.[tensorflow,beam]' pytest --constraint tests/beam.txt
	touch $@

.venv-trackers/ready: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv-trackers
	$(INSTALL) --editable '.[jax,trackers]'
	touch $@

.venv-jax/ready: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv-jax
	$(INSTALL) --editable '.[test,jax]'
	KERAS_BACKEND=jax $(COMPILE)
	touch $@

.venv-torch/torch: tests/torch.txt
	$(PYTHON) -m venv .venv-torch
	$(PIP) --constraint tests/torch.txt torch
	touch $@

.venv-torch/ready: .venv-torch/torch setup.cfg pyproject.toml
	$(INSTALL) --editable '.[test,torch]' --constraint tests/torch.txt
	KERAS_BACKEND=torch $(COMPILE)
	touch $@
