"""Learning from a policy that is there already: its decisions are copied, and its values learnt, before training starts.

What is left to reinforcement learning is to improve on the teacher. The teacher plays in the training environment; now and
then an action of its own choosing is replaced by a random valid one, so that states off its path are seen too. Its choices
there train the actor by maximum likelihood, and the discounted rewards that follow train the critic: an untrained critic would
undo in a few updates what the actor has copied.
"""

import math
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from matchgym.agents.extra import BaseAlgorithm, torch
from matchgym.agents.networks import actor_scores
from matchgym.agents.sb3 import episode_length, late_start, random_actions
from matchgym.baselines.policy import Policy, best_actions

STRAYING = 0.1  # share of decisions that are random
LARGEST = 60_000_000  # numbers in the observations of a demonstration
STEPS, BATCH, RATE = 1200, 768, 3e-3  # of the regression; the rate falls linearly
SCORES = 400_000  # of a batch, which is smaller where there are very many scores
BEYOND = 0.05  # numbers at an end of their range are copied as so much of the range beyond it, and small errors stay there
ENTROPY = 0.3  # weight of the entropy in it: what is copied with certainty cannot be improved on


class Demonstration(NamedTuple):
    """What a teacher did in `T` decisions of `B` rows."""

    observations: NDArray[np.float32]  # (T, B, obs_dim)
    masks: NDArray[np.bool_]  # (T, B, n_scores), empty where a mask says nothing
    actions: NDArray[Any]  # (T, B, ...), what the teacher chose
    rewards: NDArray[np.float64]  # (T, B), of what was done
    dones: NDArray[np.bool_]  # (T, B), whether an episode ended with the decision
    may_terminate: bool

    def returns(self, gamma: float, shift: float, scale: float) -> NDArray[np.float64]:
        """Discounted scaled rewards from every decision on (T, B), as far as the demonstration goes."""
        total = np.zeros(self.rewards.shape[1])
        found = np.empty_like(self.rewards)
        for t in range(len(self.rewards) - 1, -1, -1):
            total = (self.rewards[t] - shift) / scale + gamma * np.where(self.dones[t], 0.0, total)
            found[t] = total
        return found


