"""The anatomy of a Keras model: layers, weights, graph. The one room that reads layers' insides."""
