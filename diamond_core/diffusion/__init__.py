"""Diffusion by Karras et al. 2022 (EDM): preconditioning, noise levels, samplers. Knows neither games nor actions."""
