"""How a model gets from its first latents to the last: one sampler a file.

A sampler holds numbers alone; what its `sample` gives depends on its arguments and nothing else.
"""
