"""The training loop, its tasks and presets."""
