"""Small boards for the tests of the leaderboard."""

import hashlib
import json
from pathlib import Path

import numpy as np

from matchgym.leaderboards.artefact import MANIFEST
from matchgym.leaderboards.entrants import baselines
from matchgym.leaderboards.network import OPERATIONS, Layer, Network
from matchgym.leaderboards.season import open_season
from matchgym.leaderboards.store import RECORDS, FolderStore, canonical, sha256
from matchgym.leaderboards.submission import submit_baselines, verify_leaders
from matchgym.leaderboards.tasks import SUITE_VERSION, Task, find_task

ID = "StationaryMatching-v0"
SECRET = bytes(range(32))
N_IN, N_OUT = 5, 3  # numbers in and out of `random_network`


def noon() -> str:
    """A clock that stands still."""
    return "2026-01-01T12:00:00Z"


def tiny(instance: str, seed: int) -> Task:
    digest = find_task("demo").entry.model.load(instance).sha256
    return Task(
        name=f"tiny-{instance}",
        id=ID,
        instance=instance,
        sha256=digest,
        replications=24,
        warmup=10,
        decisions=50,
        seed=seed,
        note="Small.",
        bound_kind="tlp-online",
    )


TINY = (tiny("toy", 5), tiny("demo", 50))


def board_with_baselines(folder: Path, tasks=TINY, jobs: int = 1) -> FolderStore:
    """An open season in a folder with all baselines; the pages are not written yet."""
    store = FolderStore(folder, noon)
    open_season(store, "one", secret=SECRET)
    submit_baselines(baselines(tasks), store, tasks, jobs=jobs)
    verify_leaders(store, tasks, jobs=jobs)
    return store


def small_network(n_inputs: int, n_outputs: int, seed: int = 0, n_hidden: int = 8) -> Network:
    """A random network with one hidden layer."""
    rng = np.random.default_rng(seed)
    constants = {
        "w": rng.normal(size=(n_inputs, n_hidden)).astype(np.float32),
        "b": rng.normal(size=n_hidden).astype(np.float32),
        "u": rng.normal(size=(n_hidden, n_outputs)).astype(np.float32),
    }
    layers = (
        Layer("MatMul", ("x", "w"), "h", {}),
        Layer("Add", ("h", "b"), "g", {}),
        Layer("Tanh", ("g",), "t", {}),
        Layer("MatMul", ("t", "u"), "y", {}),
    )
    return Network(n_inputs, n_outputs, "x", "y", constants, layers)


def random_network(seed: int = 0) -> Network:
    """(x - a) / b, a hidden layer of each activation, tables of more axes, and scores."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    constants = {
        "a": normal(N_IN),
        "b": np.abs(normal(1, N_IN)) + 1,
        "w": normal(7, N_IN),
        "v": normal(7),
        "u": normal(7, N_OUT),
        "p": normal(2, 4),
        "q": normal(1, 1, 3, 4),
        "r": normal(12, N_OUT),
    }
    layers = [
        Layer("Sub", ("x", "a"), "t0", {}),
        Layer("Div", ("t0", "b"), "t1", {}),
        Layer("Gemm", ("t1", "w", "v"), "t2", {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    ]
    axes = {"Reshape", "Slice", "Concat", "ReduceMean"}
    unary = [name for name, operation in OPERATIONS.items() if operation.inputs == (1,) and name not in axes]
    for name in unary:
        settings = {"alpha": 0.3} if name in ("LeakyRelu", "Elu") else {}
        layers.append(Layer(name, (layers[-1].output,), f"h{name}", settings))
    layers += [Layer("Add", ("t2", layers[-1].output), "t3", {}), Layer("Mul", ("t3", "t2"), "t4", {})]
    layers += [
        Layer("Slice", ("t4",), "s0", {"starts": (1,), "ends": (7,), "axes": (1,)}),
        Layer("Reshape", ("s0",), "s1", {"shape": (0, 2, 3, 1)}),
        Layer("ReduceMean", ("s1",), "s2", {"axes": (1, 2), "keepdims": 1}),
        Layer("Sub", ("s1", "s2"), "s3", {}),
        Layer("Concat", ("s1", "s3"), "s4", {"axis": 3}),
        Layer("MatMul", ("s4", "p"), "s5", {}),
        Layer("Mul", ("s5", "q"), "s6", {}),
        Layer("ReduceMean", ("s6",), "s7", {"axes": (1,), "keepdims": 0}),
        Layer("Reshape", ("s7",), "s8", {"shape": (0, 12)}),
        Layer("MatMul", ("s8", "r"), "s9", {}),
        Layer("MatMul", ("t4", "u"), "t5", {}),
        Layer("Add", ("s9", "t5"), "y", {}),
    ]
    return Network(N_IN, N_OUT, "x", "y", constants, tuple(layers))


def write_artefact(folder: Path, kind="declarative/1", data=b'{"policy": "greedy", "parameters": {}}', **changes) -> Path:
    """An artefact with one entry; `entry`, `agent` and `method` change parts of its manifest, other names whole keys."""
    folder.mkdir(exist_ok=True)
    (folder / "policy").write_bytes(data)
    entry = {
        "task": "demo", "kind": kind, "file": "policy", "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data),
        "action_mode": "greedy",
    }  # fmt: skip
    method = {
        "algorithm": "rule", "library": "matchgym", "library_version": "0", "training_steps": 0, "wall_s": 0.0,
        "hardware": "-", "train_seed": 0,
    }  # fmt: skip
    manifest = {
        "schema_version": 1,
        "suite": {"name": "matchgym", "version": SUITE_VERSION},
        "entries": [entry | changes.pop("entry", {})],
        "agent": {"name": "a", "authors": ["b"], "description": "c", "licence": "MIT"} | changes.pop("agent", {}),
        "method": method | changes.pop("method", {}),
        "declares": {"used_public_seeds_only": True, "uses_model_parameters": True},
    } | changes
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


def rechain(folder: Path, change) -> None:
    """Alter records and make the chain whole again, as a forger would; `change(records)` works in place."""
    records = FolderStore(folder).records()
    change(records)
    previous, lines = "0" * 64, []
    for n, record in enumerate(records):
        record |= {"n": n, "previous": previous}
        record["sha256"] = sha256(canonical({key: value for key, value in record.items() if key != "sha256"}))
        previous = record["sha256"]
        lines.append(canonical(record) + "\n")
    (folder / RECORDS).write_text("".join(lines))
