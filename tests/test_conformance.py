"""What every registered environment must do; a new id is tested the day it is registered."""

import json
import os
import pickle
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from matchgym.envs.base import mask_size, sampling_mask
from matchgym.envs.wrappers import DictMask

STEPS = 300


def masked_actions(rng, masks, space):
    """A uniformly random valid action of the single environment's `space` for each row."""
    if isinstance(space, gym.spaces.Box):
        return rng.uniform(np.maximum(space.low, -1), np.minimum(space.high, 1), (len(np.atleast_2d(masks)), *space.shape))
    ends = np.cumsum(space.nvec)[:-1] if isinstance(space, gym.spaces.MultiDiscrete) else []
    parts = [[rng.choice(np.flatnonzero(part)) for part in np.split(mask, ends)] for mask in np.atleast_2d(masks)]
    return np.array(parts).reshape(-1, *space.shape)


def valid_action(rng, env):
    """A uniformly random valid action."""
    return masked_actions(rng, env.get_wrapper_attr("action_masks")(), env.action_space)[0]


def play(env, seed, steps=STEPS):
    """A trajectory of random valid actions, as nested lists of exact numbers."""
    rng = np.random.default_rng(seed)
    obs, info = env.reset(seed=seed)
    record = [(obs.tobytes(), sorted(info))]
    for _ in range(steps):
        action = valid_action(rng, env)
        obs, reward, terminated, truncated, info = env.step(action)
        numbers = {key: value.tobytes() if isinstance(value, np.ndarray) else value for key, value in info.items()}
        record.append((obs.tobytes(), reward, terminated, truncated, numbers))
        if terminated or truncated:
            env.reset()
    return record


@pytest.mark.filterwarnings("ignore:.*maximum value.*infinity.*", "ignore:.*minimum.*-infinity.*")
def test_gymnasium_checker(variant):
    entry, options = variant
    check_env(gym.make(entry.id, **options).unwrapped)


@pytest.mark.filterwarnings("ignore:We recommend you to use a symmetric and normalized Box action space")
def test_stable_baselines3_checker(variant):
    entry, options = variant
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    checker.check_env(gym.make(entry.id, **options), warn=True)


def test_both_spellings_and_idempotent_registration(entry):
    from matchgym.envs.registry import register_all

    before = dict(gym.registry)
    register_all()
    assert gym.registry == before
    assert gym.make(f"matchgym:{entry.id}").spec.id == gym.make(entry.id).spec.id == entry.id


def test_every_catalogue_instance_makes_an_environment(entry):
    for name in entry.model.catalogue:
        env = gym.make(entry.id, instance=name)
        obs, _ = env.reset(seed=0)
        assert env.observation_space.contains(obs)
        layout = env.unwrapped.observation_layout
        covered = sorted((part.start, part.stop) for part in layout.values())
        assert [start for start, _ in covered] == [0, *(stop for _, stop in covered[:-1])]
        assert covered[-1][1] == len(obs)


def test_determinism_and_seeds(variant):
    entry, options = variant
    env = gym.make(entry.id, **options)
    first, again, other = play(env, 5), play(env, 5), play(env, 6)
    assert first == again == play(gym.make(entry.id, **options), 5)
    assert first != other


def test_reset_without_seed_goes_on(entry):
    env = gym.make(entry.id)
    rng = np.random.default_rng(0)

    def third_episode():
        env.reset(seed=1)
        env.reset()
        env.reset()
        return [env.step(valid_action(rng, env))[0].tobytes() for _ in range(3)]

    env.reset(seed=1)
    first_episode = [env.step(valid_action(rng, env))[0].tobytes() for _ in range(3)]
    assert third_episode() != first_episode
    rng = np.random.default_rng(0)
    again = third_episode()
    rng = np.random.default_rng(0)
    assert third_episode() == again


