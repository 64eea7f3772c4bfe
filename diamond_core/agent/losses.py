"""Lambda-returns and the actor-critic loss: pure functions of a rollout. Source: SPEC 5."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Categorical

from diamond_core.config import ReturnsConfig
from diamond_core.types import Rollout


@torch.no_grad()
def lambda_returns(rewards: Tensor, ends: Tensor, truncs: Tensor, bootstraps: Tensor, gamma: float, lambda_: float
                   ) -> Tensor:
    """Returns R (n, t) of rewards (clipped to their sign), ends, truncs and V(x_{t+1}), all (n, t).

    An end stops all value; a truncation stops the sum but keeps the value of the frame that was reached.
    """
    ends, truncs = ends.float(), truncs.float()
    one_step = rewards.sign() + gamma * (1 - ends) * (truncs + (1 - truncs) * (1 - lambda_)) * bootstraps
    goes_on = (1 - ends) * (1 - truncs)
    returns = torch.empty_like(one_step)
    later = bootstraps[:, -1]
    for t in reversed(range(rewards.shape[1])):
        later = one_step[:, t] + goes_on[:, t] * gamma * lambda_ * later
        returns[:, t] = later
    return returns


def actor_critic_loss(rollout: Rollout, config: ReturnsConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """REINFORCE with the value as baseline, or where `config.clip` is set the clipped surrogate of PPO (Schulman et al.
    2017, equation 7); plus the value's squared error, minus weighted entropy."""
    returns = lambda_returns(rollout.rewards, rollout.ends, rollout.truncs, rollout.bootstraps, config.gamma,
                             config.lambda_)
    policy = Categorical(logits=rollout.logits, validate_args=False)  # which would look at numbers
    advantages = (returns - rollout.values).detach()
    log_probs = policy.log_prob(rollout.actions)
    if config.clip:
        ratios = (log_probs - rollout.log_probs).exp()
        clipped = ratios.clamp(1 - config.clip, 1 + config.clip)
        actions_loss = -torch.minimum(ratios * advantages, clipped * advantages).mean()
    else:
        actions_loss = -(log_probs * advantages).mean()
    values_loss = F.mse_loss(rollout.values, returns)
    entropy = policy.entropy().mean()
    loss = actions_loss + config.value_weight * values_loss - config.entropy_weight * entropy
    return loss, {"loss": loss.detach(), "loss_actions": actions_loss.detach(), "loss_values": values_loss.detach(),
                  "entropy": entropy.detach(), "mean_return": returns.mean(),
                  "mean_value": rollout.values.detach().mean()}
