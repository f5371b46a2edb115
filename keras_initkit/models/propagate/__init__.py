"""Propagation: signals and gradients of a model, predicted from its weights' statistics."""
