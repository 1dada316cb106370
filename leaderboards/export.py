"""From trained agents to an artefact: their networks as ONNX, checked against the models, and a manifest."""

import hashlib
import json
import math
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from matchgym.agents.extra import BaseAlgorithm, torch
from matchgym.agents.files import write_whole
from matchgym.agents.networks import SharedExtractor, Standardise, WideExtractor
from matchgym.agents.policy import AgentPolicy
from matchgym.agents.sb3 import make_native, random_actions
from matchgym.envs.instance import InputError, shorten
from matchgym.envs.registry import find
from matchgym.leaderboards.artefact import (
    MANIFEST,
    PROBE_TOLERANCE,
    SCHEMA_VERSION,
    SUITE,
    NetworkPolicy,
    probe,
    read_artefact,
    scores_shape,
)
from matchgym.leaderboards.entrants import entry_keys
from matchgym.leaderboards.network import Array, Layer, Network
from matchgym.leaderboards.onnx_file import read_network, write_network
from matchgym.leaderboards.tasks import SUITE_VERSION, TASKS, Task, find_family

AGREEMENT_ROWS, AGREEMENT_STEPS = 100, 100  # states on which the exported network is compared with the model
ACTIVATIONS = {torch.nn.Tanh: "Tanh", torch.nn.ReLU: "Relu", torch.nn.Sigmoid: "Sigmoid", torch.nn.Identity: "Identity"}


