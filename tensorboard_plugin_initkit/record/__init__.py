"""What is recorded of a training, and what is wrong with it: NumPy only."""
