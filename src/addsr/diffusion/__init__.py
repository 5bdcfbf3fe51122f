"""Schedule, noise and sampler as pure functions, and the Restorer that runs networks through them."""
