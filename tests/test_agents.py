"""Training, its files, interruption and resumption, hyperparameters, learning curves."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("sb3_contrib")

import matchgym  # noqa: F401
from matchgym.agents import (
    AgentPolicy,
    CurvePoint,
    Measurement,
    SB3VecEnv,
    draw_curve,
    hyperparameters_for,
    recording,
    train,
)
from matchgym.agents import training as training_module
from matchgym.agents.curve import _spread
from matchgym.agents.hyperparameters import ALGORITHMS
from matchgym.baselines import evaluate
from matchgym.baselines.exact import exact_value
from matchgym.cli import main
from matchgym.envs.instance import InputError

ID = "StationaryMatching-v0"
TOY_OPTIMUM = 1 - 1 / (math.e - 1)  # never idling, on the instance "toy"
SMALL = {"n_envs": 32, "n_steps": 16, "batch_size": 256, "net_arch": [16]}
BRIEF = Measurement(points=4, rows=64, warmup=20, decisions=50, final_decisions=100)


def small(algo: str) -> dict:
    table = {name: value for name, value in SMALL.items() if name in ALGORITHMS[algo]}
    return table | ({"learning_starts": 100, "buffer_size": 5000} if algo == "dqn" else {})


@pytest.mark.parametrize("algo", ["maskable_ppo", "ppo", "a2c", "dqn"])
def test_training_learns_the_toy_and_leaves_its_files(algo: str, tmp_path) -> None:
    """The only decision is whether to match; every algorithm learns to, and its saved policy says the same."""
    measurement = Measurement(points=4, rows=128, warmup=30, decisions=100, final_decisions=1000)
    result = train(
        ID,
        "toy",
        algo,
        20_000,
        params=small(algo),
        folder=tmp_path / "run",
        measurement=measurement,
        progress=False,
    )
    assert result.final.low <= TOY_OPTIMUM * 1.01
    assert result.final.mean == pytest.approx(TOY_OPTIMUM, rel=0.02)
    assert result.timesteps >= 20_000
    assert result.evaluations[0].timesteps == 0
    assert result.evaluations[-1].timesteps == result.timesteps
    assert sorted(path.name for path in result.folder.iterdir()) == [
        "config.json",
        "curve.json",
        "curve.png",
        "model.zip",
        "progress.csv",
    ]
    config = json.loads((result.folder / "config.json").read_text())
    assert config["instance"]["name"] == "toy"
    assert config["params"] == hyperparameters_for(ID, algo, small(algo))
    rows = (result.folder / "progress.csv").read_text().splitlines()
    assert len(rows) == 1 + len(result.evaluations)

    loaded = AgentPolicy.load(result.folder)
    obs = np.array([[k, 1.0] for k in range(6)], np.float32)
    masks = np.stack([obs[:, 0] > 0, np.ones(6, bool)], axis=1)
    expected, _ = result.policy.predict(obs, deterministic=True, action_masks=masks)
    actions, state = loaded.fit("toy").predict(obs, None, None, True, masks)
    assert state is None
    np.testing.assert_array_equal(actions, expected)
    np.testing.assert_array_equal(actions[1:], 0)  # match whenever a supplier waits


def parameters(folder) -> list[np.ndarray]:
    return [value.detach().numpy() for value in AgentPolicy.load(folder).model.policy.parameters()]


@pytest.fixture
def interrupt(monkeypatch):
    """Press Ctrl-C when training asks for its k-th action (`interrupt(k)`), or never again (`interrupt(0)`)."""
    original = SB3VecEnv.step_wait

    def arrange(k: int) -> None:
        calls = iter(range(1, 10**9))

        def step_wait(self):
            if next(calls) == k:
                raise KeyboardInterrupt
            return original(self)

        monkeypatch.setattr(SB3VecEnv, "step_wait", step_wait)

    return arrange


@pytest.mark.parametrize("algo", ["maskable_ppo", "a2c", "recurrent_ppo"])
def test_resuming_a_checkpoint_changes_nothing(algo, tmp_path, monkeypatch) -> None:
    """Killed right after a checkpoint and resumed, training ends in the very same network and learning curve."""
    arguments = {"params": small(algo), "measurement": BRIEF, "progress": False, "checkpoint_every": 2048}
    whole = train(ID, "demo", algo, 8192, folder=tmp_path / "whole", **arguments)

    class KilledError(Exception):
        pass

    original = recording.Recorder.save

    def save_and_die(self, is_interrupted=False):
        original(self, is_interrupted)
        if self.saved_at >= 4096:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(recording.Recorder, "save", save_and_die)
        with pytest.raises(KilledError):
            train(ID, "demo", algo, 8192, folder=tmp_path / "parts", **arguments)
    assert (tmp_path / "parts" / "checkpoint.pkl").is_file()
    resumed = train(ID, "demo", algo, 8192, folder=tmp_path / "parts", resume=True, **arguments)

    assert resumed.timesteps == whole.timesteps
    for one, other in zip(parameters(whole.folder), parameters(resumed.folder)):
        np.testing.assert_array_equal(one, other)
    assert [(p.timesteps, p.mean) for p in resumed.evaluations] == [(p.timesteps, p.mean) for p in whole.evaluations]
    assert resumed.final.mean == whole.final.mean


@pytest.mark.parametrize("algo", ["maskable_ppo", "dqn"])
def test_interruption_saves_and_resumes_to_the_same_total(algo: str, tmp_path, interrupt, capsys) -> None:
    arguments = {"params": small(algo), "measurement": BRIEF, "folder": tmp_path / "run"}
    interrupt(70)
    with pytest.raises(KeyboardInterrupt):
        train(ID, "demo", algo, 8192, **arguments)
    assert "checkpoint" in capsys.readouterr().err
    assert (tmp_path / "run" / "checkpoint.pkl").is_file()
    assert (tmp_path / "run" / "curve.png").is_file()
    assert json.loads((tmp_path / "run" / "curve.json").read_text())["final"] is None

    interrupt(0)
    result = train(ID, "demo", algo, 8192, resume=True, progress=False, **arguments)
    assert 8192 <= result.timesteps < 8192 + 32 * 16
    assert not (tmp_path / "run" / "checkpoint.pkl").exists()
    steps = [point.timesteps for point in result.evaluations]
    assert steps == sorted(set(steps))

    again = train(ID, "demo", algo, 8192, resume=True, progress=False, **arguments)  # finished: nothing to do
    assert again.final == result.final
    with pytest.raises(InputError, match="seed differs"):
        train(ID, "demo", algo, 8192, resume=True, progress=False, seed=1, **arguments)


def test_interrupting_the_last_measurement_loses_nothing(tmp_path, monkeypatch) -> None:
    arguments = {"params": SMALL, "measurement": BRIEF, "folder": tmp_path / "run", "progress": False}

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training_module.AgentPolicy, "load", stop)
        with pytest.raises(KeyboardInterrupt):
            train(ID, "demo", "maskable_ppo", 1024, **arguments)
    result = train(ID, "demo", "maskable_ppo", 1024, resume=True, **arguments)
    assert result.timesteps == 1024
    assert len(result.evaluations) == 3  # before training, and after each of the two updates


def test_same_seed_same_agent(tmp_path) -> None:
    arguments = {"params": SMALL, "measurement": BRIEF, "progress": False}
    first, second, other = (
        train(ID, "demo", "maskable_ppo", 2048, seed, folder=tmp_path / str(k), **arguments) for k, seed in enumerate((3, 3, 4))
    )
    for one, two in zip(parameters(first.folder), parameters(second.folder)):
        np.testing.assert_array_equal(one, two)
    assert first.final.mean == second.final.mean != other.final.mean


def test_the_folder_is_named_after_the_training(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = train(ID, "toy", "ppo", 600, 5, SMALL, measurement=BRIEF, progress=False, lines={"optimum": TOY_OPTIMUM})
    assert str(result.folder) == "runs/StationaryMatching-v0-toy-ppo-s5"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"params": {"n_step": 3}}, "n_step"),
        ({"params": {"gamma": 1.5}}, "gamma"),
        ({"params": {"gamma": "nan"}}, "gamma"),
        ({"params": {"n_epochs": 2.5}}, "n_epochs"),
        ({"params": {"n_envs": 0}}, "n_envs"),
        ({"params": {"n_envs": True}}, "n_envs"),
        ({"params": {"net_arch": "64,-1"}}, "net_arch"),
        ({"params": {"activation": "swish"}}, "activation"),
        ({"params": {"scale_rewards": 1}}, "scale_rewards"),
        ({"params": {"learning_rate": 0}}, "learning_rate"),
        ({"params": {"n_envs": 2}}, "batch_size"),
        ({"params": {"n_envs": 10**8}}, "n_envs must be an integer from 1 to 65536"),
        ({"params": {"n_envs": 60_000, "n_steps": 60_000}}, "do not fit in memory"),
        ({"algo": "sarsa"}, "sarsa"),
        ({"algo": "dqn", "params": {"clip_range": 0.1}}, "clip_range"),
        ({"env_id": "Nothing-v0"}, "Nothing-v0"),
        ({"instance": "nowhere"}, "nowhere"),
        ({"options": {"colour": "red"}}, "colour"),
        ({"options": {"num_envs": 3}}, "num_envs"),
        ({"timesteps": 0}, "timesteps"),
        ({"timesteps": 1.5}, "timesteps"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"torch_threads": 0}, "torch_threads"),
        ({"seed": -1}, "seed"),
        ({"measurement": Measurement(rows=1)}, "rows"),
    ],
)
def test_bad_input_is_refused_by_name(arguments: dict, named: str, tmp_path) -> None:
    with pytest.raises(InputError, match=named) as caught:
        train(**{"env_id": ID, "folder": tmp_path / "run", "progress": False} | arguments)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_parameters_may_be_strings() -> None:
    table = hyperparameters_for(
        ID, "maskable_ppo", {"gamma": "0.9", "net_arch": "32,16", "scale_rewards": "False", "n_envs": "64"}
    )
    assert (table["gamma"], table["net_arch"], table["scale_rewards"], table["n_envs"]) == (
        0.9,
        [32, 16],
        False,
        64,
    )


def test_demo(tmp_path, capsys) -> None:
    """The first command of the README, with a short training: every step of it, and the agent's exact value."""
    with pytest.raises(SystemExit) as done:
        main(["demo", "--timesteps", "2048", "--folder", str(tmp_path)])
    assert done.value.code == 0
    said = capsys.readouterr().out
    page = (tmp_path / "board" / "index.html").read_text()
    assert "maskable-ppo" in page
    policy = AgentPolicy.load(tmp_path / "maskable-ppo").fit("demo")
    truth = exact_value(policy).mean
    assert f"exact value {truth:.6f}" in said
    found = evaluate(policy, ID, replications=64, decisions=5_000).objective
    assert abs(found.mean - truth) <= 2.1 * found.half_width  # 99.99 %: the 5e-5 and 0.025 quantiles of t(63) are 2.08 apart


