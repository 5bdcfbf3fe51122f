"""How a model gets from its first latents to the last: one sampler a file, each a pure function of its arguments."""
