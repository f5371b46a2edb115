"""Tests of starting whole models."""
