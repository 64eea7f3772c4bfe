"""The denoiser: a U-Net that draws the next frame from noise, past frames and past actions. Source: SPEC 2."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diamond_core.config import DenoiserConfig, DenoisingConfig
from diamond_core.diffusion.noise import training_sigmas
from diamond_core.diffusion.precondition import Conditioners, conditioners, per_image
from diamond_core.nn.blocks import FourierFeatures, GroupNorm, conv3x3
from diamond_core.nn.unet import UNet
from diamond_core.pixels import quantize, to_unit
from diamond_core.types import Batch

GUESSED_AT = 5.0
"""The noise level at which a sampler begins."""


class InnerModel(nn.Module):
    """F: the network inside the preconditioning."""

    def __init__(self, config: DenoiserConfig, num_actions: int, image_channels: int) -> None:
        super().__init__()
        k, cond = config.num_conditioning_frames, config.cond_channels
        m = config.num_conditioning_actions or k
        if not 0 < m <= k:
            raise ValueError(f"expected 1 to {k} conditioning actions, as many as there are frames, got {m}")
        if cond % m or cond % 2:
            raise ValueError(f"cond_channels must be even and divide by the {m} conditioning actions, got {cond}")
        self.noise_emb = FourierFeatures(cond)
        self.act_emb = ActionEmbedding(nn.Embedding(num_actions, cond // m), nn.Flatten(), m)
        self.cond_proj = nn.Sequential(nn.Linear(cond, cond), nn.SiLU(), nn.Linear(cond, cond))
        self.conv_in = conv3x3((k + 1) * image_channels, config.channels[0])
        self.unet = UNet(config.channels, config.depths, cond, config.attention)
        self.norm_out = GroupNorm(config.channels[0])
        self.conv_out = conv3x3(config.channels[0], image_channels)
        nn.init.zeros_(self.conv_out.weight)

    def forward(self, noisy: Tensor, c_noise: Tensor, frames: Tensor, actions: Tensor) -> Tensor:
        """noisy (b, c, h, w), c_noise (b,), frames (b, k*c, h, w), actions (b, k) -> (b, c, h, w)."""
        return self.body(noisy, frames, self.cond_proj(self.noise_emb(c_noise) + self.act_emb(actions)))

    def body(self, noisy: Tensor, frames: Tensor, cond: Tensor) -> Tensor:
        """The same behind the conditioning (b, cond_channels)."""
        x = self.conv_in(torch.cat([frames, noisy], dim=1))
        x = self.unet(x, cond)
        return self.conv_out(F.silu(self.norm_out(x)))


class ActionEmbedding(nn.Sequential):
    """The newest of the actions (b, k), as many as there is room for -> (b, cond_channels)."""

    def __init__(self, table: nn.Embedding, flatten: nn.Flatten, newest: int) -> None:
        super().__init__(table, flatten)
        self.newest = newest

    def forward(self, actions: Tensor) -> Tensor:
        """See the class."""
        return super().forward(actions[:, -self.newest:])


class DenoisingNoise(NamedTuple):
    """The random numbers of one term of the training loss."""

    log_sigma: Tensor
    """(b,) standard normal."""
    offset: Tensor
    """(b, c, 1, 1) standard normal."""
    pixels: Tensor
    """(b, c, h, w) standard normal."""


class Denoiser(nn.Module):
    """D: the preconditioned, clamped and quantised denoiser."""

    def __init__(self, config: DenoiserConfig, num_actions: int, image_channels: int = 3) -> None:
        super().__init__()
        self.config = config
        self.num_actions = num_actions
        self.inner_model = InnerModel(config, num_actions, image_channels)

    def conditioners(self, sigma: Tensor) -> Conditioners:
        """The preconditioning scalars of sigma (b,)."""
        return conditioners(sigma, self.config.sigma_data, self.config.sigma_offset_noise)

    def model_output(self, x: Tensor, c: Conditioners, frames: Tensor, actions: Tensor) -> Tensor:
        """F at a noisy image x (b, c, h, w), with past frames (b, k, c, h, w) in [-1, 1] and actions (b, k)."""
        past = frames.flatten(1, 2) / self.config.sigma_data
        return self.inner_model(x * per_image(c.c_in), c.c_noise, past, actions).float()

    def forward(self, x: Tensor, sigma: Tensor, frames: Tensor, actions: Tensor) -> Tensor:
        """D(x): the clean image, quantised to byte levels. Shapes as in `model_output`; sigma (b,)."""
        c = self.conditioners(sigma)
        return self.wrap(x, self.model_output(x, c, frames, actions), c)

    @staticmethod
    def wrap(x: Tensor, output: Tensor, c: Conditioners) -> Tensor:
        """c_skip x + c_out F, clamped and quantised."""
        return quantize(per_image(c.c_skip) * x + per_image(c.c_out) * output)


def pixel_weights(frames: Tensor, mask: Tensor, motion: float, objects: float) -> Tensor:
    """frames (b, t, c, h, w) in [-1, 1], of the steps in mask (b, t) -> (b, 1, h, w): what moves in the segment counts
    more than 1, and so does what stands out from the batch's median frame, be it at rest.

    In a plain mean over pixels a ball of a few pixels weighs nothing beside the background, and is forgotten.
    """
    # the final observation is there, too; what is padded is not, or all would move where an episode begins
    there = (mask | F.pad(mask[:, :-1], (1, 0)))[:, :, None, None, None]
    moves = differs(frames.diff(dim=1) * (there[:, 1:] & there[:, :-1]))
    stands_out = differs((frames - frames.flatten(0, 1).median(dim=0).values) * there)
    return 1 + motion * moves + objects * stands_out


def differs(differences: Tensor, threshold: float = 0.05) -> Tensor:
    """differences (b, t, c, h, w) -> (b, 1, h, w): 1 where one of them, or a neighbour's, is beyond the threshold."""
    beyond = (differences.abs().amax(dim=(1, 2)) > threshold).float()
    return F.max_pool2d(beyond[:, None], kernel_size=3, stride=1, padding=1)


