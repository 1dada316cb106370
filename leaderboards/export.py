"""From a trained agent to an artefact: the network as ONNX, checked against the model, and its manifest."""

import hashlib
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from matchgym.agents.extra import BaseAlgorithm, torch
from matchgym.agents.files import write_whole
from matchgym.agents.policy import AgentPolicy, Standardise
from matchgym.agents.sb3 import make_native
from matchgym.envs.instance import InputError, shorten
from matchgym.envs.registry import find
from matchgym.leaderboards.artefact import MANIFEST, SCHEMA_VERSION, SUITE, NetworkPolicy, probe, read_artefact, scores_shape
from matchgym.leaderboards.entrants import entry_keys
from matchgym.leaderboards.network import Array, Layer, Network
from matchgym.leaderboards.onnx_file import read_network, write_network
from matchgym.leaderboards.tasks import SUITE_VERSION, TASKS, Task, find_family

AGREEMENT_ROWS, AGREEMENT_STEPS = 100, 100  # states on which the exported network is compared with the model
ACTIVATIONS = {torch.nn.Tanh: "Tanh", torch.nn.ReLU: "Relu", torch.nn.Sigmoid: "Sigmoid", torch.nn.Identity: "Identity"}


def export_agent(
    folder: Path,
    out: Path,
    name: str,
    authors: list[str],
    licence: str = "MIT",
    description: str = "Trained with matchgym.",
    action_mode: str = "greedy",
    tasks: Sequence[Task] = TASKS,
    family: str | None = None,
) -> Path:
    """Write the artefact of the agent that `train` left in `folder` into `out`; returns the path of its manifest.

    The agent is entered for every task of the instance that it was trained on, and for a whole family if that is the public
    instance of one of its tasks. With `family` it is entered for that family, whatever it was trained on. Raises InputError if
    there is no such task, if its
    network is none that the kind onnx-mlp/1 can hold, or if the exported network decides otherwise than the model on one of
    10,000 states.
    """
    agent = AgentPolicy.load(folder)
    config = json.loads((folder / "config.json").read_text())
    mine = [task for task in tasks if task.id == config["id"]]
    if family is None:
        mine = [task for task in mine if task.practice().load().sha256 == config["instance_sha256"]]
    else:
        mine = find_family(family, mine)
    if not mine:
        raise InputError(f"the agent in {shorten(str(folder))} was trained on an instance that no task uses.")
    entry, instance = find(agent.env_id), mine[0].practice().load()
    data = write_network(network_of(agent.model, *scores_shape(entry, instance)))
    network = read_network(data, *scores_shape(entry, instance))  # through the gate, as everyone
    probe(network)
    check_agreement(agent.fit(instance), NetworkPolicy(network, entry).fit(instance), int(config["seed"]))

    file = "policy.onnx"
    write_whole(out / file, data)
    library = "sb3-contrib" if config["algo"] == "maskable_ppo" else "stable-baselines3"
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "suite": {"name": SUITE, "version": SUITE_VERSION},
        "entries": [
            {
                **key,
                "kind": "onnx-mlp/1",
                "file": file,
                "sha256": hashlib.sha256(data).hexdigest(),
                "bytes": len(data),
                "action_mode": action_mode,
            }
            for key in entry_keys(mine)
        ],
        "agent": {"name": name, "authors": authors, "description": description, "licence": licence},
        "method": {
            "algorithm": config["algo"],
            "library": library,
            "library_version": version(library),
            "training_steps": int(config["timesteps"]),
            "wall_s": training_seconds(folder),
            "hardware": f"{platform.system()} {platform.machine()}",
            "train_seed": int(config["seed"]),
        },
        "declares": {"used_public_seeds_only": True, "uses_model_parameters": False},
    }
    write_whole(out / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    read_artefact(out, tasks)
    return out / MANIFEST


def training_seconds(folder: Path) -> float:
    """Wall time of the training, from its learning curve."""
    try:
        return float(json.loads((folder / "curve.json").read_text())["final"]["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{shorten(str(folder))} lacks a readable curve.json; give a folder written by train.") from None


def network_of(model: BaseAlgorithm, n_inputs: int, n_outputs: int) -> Network:
    """The part of a Stable-Baselines3 model that scores actions: logits of an actor, or Q-values."""
    policy: Any = model.policy
    if hasattr(policy, "q_net"):
        extractor, parts = policy.q_net.features_extractor, [policy.q_net.q_net]
    else:
        extractor, parts = policy.pi_features_extractor, [policy.mlp_extractor.policy_net, policy.action_net]
    constants: dict[str, Array] = {}
    layers: list[Layer] = []

    def add(operation: str, *arrays: Any, **settings: Any) -> None:
        names = [f"c{len(constants) + k}" for k in range(len(arrays))]
        constants.update({name: array.detach().cpu().numpy().astype(np.float32) for name, array in zip(names, arrays)})
        layers.append(Layer(operation, (layers[-1].output if layers else "observation", *names), f"t{len(layers)}", settings))

    if isinstance(extractor, Standardise):
        add("Sub", extractor.shift)
        add("Div", extractor.scale)
    elif list(extractor.parameters()) or list(extractor.buffers()):
        raise InputError(f"a {type(extractor).__name__} cannot be exported; train with the features of `matchgym train`.")
    for module in (module for part in parts for module in part.modules() if not list(module.children())):
        if isinstance(module, torch.nn.Linear):
            add("Gemm", module.weight, module.bias, transB=1)
        elif type(module) in ACTIVATIONS:
            add(ACTIVATIONS[type(module)])
        else:
            raise InputError(f"a layer of type {type(module).__name__} cannot be exported; use linear layers, tanh and relu.")
    return Network(n_inputs, n_outputs, "observation", layers[-1].output, constants, tuple(layers))


def check_agreement(agent: AgentPolicy, exported: NetworkPolicy, seed: int) -> None:
    """Compare decisions on 10,000 states visited under random valid actions; InputError if one differs."""
    native: Any = make_native(agent.env_id, agent.instance, AGREEMENT_ROWS)
    rng = np.random.default_rng(seed)
    obs, _ = native.reset(seed=seed)
    different = 0
    for _ in range(AGREEMENT_STEPS):
        masks = native.action_masks()
        used = masks if agent.heeds_masks else None
        mine, _ = agent.predict(obs, deterministic=True, action_masks=used)
        theirs, _ = exported.predict(obs, deterministic=True, action_masks=used)
        different += int((mine != theirs).sum())
        obs, *_ = native.step(np.where(masks, rng.uniform(size=masks.shape), -1.0).argmax(1))
    if different:
        raise InputError(f"the exported network decides otherwise than the model in {different} of 10000 states.")
