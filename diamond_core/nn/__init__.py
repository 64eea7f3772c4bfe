"""Parts without opinions: convolutions, norms, attention, residual blocks and the U-Net."""
