"""Measures: what is computed of gradients and activations, as pure functions on arrays."""