def test_types_and_info(variant):
    entry, options = variant
    env = gym.make(entry.id, **options)
    env.action_space.seed(0)
    obs, info = env.reset(seed=2)
    keys = set(info)
    for _ in range(STEPS):
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert type(reward) is float
        assert type(terminated) is bool
        assert type(truncated) is bool
        assert obs.dtype == np.float32
        assert set(info) == keys
        for value in info.values():
            assert isinstance(value, np.ndarray | int | float)
            assert np.isfinite(value).all()
    before = obs.copy()
    env.step(env.action_space.sample())
    assert (obs == before).all()  # the caller's arrays are never written again


def test_masks_agree_and_leave_a_choice(variant):
    entry, options = variant
    env = DictMask(gym.make(entry.id, **options))
    is_masked = not isinstance(env.action_space, gym.spaces.Box)
    observation, info = env.reset(seed=3)
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        method = env.get_wrapper_attr("action_masks")()
        assert method.dtype == np.bool_
        assert info["action_mask"].dtype == np.int8
        assert (method == info["action_mask"]).all()
        assert (method == observation["action_mask"]).all()
        assert method.any() == is_masked
        assert env.observation_space.contains(observation)
        env.action_space.sample(sampling_mask(env.action_space, info["action_mask"]))  # refuses a mask without a choice
        if not is_masked:
            assert len(method) == 0
        observation, _, terminated, truncated, info = env.step(masked_actions(rng, method, env.action_space)[0])
        assert info["invalid_actions"] == 0
        if terminated or truncated:
            observation, info = env.reset()


def test_invalid_parts_of_actions_are_counted(variant):
    entry, options = variant
    env = gym.make(entry.id, **options)
    space = env.action_space
    if isinstance(space, gym.spaces.Discrete):
        bad = [-1, int(space.n), 10**9]
    elif isinstance(space, gym.spaces.MultiDiscrete):
        bad = [np.full(space.shape, -1), space.nvec, np.full(space.shape, 10**12), np.full(space.shape, 2**64 - 1, np.uint64)]
    else:
        bad = [space.low - 1.0, np.full(space.shape, np.nan), np.full(space.shape, np.inf)]
    _, info = env.reset(seed=4)
    for action in bad * 3:
        before = info["invalid_actions"]
        _, reward, _, _, info = env.step(action)
        assert info["invalid_actions"] > before
        assert np.isfinite(reward)
    assert env.reset(seed=4)[1]["invalid_actions"] == 0


def test_invalid_actions_are_counted_no_ops(entry):
    env, twin = gym.make(entry.id), gym.make(entry.id)
    if not isinstance(env.action_space, gym.spaces.Discrete) or not entry.model.has_idle:
        pytest.skip("invalid parts of other actions, and what is left to chance, are tested above")
    _, info = env.reset(seed=4)
    twin.reset(seed=4)
    idle = int(env.action_space.n) - 1
    for step, outside in enumerate([idle + 1, -1, 10**9, -(2**80), 2**80] * 15, 1):
        forbidden = np.flatnonzero(info["action_mask"] == 0)
        obs, reward, _, _, info = env.step(forbidden[0] if len(forbidden) else outside)
        twin_obs, twin_reward, _, _, _ = twin.step(idle)
        assert info["invalid_actions"] == step
        assert reward == twin_reward == 0.0
        assert (obs == twin_obs).all()
    assert env.reset(seed=4)[1]["invalid_actions"] == 0


def test_bad_actions_and_order(variant):
    entry, options = variant
    env = gym.make(entry.id, **options)
    shape = env.action_space.shape
    with pytest.raises(gym.error.ResetNeeded):
        env.step(env.action_space.sample())
    env.reset(seed=0)
    bad = ["1", None, np.zeros((*shape, 1), int), np.full(shape, "1")]
    if not isinstance(env.action_space, gym.spaces.Box):
        bad.append(np.full(shape, 1.5))
    for action in bad:
        with pytest.raises(TypeError, match="action"):
            env.step(action)
    vector = gym.make_vec(entry.id, num_envs=3, **options)
    with pytest.raises(gym.error.ResetNeeded):
        vector.step(vector.action_space.sample())
    vector.reset(seed=0)
    for actions in (np.zeros((2, *shape), int), np.full((3, *shape), "1"), 0):
        with pytest.raises(TypeError, match="actions"):
            vector.step(actions)