def test_actions_that_are_numbers(tmp_path) -> None:
    """PPO by default, and the others are refused in one sentence."""
    params = {"n_envs": 8, "n_steps": 4, "batch_size": 16, "net_arch": [8]}
    measurement = Measurement(points=1, rows=4, warmup=1, decisions=10, final_decisions=10)
    arguments = {"params": params, "measurement": measurement, "progress": False}
    result = train("DataLocalityDesign-v0", "toy", None, 64, folder=tmp_path / "ppo", **arguments)
    assert json.loads((tmp_path / "ppo" / "config.json").read_text())["algo"] == "ppo"
    design, _ = result.policy.predict(np.zeros((3, result.policy.model.observation_space.shape[0]), np.float32))
    assert design.shape == (3, 1, 2)
    assert ((design >= 0) & (design <= 1)).all()
    with pytest.raises(InputError, match="choose ppo"):
        train("DataLocalityDesign-v0", "toy", "maskable_ppo", 64, folder=tmp_path / "masked", **arguments)


def test_exact_value_of_a_network_that_heeds_no_masks(tmp_path) -> None:
    """What it chooses against the mask does nothing, in the exact chain as in the environment; at 99.99 %."""
    policy = train(ID, "demo", "dqn", 1024, folder=tmp_path, progress=False, params=small("dqn"), measurement=BRIEF).policy
    found = evaluate(policy, ID, replications=64, decisions=5_000).objective
    assert abs(found.mean - exact_value(policy).mean) <= 2.1 * found.half_width


