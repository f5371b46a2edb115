"""What is shown of a record, computed: NumPy only."""
