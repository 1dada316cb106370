"""Trajectories of any policy as a Minari dataset, for offline learning against a known answer."""

import copy
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from matchgym.agents.sb3 import make_native
from matchgym.baselines.policy import Policy
from matchgym.envs.instance import InputError, is_count, shorten
from matchgym.envs.registry import find


def write_dataset(
    policy: Policy,
    env_id: str,
    instance: Any,
    name: str,
    folder: str | Path,
    episodes: int = 100,
    seed: int = 0,
    author: str = "matchgym",
    description: str = "",
    options: Mapping[str, Any] | None = None,
) -> Any:
    """Play `episodes` episodes of an environment and write them as the Minari dataset `name` under `folder`.

    The masks in `infos` have one row more than there are actions, as the observations do; the last one is all ones.

    Episode b is row b of the native vector environment: what a single environment seeded `seed + b` shows. `infos` hold the
    action masks, for algorithms that heed them. Read it with `MINARI_DATASETS_PATH=folder` and `minari.load_dataset(name)`.

    Parameters
    ----------
    policy : a fitted policy; its own `options` choose the variant of the environment.
    name : of the dataset, such as "matchgym/demo/greedy-v0".

    Returns
    -------
    The `minari.MinariDataset`. Raises InputError if an argument is wrong, the dataset exists, or Minari is missing.
    """
    try:
        import minari
        from minari.data_collector import EpisodeBuffer
    except ModuleNotFoundError as error:
        raise InputError(f'writing datasets needs the package {error.name}; install: pip install "matchgym[data]".') from None
    entry = find(env_id)
    chosen = entry.model.load(instance)
    if not is_count(episodes, 1) or not is_count(seed):
        raise InputError(f"episodes must be an integer >= 1 and seed one >= 0, not {shorten((episodes, seed))}.")
    settings = {**policy.options, **(options or {})}
    native: Any = make_native(entry.id, chosen.to_dict(), episodes, options=settings)
    obs, _ = native.reset(seed=seed)
    state, starts = policy.start(episodes, seed), np.ones(episodes, np.bool_)
    buffers: list[EpisodeBuffer] = []
    columns: dict[str, list[Any]] = {key: [] for key in ("observations", "actions", "rewards", "ends", "cuts", "masks")}
    lengths = np.zeros(episodes, np.int64)
    while not lengths.all():
        masks = native.unwrapped.action_masks()
        actions, state = policy.predict(obs, state, starts, False, masks)
        columns["observations"].append(obs.copy())
        columns["masks"].append(masks.copy())
        obs, rewards, terminated, truncated, infos = native.step(actions)
        for key, value in (("actions", actions), ("rewards", rewards), ("ends", terminated), ("cuts", truncated)):
            columns[key].append(np.array(value))
        starts = terminated | truncated
        for b in np.flatnonzero(starts & (lengths == 0)):
            lengths[b] = len(columns["rewards"])
            length = int(lengths[b])
            path = {key: [row[b] for row in rows[:length]] for key, rows in columns.items()}
            masks_seen = np.array([*path["masks"], np.ones_like(path["masks"][0])], np.int8)
            buffer = EpisodeBuffer(
                id=int(b),
                seed=seed + int(b),
                observations=[*path["observations"], infos["final_obs"][b]],
                actions=path["actions"],
                rewards=[float(value) for value in path["rewards"]],
                terminations=[bool(value) for value in path["ends"]],
                truncations=[bool(value) for value in path["cuts"]],
                infos={"action_mask": masks_seen},
            )
            buffers.append(buffer)
    buffers.sort(key=lambda buffer: buffer.id or 0)
    spec = copy.deepcopy(gym.spec(entry.id))
    spec.kwargs = {"instance": chosen.to_dict(), **settings}
    home = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(Path(folder).resolve())
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="minari")  # it asks for what may be left out
            return minari.create_dataset_from_buffers(
                name, buffers, env=spec, algorithm_name=type(policy).__name__, author=author, description=description,
                action_space=native.single_action_space, observation_space=native.single_observation_space,
            )  # fmt: skip
    except ValueError as error:
        raise InputError(f"dataset {shorten(name)} cannot be written: {error}") from None
    finally:
        os.environ.pop("MINARI_DATASETS_PATH")
        if home is not None:
            os.environ["MINARI_DATASETS_PATH"] = home
