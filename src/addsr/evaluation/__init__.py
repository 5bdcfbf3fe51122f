"""Measuring models: what they cost, and what a picture will take."""
