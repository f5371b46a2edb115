"""Normalization around a model that exists."""
