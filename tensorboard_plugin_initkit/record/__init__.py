"""Records of a training and the statistics in them: NumPy only."""
