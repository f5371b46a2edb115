"""Measures of gradients and activations: pure functions on arrays."""
