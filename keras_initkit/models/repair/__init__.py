"""Repairs of models: the changes of fixes."""
