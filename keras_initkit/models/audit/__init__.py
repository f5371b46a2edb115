"""Audit: what is wrong with the weights that a model starts from, and what to write instead."""
