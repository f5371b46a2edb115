"""Trials of fixes on copies of a model."""
