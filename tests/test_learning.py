"""The commands around training: tuning, datasets, the zoo."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sb3_contrib")
pytest.importorskip("optuna")
pytest.importorskip("minari")

import matchgym  # noqa: F401
from matchgym.agents import Measurement, hyperparameters_for, train
from matchgym.agents.extra import torch
from matchgym.agents.hyperparameters import ALGORITHMS
from matchgym.agents.tuning import SPACES, tune, within_rollout
from matchgym.cli import main
from matchgym.envs.registry import find
from matchgym.leaderboards.artefact import read_artefact
from matchgym.leaderboards.summary import results_table, verdicts
from matchgym.leaderboards.tasks import find_task
from matchgym.leaderboards.zoo import build_zoo

ID = "StationaryMatching-v0"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Small networks are slower with more."""
    torch.set_num_threads(1)


def run(*words: str) -> int:
    """The command line's exit code."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    return int(ended.value.code or 0)


def test_a_search_goes_on_where_it_was_and_leaves_a_recipe(tmp_path: Path) -> None:
    brief = Measurement(points=2, rows=16, warmup=10, decisions=20, final_decisions=40)
    first = tune(ID, "toy", "maskable_ppo", 1, 500, folder=tmp_path / "t", measurement=brief)
    assert first.trials + first.pruned == 1
    second = tune(ID, "toy", "maskable_ppo", 2, 500, folder=tmp_path / "t", measurement=brief)
    assert second.trials + second.pruned == 2
    assert second.value >= first.value
    recipe = tomllib.loads((tmp_path / "t" / "recipe.toml").read_text())[ID]["maskable_ppo"]["toy"]
    timesteps = recipe.pop("timesteps")
    assert timesteps == 500
    assert hyperparameters_for(ID, "maskable_ppo", recipe)["gamma"] == recipe["gamma"]  # a legal table


def test_a_suggested_batch_is_within_the_rollout() -> None:
    """Recipes with few rows would else refuse what the search suggests, and end it."""
    table = hyperparameters_for("DataLocalityDesign-v0", "ppo", None, "toy")
    for n_steps in SPACES["ppo"]["n_steps"]:
        for batch_size in SPACES["ppo"]["batch_size"]:
            found = within_rollout({"n_steps": n_steps, "batch_size": batch_size}, table)
            assert found["batch_size"] == min(batch_size, table["n_envs"] * n_steps)
            hyperparameters_for("DataLocalityDesign-v0", "ppo", found, "toy")
    assert within_rollout({"batch_size": 512}, hyperparameters_for(ID, "dqn")) == {"batch_size": 512}


def test_the_zoo_stays_small_and_is_of_this_suite() -> None:
    """Under 10 MB in all; every manifest and digest is right for this suite, and of an id there are five seeds."""
    zoo = Path(__file__).parents[1] / "agents" / "zoo"
    assert sum(file.stat().st_size for file in zoo.rglob("*") if file.is_file()) < 10_000_000
    for folder in sorted(zoo.iterdir()):
        seeds = sorted(folder.iterdir())
        assert [seed.name for seed in seeds] == [f"seed-{k}" for k in range(5)]
        for seed in seeds:
            assert json.loads((seed / "manifest.json").read_text())["method"]["train_seed"] == int(seed.name[-1])
            read_artefact(seed)


def test_what_is_searched_are_parameters_of_the_algorithms() -> None:
    for algo, space in SPACES.items():
        for name, values in space.items():
            assert name in ALGORITHMS[algo], (algo, name)
            for value in values:
                hyperparameters_for(ID, algo, {name: value})


def test_a_dataset_is_what_single_environments_show(tmp_path: Path, capsys, monkeypatch) -> None:
    """Episode b replayed in a fresh environment seeded with seed + b: the same observations, masks and rewards."""
    import minari

    words = ["dataset", ID, "--policy", "greedy", "--instance", "demo", "--episodes", "2", "--seed", "5"]
    assert run(*words, "-o", str(tmp_path), "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["episodes"], record["steps"]) == (2, 2000)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    made = minari.load_dataset(record["name"])
    for b, episode in enumerate(made.iterate_episodes()):
        env = made.recover_environment()
        obs, info = env.reset(seed=5 + b)
        assert len(episode.actions) == 1000
        for t in range(1000):
            np.testing.assert_array_equal(episode.observations[t], obs)
            np.testing.assert_array_equal(episode.infos["action_mask"][t], info["action_mask"])
            obs, reward, terminated, truncated, info = env.step(episode.actions[t])
            assert reward == pytest.approx(episode.rewards[t], rel=1e-6)
            assert (terminated, truncated) == (episode.terminations[t], episode.truncations[t])
        np.testing.assert_array_equal(episode.observations[1000], obs)


def test_a_dataset_is_not_overwritten(tmp_path: Path, capsys) -> None:
    words = ["dataset", ID, "--policy", "greedy", "--instance", "toy", "--episodes", "1", "-o", str(tmp_path)]
    assert run(*words) == 0
    assert run(*words) == 2
    assert "already exists" in capsys.readouterr().err.replace("\n", " ")


def test_the_zoo_is_made_of_tasks_and_seeds_and_goes_on(tmp_path: Path) -> None:
    tasks = [find_task("demo"), find_task("random-3x4")]
    lines: list[str] = []
    made = build_zoo(tmp_path / "runs", tmp_path / "zoo", [ID], (0, 1), 300, lines.append, tasks)
    assert [path.name for path in made] == ["seed-0", "seed-1"]
    for path in made:
        artefact = read_artefact(path, tasks)
        assert [entry.task.name for entry in artefact.entries] == ["demo", "random-3x4"]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("model.zip")}
    build_zoo(tmp_path / "runs", tmp_path / "zoo", [find(ID).id], (0, 1), 300, lines.append, tasks)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("model.zip")}


def test_a_finished_training_is_not_compared_again(tmp_path: Path) -> None:
    """Resuming what is finished runs no baselines."""
    calls: list[int] = []

    def lines() -> dict[str, float]:
        calls.append(1)
        return {"bound": 1.0}

    brief = Measurement(points=1, rows=16, warmup=0, decisions=20, final_decisions=20)
    for _ in range(2):
        train(ID, "toy", None, 100, folder=tmp_path / "run", measurement=brief, progress=False, resume=True, lines=lines)
    assert calls == [1]


def test_the_table_of_results_says_what_the_board_says() -> None:
    """A made-up board: the best agent stands against the best baseline, as a share of the optimum where that is known."""

    def row(name: str, kind: str, mean: float, **further: object) -> dict[str, object]:
        interval = {"mean": mean, "low": mean - 0.02, "high": mean + 0.02}
        plain = {"verdict": "best", "difference": None, "is_above_bound": False, "score": interval}
        return {"name": name, "kind": kind, "objective": interval, **plain, **further}

    gain = {"mean": 0.5, "low": 0.4, "high": 0.6}
    unconfirmed: dict[str, object] = {"verdict": "better", "difference": gain, "fresh": None}
    confirmed = {**unconfirmed, "fresh": {"verdict": "better"}}
    rows = [
        row("optimal", "optimum", 4.0),
        row("greedy", "baseline", 3.0),
        row("zoo", "agent", 3.5, **confirmed),
        row("other", "agent", 3.25, **unconfirmed),
        row("broken", "agent", 9.0, is_above_bound=True),
    ]
    task = {"name": "demo", "id": ID, "anchor": "random", "rows": rows, "optimum": {"value": 4.0}}
    unknown = {"name": "big", "id": ID, "anchor": "random", "rows": rows[1:2], "optimum": {"refused": "too large"}}
    board = {"tasks": [task, unknown], "methods": []}
    lines = results_table(board, ID).splitlines()
    assert lines[2] == ("| demo | random | greedy 3 ± 0.02 | zoo 3.5 ± 0.02 | 87.50% of the optimum | better (+0.5 ± 0.1) |")
    assert lines[3] == "| big | random | greedy 3 ± 0.02 | none yet | score 3.000 |  |"
    assert results_table(board, "MatchingQueues-v0") == ""
    assert verdicts(board) == {"better": 1, "tie": 0, "worse": 0}
    rows[2] = row("zoo", "agent", 3.5, **unconfirmed)
    assert verdicts(board) == {"better": 0, "tie": 1, "worse": 0}
