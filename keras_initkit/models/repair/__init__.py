"""Repairs of models: what the fixes of findings change."""
