"""Drawing the weights of a model anew, or right from the start."""
