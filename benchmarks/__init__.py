"""Measurements of cost, of verdicts and of sizes: each file is a script."""
