"""Networks, each in a size from compact to Stable Diffusion 2."""
