"""Functions on whole models, one room each."""
