"""Connectivity: the inputs and outputs connected by a weight, and its fans."""