def export_agents(
    folders: Sequence[Path],
    out: Path,
    name: str,
    authors: list[str],
    licence: str = "MIT",
    description: str = "Trained with matchgym.",
    action_mode: str = "greedy",
    tasks: Sequence[Task] = TASKS,
    family: str | None = None,
    entered: Sequence[Task] = (),
) -> Path:
    """Write the artefact of agents that `train` left in `folders` into `out`; returns the path of its manifest.

    Each agent is entered for every task of the instance that it was trained on, and for a whole family if that is the public
    instance of one of its tasks; with `family`, for that family, and with `entered` (a task for each folder) for that task,
    whatever it was trained on. Beside each network stands a file that says how it was trained. Raises InputError if there is no
    such task or two agents are for the same, if the seeds of the trainings differ, if a network is none that the kind
    onnx-mlp/1 can hold, or if an exported network decides otherwise than its model on one of 10,000 states.
    """
    agents = [_Trained(folder, entered[k : k + 1] or tasks, family, bool(entered)) for k, folder in enumerate(folders)]
    named = [task.name for agent in agents for task in agent.tasks]
    for agent in agents:
        if any(named.count(task.name) > 1 for task in agent.tasks):
            raise InputError(f"two agents are for the task {agent.tasks[0].name}; give one for each.")
    seeds, algorithms = ({agent.config[key] for agent in agents} for key in ("seed", "algo"))
    if len(seeds) > 1:
        raise InputError("the agents were trained with different seeds; export those of one seed together.")
    libraries = sorted({agent.library for agent in agents})
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "suite": {"name": SUITE, "version": SUITE_VERSION},
        "entries": [entry for agent in agents for entry in agent.write(out, action_mode)],
        "agent": {"name": name, "authors": authors, "description": description, "licence": licence},
        "method": {
            "algorithm": ", ".join(sorted(algorithms)),
            "library": ", ".join(libraries),
            "library_version": ", ".join(version(library) for library in libraries),
            "training_steps": sum(int(final_of(agent.folder)["timesteps"]) for agent in agents),
            "wall_s": sum(float(final_of(agent.folder)["seconds"]) for agent in agents),
            "hardware": f"{platform.system()} {platform.machine()}",
            "train_seed": int(seeds.pop()),
        },
        "declares": {"used_public_seeds_only": True, "uses_model_parameters": False},
    }
    write_whole(out / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    read_artefact(out, tasks)
    return out / MANIFEST


class _Trained:
    """A trained agent's folder, and the tasks that it is for."""

    def __init__(self, folder: Path, tasks: Sequence[Task], family: str | None, is_entered: bool) -> None:
        self.folder, self.agent = folder, AgentPolicy.load(folder)
        self.config = json.loads((folder / "config.json").read_text())
        mine = [task for task in tasks if task.id == self.config["id"]]
        if is_entered:
            self.tasks = mine
        elif family is None:
            self.tasks = [task for task in mine if task.practice().load().sha256 == self.config["instance_sha256"]]
        else:
            self.tasks = find_family(family, mine)
        if not self.tasks:
            raise InputError(f"the agent in {shorten(str(folder))} was trained on an instance that no task uses.")

    @property
    def library(self) -> str:
        is_contrib = type(self.agent.model).__module__.startswith("sb3_contrib")
        return "sb3-contrib" if is_contrib else "stable-baselines3"

    def write(self, out: Path, action_mode: str) -> list[dict[str, Any]]:
        """Write the network and how it was trained; returns the entries of the manifest."""
        agent, entry, instance = self.agent, find(self.agent.env_id), self.tasks[0].practice().load()
        shape = scores_shape(entry, instance, agent.options)
        data = write_network(network_of(agent.model, *shape))
        network = read_network(data, *shape)  # through the gate, as everyone
        probe(network)
        exported = NetworkPolicy(network, entry, False, agent.options).fit(instance)
        check_agreement(agent.fit(instance), exported, int(self.config["seed"]))
        stem = self.tasks[0].name
        write_whole(out / f"{stem}.onnx", data)
        curve = json.loads((self.folder / "curve.json").read_text())
        write_whole(out / f"{stem}.json", json.dumps({**self.config, "curve": curve}, indent=1) + "\n")
        return [
            {
                **key,
                "kind": "onnx-mlp/1",
                "file": f"{stem}.onnx",
                "sha256": hashlib.sha256(data).hexdigest(),
                "bytes": len(data),
                "action_mode": action_mode,
            }
            | ({"options": dict(agent.options)} if agent.options else {})
            for key in entry_keys(self.tasks)
        ]


def final_of(folder: Path) -> dict[str, Any]:
    """The end of a training's learning curve: environment steps, wall time and objective."""
    try:
        return dict(json.loads((folder / "curve.json").read_text())["final"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{shorten(str(folder))} lacks a readable curve.json; give a folder written by train.") from None


class _Writer:
    """Puts layers one after the other."""

    def __init__(self) -> None:
        self.constants: dict[str, Array] = {}
        self.layers: list[Layer] = []

    def add(self, operation: str, *inputs: Any, **settings: Any) -> str:
        """A layer on arrays, which become constants, and outputs of layers, which are texts. Returns its output."""
        names = []
        for array in inputs:
            if isinstance(array, str):
                names.append(array)
            else:
                names.append(f"c{len(self.constants)}")
                self.constants[names[-1]] = np.asarray(array, np.float32)
        self.layers.append(Layer(operation, tuple(names), f"t{len(self.layers)}", settings))
        return self.layers[-1].output

    def follow(self, source: str, module: torch.nn.Module) -> str:
        """The layers of a torch module without branches."""
        for part in module.modules():
            if list(part.children()):
                continue
            if isinstance(part, torch.nn.Linear):
                source = self.add("Gemm", source, *_arrays(part), transB=1)
            elif type(part) in ACTIVATIONS:
                source = self.add(ACTIVATIONS[type(part)], source)
            elif not isinstance(part, torch.nn.Sequential):  # an empty one does nothing
                raise InputError(f"a layer of type {type(part).__name__} cannot be exported; use linear layers, tanh and relu.")
        return source


def _arrays(layer: torch.nn.Linear) -> tuple[Array, Array]:
    return layer.weight.detach().cpu().numpy(), layer.bias.detach().cpu().numpy()


def network_of(model: BaseAlgorithm, n_inputs: int, n_outputs: int) -> Network:
    """The part of a Stable-Baselines3 model that decides: logits of an actor, Q-values, or the numbers of an action."""
    policy: Any = model.policy
    writer = _Writer()
    if hasattr(policy, "lstm_actor"):
        raise InputError("a recurrent network cannot be exported: the kind onnx-mlp/1 has no memory.")
    values: Any = getattr(policy, "q_net", None) or getattr(policy, "quantile_net", None)
    acting = values or (policy.actor if hasattr(policy, "actor") else policy)
    features = _Features(writer, getattr(acting, "pi_features_extractor", None) or acting.features_extractor)
    if hasattr(policy, "quantile_net"):  # the mean over the quantiles of each action is linear
        *hidden, last = values.quantile_net
        weights, bias = _arrays(last)
        source = features.enter(torch.nn.Sequential(*hidden))
        by_quantile = (values.n_quantiles, n_outputs)
        means = weights.reshape(*by_quantile, -1).mean(0), bias.reshape(by_quantile).mean(0)
        source = writer.add("Gemm", source, *means, transB=1)
    elif values is not None:
        source = features.enter(values.q_net)
    elif hasattr(policy, "actor"):  # of SAC and TQC: squashed, then stretched to the ends of the space
        space: Any = model.action_space
        low, high = (np.broadcast_to(end, space.shape).ravel() for end in (space.low, space.high))
        source = features.enter(torch.nn.Sequential(acting.latent_pi, acting.mu))
        source = writer.add("Mul", writer.add("Tanh", source), (high - low) / 2)
        source = writer.add("Add", source, (high + low) / 2)
    elif isinstance(policy.mlp_extractor, SharedExtractor):
        source = _shared(features, policy.mlp_extractor)
    else:
        weights, bias = _arrays(policy.action_net)
        deep = features.enter(policy.mlp_extractor.policy_net)
        width = weights.shape[1] - (features.size if isinstance(policy.mlp_extractor, WideExtractor) else 0)
        source = writer.add("Gemm", deep, weights[:, :width], bias, transB=1)
        if width < weights.shape[1]:
            source = writer.add("Add", source, features.linear(weights[:, width:]))
    return Network(n_inputs, n_outputs, "observation", source, writer.constants, tuple(writer.layers))


class _Features:
    """What the features extractor makes of the observation: tables of one width, one beside the other."""

    def __init__(self, writer: _Writer, extractor: Any) -> None:
        self.writer = writer
        self.tables = ["observation"]
        if isinstance(extractor, Standardise):
            shifted = writer.add("Sub", "observation", extractor.shift.cpu().numpy())
            self.tables = [writer.add("Div", shifted, extractor.scale.cpu().numpy())]
            if extractor.saturate:
                counts = writer.add("Relu", "observation")
                self.tables += [writer.add("Div", counts, writer.add("Add", counts, [c])) for c in extractor.saturate]
        elif list(extractor.parameters()) or list(extractor.buffers()):
            raise InputError(f"a {type(extractor).__name__} cannot be exported; train with the features of `matchgym train`.")
        self.size = int(extractor.features_dim)
        self.width = self.size // len(self.tables)

    def linear(self, weights: Array, *bias: Array) -> str:
        """A linear function of the features; weights (n_outputs, size)."""
        first, *others = np.split(weights, len(self.tables), axis=1)
        source = self.writer.add("Gemm", self.tables[0], first, *bias, transB=1)
        for table, part in zip(self.tables[1:], others):
            source = self.writer.add("Add", source, self.writer.add("Gemm", table, part, transB=1))
        return source

    def enter(self, module: torch.nn.Module) -> str:
        """The layers of a torch module that starts from the features."""
        first, *rest = [part for part in module.modules() if not list(part.children())] or [torch.nn.Identity()]
        if isinstance(first, torch.nn.Linear):
            return self.writer.follow(self.linear(*_arrays(first)), torch.nn.Sequential(*rest))
        if len(self.tables) > 1:
            raise InputError("a network without hidden layers cannot be exported together with saturate; set one of them.")
        return self.writer.follow(self.tables[0], module)


def _shared(features: _Features, extractor: SharedExtractor) -> str:
    """The scores of a network that all pairs share.

    What describes a row, a column or all pairs alike is weighted before it meets what describes the pairs.
    """
    writer, actor, (n, m, members) = features.writer, extractor.actor, extractor.pairs
    weights, bias = (torch.cat([own, linear]) for own, linear in zip(actor.own.parameters(), actor.linear.parameters()))
    width = len(bias) - 1
    groups: dict[tuple[int, int], dict[int, str]] = {}
    for place, which in enumerate(members):
        spread = np.reshape(which, (n, m))
        extents = 1 if (spread == spread[0]).all() else n, 1 if (spread[:, 0] == spread.T).all() else m
        table, start = features.tables[spread.min() // features.width], int(spread.min() % features.width)
        part = writer.add("Slice", table, starts=(start,), ends=(start + math.prod(extents),), axes=(1,))
        groups.setdefault(extents, {})[place] = writer.add("Reshape", part, shape=(0, *extents, 1))
    source = ""
    for parts in groups.values():
        together = writer.add("Concat", *parts.values(), axis=3)
        weighted = writer.add("MatMul", together, weights[:, list(parts)].T.detach().numpy())
        source = writer.add("Add", source, weighted) if source else weighted
    source = writer.add("Add", source, bias.detach().numpy())
    own = writer.add("Tanh", writer.add("Slice", source, starts=(0,), ends=(width,), axes=(3,)))
    linear = writer.add("Slice", source, starts=(width,), ends=(width + 1,), axes=(3,))
    weights, bias = _arrays(actor.both)
    described = [own, *(writer.add("ReduceMean", own, axes=(axis,), keepdims=1) for axis in (2, 1))]
    both = [writer.add("MatMul", part, each.T) for part, each in zip(described, np.split(weights, 3, axis=1))]
    around = writer.add("Add", writer.add("Add", both[1], both[2]), bias)
    source = writer.add("Tanh", writer.add("Add", both[0], around))
    weights, bias = _arrays(actor.score)
    source = writer.add("Add", writer.add("Add", writer.add("MatMul", source, weights.T), bias), linear)
    return writer.add("Reshape", source, shape=(0, n * m))


def check_agreement(agent: AgentPolicy, exported: NetworkPolicy, seed: int) -> None:
    """Compare decisions on 10,000 states visited under random valid actions; InputError if one differs.

    Choices whose scores are equal up to rounding are not different: a network that scores all servers by the same weights gives
    equal scores to those that it is told the same of.
    """
    native: Any = make_native(agent.env_id, agent.instance.to_dict(), AGREEMENT_ROWS, options=agent.options)
    rng = np.random.default_rng(seed)
    obs, _ = native.reset(seed=seed)
    native.action_space.seed(seed)
    different = 0
    for _ in range(AGREEMENT_STEPS):
        masks = native.action_masks()
        used = masks if agent.heeds_masks else None
        mine, _ = agent.predict(obs, deterministic=True, action_masks=used)
        theirs, _ = exported.predict(obs, deterministic=True, action_masks=used)
        if isinstance(native.single_action_space, gym.spaces.Box):
            apart = ~np.isclose(mine, theirs, rtol=PROBE_TOLERANCE, atol=PROBE_TOLERANCE)
        else:
            apart = (mine != theirs) & (_lead(exported, obs, theirs, mine) > PROBE_TOLERANCE)
        different += int(apart.reshape(AGREEMENT_ROWS, -1).any(axis=1).sum())
        obs, *_ = native.step(random_actions(native, rng))
    if different:
        raise InputError(f"the exported network decides otherwise than the model in {different} of 10000 states.")


def _lead(exported: NetworkPolicy, obs: Array, chosen: NDArray[np.int64], other: NDArray[np.int64]) -> Array:
    """By how much the scores of one choice are above those of another, relative to their size; the shape is that of choices."""
    scores, rows = exported.network.run(obs), np.arange(len(obs))
    if isinstance(exported.space, gym.spaces.MultiDiscrete):
        first = np.cumsum(exported.space.nvec.ravel()) - exported.space.nvec.ravel()
        chosen, other, rows = chosen + first, other + first, rows[:, None]
    high, low = scores[rows, chosen], scores[rows, other]
    lead: Array = (high - low) / (1 + np.abs(high))
    return lead
