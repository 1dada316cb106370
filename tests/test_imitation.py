"""Agents that learn from a baseline first, further algorithms, and what is exported of them."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sb3_contrib")

import matchgym  # noqa: F401
from matchgym.agents import AgentPolicy, Measurement, hyperparameters_for, train
from matchgym.agents.extra import torch
from matchgym.agents.hyperparameters import ALGORITHMS, RECIPES, recipe_for
from matchgym.agents.imitation import agreement, demonstrate
from matchgym.agents.learner import build
from matchgym.agents.sb3 import make_native
from matchgym.agents.training import default_algorithm
from matchgym.envs.instance import InputError
from matchgym.envs.registry import ENTRIES, find
from matchgym.leaderboards.artefact import NetworkPolicy, probe, scores_shape
from matchgym.leaderboards.export import check_agreement, export_agents, network_of
from matchgym.leaderboards.tasks import TASKS, find_task

BRIEF = Measurement(points=2, rows=16, warmup=20, decisions=40, final_decisions=40)
TINY = {"n_envs": 16, "n_steps": 16, "batch_size": 64, "net_arch": [16], "learning_starts": 64, "buffer_size": 2000}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Small networks are slower with more."""
    torch.set_num_threads(1)


def tiny(algo: str) -> dict:
    return {name: value for name, value in TINY.items() if name in ALGORITHMS[algo]}


def test_a_copied_policy_decides_and_earns_as_its_teacher() -> None:
    """Nearest to a table: dispatch by price on the demo instance, whose decisions depend on the customer and on who waits."""
    native = make_native("StationaryMatching-v0", "demo", 64)
    entry = find("StationaryMatching-v0")
    teacher = entry.layer("baselines").POLICIES["price-greedy"]().fit("demo")
    model = build("maskable_ppo", native, hyperparameters_for(entry.id, "maskable_ppo", {"n_envs": 64}), 0, teacher)
    fresh = demonstrate(native, teacher, 12345, 50, 100, straying=0.0)
    assert agreement(model, fresh) > 0.995
    untaught = build("maskable_ppo", native, hyperparameters_for(entry.id, "maskable_ppo", {"n_envs": 64}), 0)
    assert agreement(untaught, fresh) < 0.9


def test_numbers_at_an_end_of_their_range_are_copied_exactly() -> None:
    """A design joins types or does not: a compatibility of 0.0001 in place of 0 is another graph."""
    env_id, instance = "DataLocalityDesign-v0", "paper"
    native = make_native(env_id, instance, 16)
    teacher = find(env_id).layer("baselines").POLICIES["delay-optimised"]().fit(native.unwrapped.instance)
    model = build(
        "ppo", native, hyperparameters_for(env_id, "ppo", {"n_envs": 16, "n_steps": 10, "batch_size": 160}), 3, teacher
    )
    obs, _ = native.reset(seed=5)
    wanted, _ = teacher.predict(obs)
    found, _ = model.predict(obs, deterministic=True)
    at_an_end = (wanted == 0) | (wanted == 1)
    assert 0 < at_an_end.sum() < at_an_end.size
    np.testing.assert_array_equal(found[at_an_end], wanted[at_an_end])
    np.testing.assert_allclose(found, wanted, atol=0.01)


def test_the_critic_learns_what_the_teacher_earns() -> None:
    """Values of the copied policy against discounted returns on fresh paths: most of the variance that a state explains."""
    native = make_native("FloatingClients-v0", "toy", 256)
    teacher = find("FloatingClients-v0").layer("baselines").POLICIES["jsq"]().fit("toy")
    table = hyperparameters_for("FloatingClients-v0", "maskable_ppo", {"gamma": "0.9", "scale_rewards": "false"})
    model = build("maskable_ppo", native, table, 0, teacher)
    fresh = demonstrate(native, teacher, 999, 20, 80)
    returns = fresh.returns(0.9, 0.0, 1.0)[:30]  # the rest is cut off too early
    with torch.no_grad():
        values = model.policy.predict_values(torch.as_tensor(fresh.observations[:30].reshape(-1, fresh.observations.shape[2])))
    found = values.numpy().reshape(returns.shape)
    assert abs(found.mean() - returns.mean()) < 0.1 * returns.mean()
    assert np.corrcoef(found.ravel(), returns.ravel())[0, 1] > 0.5


def test_returns_are_discounted_and_stop_at_the_end_of_an_episode() -> None:
    native = make_native("StationaryMatching-v0", "toy", 3)
    shown = demonstrate(native, None, 1, 0, 5)
    rewards = np.arange(15.0).reshape(5, 3)
    dones = np.zeros((5, 3), bool)
    dones[2, 1] = True
    found = shown._replace(rewards=rewards, dones=dones).returns(0.5, 1.0, 2.0)
    scaled = (rewards - 1.0) / 2.0
    assert found[4, 0] == scaled[4, 0]
    assert found[0, 0] == pytest.approx(sum(0.5**k * scaled[k, 0] for k in range(5)))
    assert found[0, 1] == pytest.approx(sum(0.5**k * scaled[k, 1] for k in range(3)))
    assert found[3, 1] == pytest.approx(scaled[3, 1] + 0.5 * scaled[4, 1])


