"""Connectivity: which inputs a weight connects to which outputs, and the fans that follow."""
