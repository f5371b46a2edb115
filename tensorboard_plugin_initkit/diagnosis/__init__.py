"""Diagnosis: what is wrong with a training, by pure rules on its record."""