def denoising_loss(denoiser: Denoiser, batch: Batch, config: DenoisingConfig,
                   noise: list[DenoisingNoise] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean denoising error of the frames behind the context; each term sees the model's own earlier frames.

    batch holds k + R frames and yields R terms; `noise` fixes the random numbers of each term (for tests).
    """
    k = denoiser.config.num_conditioning_frames
    frames = to_unit(batch.frames)
    weighted = config.motion_weight or config.object_weight or config.error_weight
    weights = pixel_weights(frames, batch.mask, config.motion_weight, config.object_weight) if weighted else None
    losses = []
    for i in range(frames.shape[1] - k):
        target, past, actions = frames[:, k + i], frames[:, i:k + i], batch.actions[:, i:k + i]
        if config.context_noise:
            past = blotched(past, config.context_noise)
        z = noise[i] if noise is not None else draw_noise(target)
        sigma = training_sigmas(z.log_sigma, config.log_sigma_mean, config.log_sigma_std, config.sigma_min,
                                config.sigma_max)
        clean = faded(denoiser, target, past, actions, config.guess_share) if config.guess_share else target
        noisy = clean + denoiser.config.sigma_offset_noise * z.offset + per_image(sigma) * z.pixels
        c = denoiser.conditioners(sigma)
        output = denoiser.model_output(noisy, c, past, actions)
        error = (output - (target - per_image(c.c_skip) * noisy) / per_image(c.c_out)) ** 2
        own = denoiser.wrap(noisy, output.detach(), c)
        if weights is not None:
            w = weights + config.error_weight * differs((own - target)[:, None])
            error = error * w / w.mean(dim=(1, 2, 3), keepdim=True)
        # the final observation is no step's own frame, but it is where a step led
        losses.append(masked_mean(error, batch.mask[:, k + i - config.final_frames]))
        frames = torch.cat([frames[:, :k + i], own[:, None], frames[:, k + i + 1:]], dim=1)
    loss = torch.stack(losses).mean()
    return loss, {"loss": loss.detach()}


@torch.no_grad()
def faded(denoiser: Denoiser, target: Tensor, past: Tensor, actions: Tensor, level: float) -> Tensor:
    """target (b, c, h, w) on its way to what the model guesses from noise, by 0 to `level`, one share a sample."""
    sigma = target.new_full((len(target),), GUESSED_AT)
    guess = denoiser(GUESSED_AT * torch.randn_like(target), sigma, past, actions)
    torch.clear_autocast_cache()  # older versions of torch keep copies of the weights that know no gradient
    return target.lerp(guess, level * torch.rand(len(target), 1, 1, 1, device=target.device))


def blotched(frames: Tensor, level: float) -> Tensor:
    """frames (b, k, c, h, w) with noise of pixels and of blotches, at a strength from 0 to `level`, one a sample."""
    b, k, c, h, w = frames.shape
    strength = level * torch.rand(b, 1, 1, 1, 1, device=frames.device)
    coarse = torch.randn(b, k * c, -(-h // 8), -(-w // 8), device=frames.device)
    blotches = F.interpolate(coarse, (h, w), mode="bilinear").reshape(frames.shape)
    return frames + strength * (torch.randn_like(frames) + blotches)


def draw_noise(images: Tensor) -> DenoisingNoise:
    """Fresh random numbers for images (b, c, h, w), from torch's generator."""
    b, c = images.shape[:2]
    return DenoisingNoise(torch.randn(b, device=images.device), torch.randn(b, c, 1, 1, device=images.device),
                          torch.randn_like(images))


def masked_mean(error: Tensor, mask: Tensor) -> Tensor:
    """Mean of error (b, c, h, w) over the samples where mask (b,) is True; 0 if there is none."""
    per_sample = error.mean(dim=(1, 2, 3))
    return (per_sample * mask).sum() / mask.sum().clamp(min=1)
