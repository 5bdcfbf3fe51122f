"""Adversaries for training."""
