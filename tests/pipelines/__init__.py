"""Small trainings in the patterns of Keras's examples: a file a family, tested in one table."""
