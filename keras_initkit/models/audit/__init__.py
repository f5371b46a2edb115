"""Audit: the faults of the weights from which a model starts, and their fixes."""
