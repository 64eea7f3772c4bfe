"""Dream: the denoiser, the reward and end model, the dream as a value, and the dream as an environment."""