def test_pickle(variant):
    entry, options = variant
    env = gym.make(entry.id, **options)
    play(env, 7, 20)
    twin = pickle.loads(pickle.dumps(env))
    rng, twin_rng = np.random.default_rng(1), np.random.default_rng(1)
    for _ in range(50):
        a, b = env.step(valid_action(rng, env)), twin.step(valid_action(twin_rng, twin))
        assert (a[0] == b[0]).all()
        assert a[1:4] == b[1:4]


def test_spec_survives_json(entry):
    name = list(entry.model.catalogue)[1]
    instance = entry.model.load(name).to_dict()
    env = gym.make(entry.id, instance=instance, max_episode_steps=17)
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert again.unwrapped.instance.sha256 == env.unwrapped.instance.sha256
    assert play(again, 3, 30) == play(env, 3, 30)
    json.dumps(instance)


def single_rows(entry, n, seed, **options):
    envs = [gym.make(entry.id, max_episode_steps=40, **options) for _ in range(n)]
    return envs, [env.reset(seed=seed + b) for b, env in enumerate(envs)]


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_vector_rows_are_single_environments(variant, mode):
    """Row b of a vector environment seeded with s is the single environment seeded with s + b, bit for bit."""
    entry, options = variant
    n, seed, rng = 5, 11, np.random.default_rng(0)
    vector = gym.make_vec(entry.id, num_envs=n, max_episode_steps=40, autoreset_mode=mode.value, **options)
    assert vector.metadata["autoreset_mode"] is mode
    obs, infos = vector.reset(seed=seed)
    envs, starts = single_rows(entry, n, seed, **options)
    over = np.zeros(n, bool)
    for b in range(n):
        assert (obs[b] == starts[b][0]).all()
    for _ in range(150):
        if mode is AutoresetMode.DISABLED and over.any():
            obs, infos = vector.reset(options={"reset_mask": over})
            for b in np.flatnonzero(over):
                single, info = envs[b].reset()
                assert (single == obs[b]).all()
                assert infos["elapsed_time"][b] == info["elapsed_time"]
            over[:] = False
        masks = infos["action_mask"]
        assert masks.dtype == np.int8
        assert masks.shape == (n, mask_size(vector.single_action_space))
        assert (vector.action_masks() == masks).all()
        actions = masked_actions(rng, masks, vector.single_action_space)
        obs, rewards, terminated, truncated, infos = vector.step(actions)
        for b, env in enumerate(envs):
            if mode is AutoresetMode.NEXT_STEP and over[b]:
                single, info = env.reset()
                assert (single == obs[b]).all()
                assert (rewards[b], terminated[b], truncated[b]) == (0.0, False, False)
                over[b] = False
                continue
            single, reward, ended, cut, info = env.step(actions[b])
            assert (rewards[b], terminated[b], truncated[b]) == (reward, ended, cut)
            over[b] = ended or cut
            if mode is AutoresetMode.SAME_STEP and over[b]:
                assert infos["_final_obs"][b]
                assert (infos["final_obs"][b] == single).all()
                for key, value in info.items():
                    assert np.array_equal(infos["final_info"][key][b], value)
                single, info = env.reset()
                over[b] = False
            assert (single == obs[b]).all()
            for key, value in info.items():
                assert np.array_equal(infos[key][b], value)
                assert infos[f"_{key}"][b]


def test_vector_seeds_and_masks_of_reset(entry):
    vector = gym.make_vec(entry.id, num_envs=3)
    obs, _ = vector.reset(seed=[4, None, 9])
    for seed, row in ((4, 0), (9, 2)):
        assert (gym.make(entry.id).reset(seed=seed)[0] == obs[row]).all()
    for options in ({"reset_mask": np.ones(2, bool)}, {"reset_mask": np.ones(3)}):
        with pytest.raises(ValueError, match="reset_mask"):
            vector.reset(options=options)
    for seed in ([1, 2], -5, [-5, 1, 2], [1.5, 2, 3], "abc"):
        with pytest.raises(ValueError, match="seed"):
            vector.reset(seed=seed)
    for arguments in ({"num_envs": 0}, {"num_envs": 2.5}, {"num_envs": 2, "max_episode_steps": 0}):
        with pytest.raises(ValueError, match=r"num_envs|max_episode_steps"):
            type(vector.unwrapped)(**arguments)


