"""Diagnosis: the faults of a training, by pure rules on its history."""
