import importlib.util

# `make test-beam` has an environment with Beam.
collect_ignore = [] if importlib.util.find_spec("apache_beam") else ["test_beam.py"]