def test_a_demonstration_strays_where_it_says_and_labels_stay_the_teachers() -> None:
    native = make_native("StationaryMatching-v0", "toy", 200)
    teacher = find("StationaryMatching-v0").layer("baselines").POLICIES["greedy"]().fit("toy")
    shown = demonstrate(native, teacher, 3, 10, 50, straying=0.5)
    waits = shown.masks[:, :, 0]
    np.testing.assert_array_equal(shown.actions[waits], 0)  # greedy matches whenever somebody waits
    played_alike = shown.rewards[waits] > 0
    assert 0.7 < played_alike.mean() < 0.8  # half of the decisions are random, half of those match


@pytest.mark.parametrize(
    ("algo", "env_id", "instance"),
    [
        ("qrdqn", "StationaryMatching-v0", "toy"),
        ("dqn", "GeneralMatching-v0", "demo"),
        ("a2c", "MatchingQueues-v0", "toy"),
        ("maskable_ppo", "CongestionLearning-v0", "tables"),
        ("ppo", "CongestionLearning-v0", "healthcare"),
        ("ppo", "FreelanceMarket-v0", "section1"),
        ("sac", "FreelanceAdmission-v0", "overload-24"),
        ("tqc", "DataLocalityDesign-v0", "toy"),
    ],
)
def test_every_algorithm_trains_and_its_network_is_exported(algo: str, env_id: str, instance: str, tmp_path: Path) -> None:
    """Exported networks decide as their models in 10,000 states, whatever the kind of action."""
    result = train(env_id, instance, algo, 600, params=tiny(algo), folder=tmp_path / "run", measurement=BRIEF, progress=False)
    agent = AgentPolicy.load(result.folder).fit(instance)
    entry = find(env_id)
    network = network_of(agent.model, *scores_shape(entry, agent.instance, agent.options))
    probe(network)
    exported = NetworkPolicy(network, entry, False, agent.options).fit(instance)
    check_agreement(agent, exported, 0)
    assert agent.options == recipe_for(env_id, algo, instance).get("options", {})


def test_a_recurrent_policy_trains_and_says_that_it_cannot_be_exported(tmp_path: Path) -> None:
    result = train(
        "CongestionLearning-v0", "tables", "recurrent_ppo", 300, params=tiny("recurrent_ppo") | {"n_envs": 4},
        folder=tmp_path / "run", measurement=BRIEF, progress=False,
    )  # fmt: skip
    with pytest.raises(InputError, match="recurrent"):
        network_of(result.policy.model, 47, 12)


def test_one_artefact_for_several_tasks(tmp_path: Path) -> None:
    folders = []
    for name in ("demo", "random-3x4"):
        folders.append(tmp_path / name)
        train(
            "StationaryMatching-v0", name, None, 300, 3, tiny("maskable_ppo"),
            folder=folders[-1], measurement=BRIEF, progress=False,
        )  # fmt: skip
    manifest = json.loads(export_agents(folders, tmp_path / "out", "both", ["A. Author"]).read_text())
    assert [entry["task"] for entry in manifest["entries"]] == ["demo", "random-3x4"]
    assert manifest["method"]["train_seed"] == 3
    trained = json.loads((tmp_path / "out" / "demo.json").read_text())
    assert trained["curve"]["final"]["mean"] > 0
    assert trained["versions"]["numpy"]
    with pytest.raises(InputError, match="two agents are for the task"):
        export_agents([folders[0], folders[0]], tmp_path / "twice", "both", ["A. Author"])


def test_recipes_are_of_what_there_is() -> None:
    """Every id, algorithm, instance and parameter of recipes.toml exists, and policies that are imitated do."""
    import tomllib

    recipes = tomllib.loads(RECIPES.read_text())
    ids = {entry.id: entry for entry in ENTRIES}
    for env_id, algorithms in recipes.items():
        entry = ids[env_id]
        for name, algo in algorithms.pop("algo", {}).items():
            assert name in entry.model.catalogue
            assert default_algorithm(env_id, entry.model.load(name)) == algo in ALGORITHMS
        for algo, found in algorithms.items():
            for name in ["", *(key for key, value in found.items() if isinstance(value, dict) and key != "options")]:
                assert not name or name in entry.model.catalogue or any(task.instance == name for task in TASKS)
                hyperparameters_for(env_id, algo, None, name)
                recipe = recipe_for(env_id, algo, name)
                assert recipe.get("imitate", "none") in ("none", *entry.layer("baselines").POLICIES)
                entry.model.check_options(recipe.get("options", {}))
    assert find_task("demo").instance == "demo"


def test_faults_are_named(tmp_path: Path) -> None:
    for arguments, named in (
        ({"teacher": "nobody"}, "nobody"),
        ({"algo": "dqn", "teacher": "greedy"}, "cannot imitate"),
        ({"algo": "sac"}, "numbers"),
        ({"patience": 0}, "patience"),
    ):
        with pytest.raises(InputError, match=named):
            train("StationaryMatching-v0", "toy", folder=tmp_path / "run", timesteps=100, progress=False, **arguments)


def test_patience_stops_a_training_that_gets_no_better(tmp_path: Path) -> None:
    """The toy is learnt at once; from there on no point is better, and training ends long before its time."""
    result = train(
        "StationaryMatching-v0", "toy", None, 200_000, params=tiny("maskable_ppo"), folder=tmp_path / "run",
        measurement=Measurement(points=200, rows=16, warmup=10, decisions=40, final_decisions=40), patience=3, progress=False,
    )  # fmt: skip
    assert result.timesteps < 50_000
    means = [point.mean for point in result.evaluations]
    assert len(means) - 1 - int(np.argmax(means)) >= 3