def test_unseeded_environments_differ(entry):
    """Two trajectories without a seed, under the same sequence of choices."""
    envs = [gym.make(entry.id).unwrapped for _ in range(2)]
    seen: list[list[bytes]] = [[], []]
    for env, observations in zip(envs, seen):
        rng = np.random.default_rng(0)
        env.reset()
        observations += [env.step(valid_action(rng, env))[0].tobytes() for _ in range(100)]
    assert seen[0] != seen[1]


def test_constructor_refuses_unknown_options(entry):
    for arguments in ({"speed": 3}, {"render_mode": "human"}, {"instance": "no-such"}):
        with pytest.raises((ValueError, TypeError), match=r"speed|render_mode|no-such"):
            entry.layer("envs").__dict__[f"{entry.prefix}Env"](**arguments)


def test_constructor_refuses_arrays(entry):
    """The specification of an environment can be written as JSON whatever was accepted."""
    values = json.loads(entry.model.load("toy").to_json())
    name = next(name for name, value in values.items() if isinstance(value, list))
    with pytest.raises(ValueError, match=rf"{name} is an array; give {name}.tolist()"):
        gym.make(entry.id, instance=values | {name: np.array(values[name])})
    gym.make(entry.id, instance=values).spec.to_json()


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_worker_processes(entry, context):
    """`matchgym:ID` works in a process that has not imported the package."""
    workers = AsyncVectorEnv([lambda i=entry.id: gym.make(f"matchgym:{i}")] * 2, context=context)
    try:
        obs, _ = workers.reset(seed=21)
        assert (obs[1] == gym.make(entry.id).reset(seed=22)[0]).all()
        workers.step(workers.action_space.sample())
    finally:
        workers.close()


TRAJECTORY = """
import sys, warnings
import numpy as np
warnings.simplefilter("ignore")
import gymnasium as gym, matchgym
env = gym.make(sys.argv[1], **({"action": sys.argv[2]} if len(sys.argv) > 2 else {}))
space, rng = env.action_space, np.random.default_rng(0)
digest = []
obs, info = env.reset(seed=13)
for _ in range(120):
    if isinstance(space, gym.spaces.Box):
        action = rng.uniform(0, 1, space.shape)
    else:
        ends = np.cumsum(getattr(space, "nvec", [0]))[:-1]
        action = np.array([rng.choice(np.flatnonzero(part)) for part in np.split(info["action_mask"], ends)])
        action = action.reshape(space.shape)
    obs, reward, _, _, info = env.step(action)
    digest.append((obs.tobytes().hex(), reward.hex(), float(info["elapsed_time"]).hex()))
print(digest)
"""


def test_compiled_code_is_the_python_code(variant):
    """The same trajectory, bit for bit, with and without numba's compiler."""
    outputs = []
    for disabled in ("0", "1"):
        run = subprocess.run(
            [sys.executable, "-c", TRAJECTORY, variant[0].id, *variant[1].values()],
            env=os.environ | {"NUMBA_DISABLE_JIT": disabled},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        outputs.append(run.stdout)
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) > 1000


def test_docstring_is_the_users_page(entry):
    page = getattr(entry.layer("envs"), f"{entry.prefix}Env").__doc__
    for heading in (
        "Description", "Action Space", "Observation Space", "Rewards", "Starting State", "Episode End", "Information",
        "Arguments", "Bounds and baselines", "References", "Version History",
    ):  # fmt: skip
        assert f"## {heading}" in page
    for name in gym.make(entry.id).unwrapped.observation_layout:
        assert f"`{name}`" in page
    info = gym.make(entry.id).reset(seed=0)[1]
    for key in info:
        assert f"`{key}`" in page