def test_load_refuses_a_folder_without_an_agent(tmp_path) -> None:
    with pytest.raises(InputError, match="no trained agent"):
        AgentPolicy.load(tmp_path)


def test_resume_refuses_a_damaged_checkpoint(tmp_path) -> None:
    (tmp_path / "checkpoint.pkl").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match=r"checkpoint\.pkl"):
        train(ID, "toy", folder=tmp_path, resume=True, progress=False)


def test_the_picture_is_drawn(tmp_path) -> None:
    points = [CurvePoint(1000 * k, float(k), 1.0 + 0.1 * k, 0.9 + 0.1 * k, 1.1 + 0.1 * k) for k in range(5)]
    lines = {"LP bound": 2.0, "greedy": 1.0, "nothing": math.nan, "no bound": None, "exact optimum": 1.99}
    path = draw_curve(points, tmp_path / "new" / "curve.png", lines, "a title")
    assert path.read_bytes().startswith(b"\x89PNG")
    draw_curve(points[:1], tmp_path / "one.png")
    with pytest.raises(InputError, match="at least one"):
        draw_curve([], tmp_path / "none.png")


def test_labels_are_spread() -> None:
    heights = _spread([0.1, 0.5, 0.5, 0.52, 0.9], 0.1)
    assert min(np.diff(heights)) >= 0.1 - 1e-9
    assert heights[0] == 0.1
    assert heights[-1] == 0.9
    assert np.mean(heights[1:4]) == pytest.approx(np.mean([0.5, 0.5, 0.52]))


def test_torch_is_imported_only_when_asked_for() -> None:
    script = "import sys, matchgym, matchgym.agents, matchgym.agents.hyperparameters; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_missing_extra_is_one_sentence() -> None:
    script = (
        "import sys; sys.modules['sb3_contrib'] = None\n"
        "from matchgym.envs.instance import InputError\n"
        "try:\n    from matchgym.agents import train\n"
        "except InputError as error:\n    print(error)\n"
    )
    out = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert 'pip install "matchgym[rl]"' in out
    assert out.count("\n") == 1
