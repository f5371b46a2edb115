"""The tab "Gradient Flow" of TensorBoard."""
