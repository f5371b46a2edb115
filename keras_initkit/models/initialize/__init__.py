"""Starting a model where signal and gradient pass its whole depth."""
