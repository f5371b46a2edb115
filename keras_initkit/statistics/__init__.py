"""Statistics in one pass: pure NumPy."""
