"""The anatomy of a Keras model: layers, weights, graph. Only this room reads layers' insides."""
