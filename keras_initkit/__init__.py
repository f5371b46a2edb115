"""Start Keras networks right, and see what their gradients do."""

__version__ = "0.1.0"