def demonstrate(
    native: VectorEnv, teacher: Policy | None, seed: int, warmup: int, decisions: int, straying: float = STRAYING
) -> Demonstration:
    """Let a teacher play on all rows of a native vector environment; without one, all decisions are random.

    Where episodes end by themselves, the warm-up lasts one at least, and rows start one after another in it.
    """
    rng = np.random.default_rng(seed)
    native.action_space.seed(seed)
    obs, _ = native.reset(seed=seed)
    rows, base = native.num_envs, native.unwrapped
    decisions = max(2, min(decisions, LARGEST // obs.size))
    state = None if teacher is None else teacher.start(rows, seed)
    starts = np.ones(rows, np.bool_)
    columns: dict[str, list[Any]] = {name: [] for name in ("observations", "masks", "actions", "rewards", "dones")}
    may_terminate = False
    warmup = max(warmup, episode_length(native))
    for decision in range(warmup + decisions):
        started = late_start(native, decision)
        if started is not None:
            obs, starts = started[0], starts | started[1]
        masks = base.action_masks()  # type: ignore[attr-defined]
        played = random_actions(native, rng)
        chosen = played
        if teacher is not None:
            chosen, state = teacher.predict(obs, state, starts, False, masks)
            strays = rng.random(rows) < straying
            played = np.where(strays.reshape(-1, *[1] * (np.ndim(chosen) - 1)), played, chosen)
        seen = obs
        obs, rewards, terminated, truncated, _ = native.step(played.astype(native.single_action_space.dtype))
        starts = terminated | truncated
        may_terminate = may_terminate or bool(terminated.any())
        if decision >= warmup:
            for name, value in zip(columns, (seen, masks, chosen, rewards, starts)):
                columns[name].append(np.array(value))
    return Demonstration(**{name: np.stack(values) for name, values in columns.items()}, may_terminate=may_terminate)


def imitate(model: BaseAlgorithm, shown: Demonstration, gamma: float, shift: float, scale: float, seed: int) -> float:
    """Fit actor and critic of a PPO, MaskablePPO or A2C to a demonstration; returns the teacher's share of copied decisions."""
    policy, space = model.policy, model.action_space
    returns = shown.returns(gamma, shift, scale)
    # Close to the end of the demonstration the returns are cut off, and the critic is not shown them.
    seen = len(returns) if shown.may_terminate else max(1, len(returns) - math.ceil(2.0 / (1.0 - gamma)))
    size = returns.size
    targets = _beyond(shown.actions, space) if isinstance(space, gym.spaces.Box) else shown.actions
    shown_flat = [array.reshape(size, *array.shape[2:]) for array in (shown.observations, shown.masks, targets)]
    observations, masks, actions = (torch.as_tensor(array) for array in shown_flat)
    values = torch.as_tensor(returns.astype(np.float32).ravel())
    has_value = torch.as_tensor(np.repeat(np.arange(len(returns)) < seen, returns.shape[1]))
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(policy.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.01, STEPS)
    policy.set_training_mode(True)
    batch = min(BATCH, len(observations), max(32, SCORES // max(1, masks.shape[1])))
    for _ in range(STEPS):
        chosen = torch.randint(len(observations), (batch,), generator=generator)
        scores = actor_scores(policy, observations[chosen])
        if isinstance(space, gym.spaces.Box):
            loss = ((scores - actions[chosen].reshape(scores.shape)) ** 2).mean()
        else:
            loss = _unlikeliness(scores, masks[chosen], actions[chosen], space)
        found = policy.predict_values(observations[chosen])
        counted = has_value[chosen]
        if counted.any():
            loss = loss + 0.5 * ((found.flatten() - values[chosen])[counted] ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    policy.set_training_mode(False)
    return agreement(model, shown)


def _beyond(numbers: NDArray[Any], space: gym.spaces.Box) -> NDArray[np.float32]:
    """Numbers of actions, those at an end of their range moved beyond it."""
    margin = BEYOND * (space.high - space.low)
    moved = np.where(numbers <= space.low, space.low - margin, numbers)
    return np.where(numbers >= space.high, space.high + margin, moved).astype(np.float32)


def _unlikeliness(scores: Any, masks: Any, actions: Any, space: Any) -> Any:
    """Minus the log likelihood of choices, less a share of the entropy; summed over the parts of a choice."""
    scores = scores.masked_fill(~masks, -1e8)
    parts = scores.split(space.nvec.ravel().tolist(), dim=1) if isinstance(space, gym.spaces.MultiDiscrete) else (scores,)
    total = scores.new_zeros(())
    for part, chosen in zip(parts, actions.reshape(len(scores), -1).T):
        logs = part.log_softmax(dim=1)
        total = total - logs.gather(1, chosen.long()[:, None]).mean() + ENTROPY * (logs.exp() * logs).sum(dim=1).mean()
    return total


def agreement(model: BaseAlgorithm, shown: Demonstration, most: int = 10_000) -> float:
    """The share of a demonstration's decisions that the model takes alike (choices), or minus the mean distance (numbers)."""
    pick = np.linspace(0, len(shown.observations) - 1, max(1, most // shown.observations.shape[1])).astype(int)
    size = len(pick) * shown.observations.shape[1]
    observations, masks = shown.observations[pick].reshape(size, -1), shown.masks[pick].reshape(size, -1)
    with torch.no_grad():
        scores = actor_scores(model.policy, torch.as_tensor(observations)).numpy()
    found = best_actions(scores, model.action_space, masks).reshape(size, -1)
    actions = shown.actions[pick].reshape(size, -1)
    if isinstance(model.action_space, gym.spaces.Box):
        return -float(np.abs(found - actions).mean())
    return float((found == actions).mean())
