"""From a photo to the words and tokens that condition a Stable-Diffusion-size model."""
