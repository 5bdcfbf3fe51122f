"""Photos, degradation and training pairs."""
