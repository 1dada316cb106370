"""Artefacts: what people submit. A folder with manifest.json and one file per entry, never a number and never code.

onnx-mlp/1     a network from observations to one score per action, see `onnx_file`. The evaluating side applies the mask and
               takes the largest score (the first of equal ones), or draws from the softmax of the scores; of an action that
               has several parts, for each. Where actions are numbers, the scores are the numbers, cut off at their ends.
declarative/1  {"policy": name, "parameters": {...}}: a policy of this package, as the command line names it, with
               its parameters as numbers, texts or tables of numbers.
"""

import hashlib
import inspect
import re
import typing
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from matchgym.baselines.policy import LISTS, Policy, best_actions, parse_arguments
from matchgym.envs.base import mask_size
from matchgym.envs.instance import InputError, as_array, is_count, shorten, unknown
from matchgym.envs.registry import Entry
from matchgym.envs.rng import seed_words, uniform
from matchgym.leaderboards.store import Store, parse, read_bytes
from matchgym.leaderboards.tasks import SUITE_VERSION, TASKS, Task, find_family, find_task

MANIFEST, SCHEMA_VERSION, SUITE = "manifest.json", 1, "matchgym"
KINDS = ("onnx-mlp/1", "declarative/1")
MODES = ("greedy", "sample")
MAX_ENTRIES, MAX_AUTHORS, MAX_TEXT, MAX_FILE_BYTES = 100, 50, 2_000, 4 * 2**20
FILLERS = "\u115f\u1160"  # letters that nobody sees
MAX_NAME, MAX_MARKS = 80, 2  # characters of an agent's name, and marks above and below one of them
# Options of an environment that an entry may choose: how a decision is expressed, not what is known or how it is rewarded.
FREE_OPTIONS = ("action", "levels", "pools", "admission")
PROBES, PROBE_TOLERANCE, HUGE = 256, 1e-4, 1e6


@dataclass(frozen=True)
class File:
    """One file of an artefact and the task it is for."""

    task: Task
    kind: str
    name: str
    data: bytes
    action_mode: str
    options: Mapping[str, Any] = field(default_factory=dict)  # of the environment, see FREE_OPTIONS

    def on(self, task: Task) -> Self:
        """The same file for a task with another instance or length."""
        return replace(self, task=task)

    def practice(self) -> Self:
        """The same file for what is public of its task."""
        return self.on(self.task.practice())


@dataclass(frozen=True)
class Artefact:
    """A checked manifest, and its files."""

    sha256: str  # of the manifest, which holds the digests of the files
    manifest: bytes
    entries: tuple[File, ...]
    agent: dict[str, Any]
    method: dict[str, Any]
    declares: dict[str, Any]


# The manifest. A table says what a key holds: a type, or a nested table; a key with "?" may be absent.

_ENTRY = {
    "task?": str,
    "family?": str,
    "kind": str,
    "file": str,
    "sha256": str,
    "bytes": int,
    "action_mode": str,
    "options?": dict,
}
_SCHEMA: dict[str, Any] = {
    "schema_version": int,
    "suite": {"name": str, "version": str},
    "entries": list,
    "agent": {"name": str, "authors": list, "description": str, "licence": str, "url?": str, "paper?": str},
    "method": {
        "algorithm": str,
        "library": str,
        "library_version": str,
        "training_steps": int,
        "wall_s": float,
        "hardware": str,
        "train_seed": int,
        "source_commit?": str,
    },
    "declares": {"used_public_seeds_only": bool, "uses_model_parameters": bool},
}


def _check(place: str, value: Any, wanted: Any) -> None:
    """Refuse what is not of the wanted form, naming the place."""
    if isinstance(wanted, dict):
        if not isinstance(value, dict):
            raise InputError(f"{place} must be a JSON object.")
        known = {key.rstrip("?"): kind for key, kind in wanted.items()}
        for key in value:
            if key not in known:
                raise unknown(f"key in {place}", key, known, f"the keys are {', '.join(known)}")
        for key, kind in wanted.items():
            name = key.rstrip("?")
            if name in value:
                _check(f"{place}.{name}", value[name], kind)
            elif not key.endswith("?"):
                raise InputError(f"{place} lacks the key {name}.")
    elif wanted is str:
        if not isinstance(value, str) or not 1 <= len(value) <= MAX_TEXT or not value.replace("\n", " ").isprintable():
            raise InputError(f"{place} must be a printable text of 1 to {MAX_TEXT} characters.")
    elif wanted is int:
        if not is_count(value) or value > 2**63:
            raise InputError(f"{place} must be an integer >= 0, not {shorten(value)}.")
    elif wanted is float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise InputError(f"{place} must be a number >= 0, not {shorten(value)}.")
    elif not isinstance(value, wanted):
        names = {bool: "true or false", list: "a list", dict: "a JSON object"}
        raise InputError(f"{place} must be {names[wanted]}, not {shorten(value)}.")


def _check_name(name: str) -> None:
    """A name that can be read and told from others in a table."""
    seen = [each for each in unicodedata.normalize("NFKC", name) if each.isalnum() and each not in FILLERS]
    if len(name) > MAX_NAME or name != name.strip() or not name.isprintable() or not seen:
        raise InputError(
            f"manifest.agent.name must have 1 to {MAX_NAME} characters, a letter or digit among them and no blank at its ends."
        )
    marks = "".join("m" if unicodedata.combining(each) else " " for each in unicodedata.normalize("NFKC", name))
    if len(max(marks.split(), key=len, default="")) > MAX_MARKS:
        raise InputError(f"manifest.agent.name must not have more than {MAX_MARKS} combining marks in a row.")


def read_artefact(folder: Path, tasks: Sequence[Task] = TASKS) -> Artefact:
    """The artefact in a folder, its files checked against their digests; InputError for the first fault."""

    def read(name: str, place: str) -> bytes:
        path = folder / name
        if not path.is_file() or path.is_symlink():
            raise InputError(f"{place}: there is no regular file {shorten(name)} beside the manifest.")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{place} has more than {MAX_FILE_BYTES} bytes.")
        return read_bytes(path)

    return parse_artefact(read(MANIFEST, "manifest"), lambda name, digest, place: read(name, f"{place}.file"), tasks)


def stored_artefact(store: Store, digest: str, tasks: Sequence[Task] = TASKS) -> Artefact:
    """The artefact that was submitted with that sha256."""
    return parse_artefact(store.blob(digest), lambda name, digest, place: store.blob(digest), tasks)


def parse_artefact(data: bytes, read: Callable[[str, str, str], bytes], tasks: Sequence[Task] = TASKS) -> Artefact:
    """The artefact of a manifest; `read` gives the file of a name and sha256 that an entry at some place of it is for."""
    try:
        manifest = parse(data.decode("utf-8"), "manifest")
    except UnicodeDecodeError:
        raise InputError("manifest is not text.") from None
    _check("manifest", manifest, _SCHEMA)
    if manifest["schema_version"] != SCHEMA_VERSION:
        raise InputError(f"manifest.schema_version is {manifest['schema_version']}, but {SCHEMA_VERSION} is needed.")
    if manifest["suite"] != {"name": SUITE, "version": SUITE_VERSION}:
        raise InputError(f'manifest.suite must be {{"name": "{SUITE}", "version": "{SUITE_VERSION}"}}; export the agent anew.')
    _check_name(manifest["agent"]["name"])
    if not 1 <= len(manifest["agent"]["authors"]) <= MAX_AUTHORS:
        raise InputError(f"manifest.agent.authors must name 1 to {MAX_AUTHORS} authors.")
    for k, author in enumerate(manifest["agent"]["authors"]):
        _check(f"manifest.agent.authors[{k}]", author, str)
    listed = manifest["entries"]
    if not 1 <= len(listed) <= MAX_ENTRIES:
        raise InputError(f"manifest.entries must hold 1 to {MAX_ENTRIES} entries, not {len(listed)}.")
    entries = tuple(file for k, each in enumerate(listed) for file in _entry(f"manifest.entries[{k}]", each, read, tasks))
    names = [entry.task.name for entry in entries]
    if len(set(names)) < len(names):
        raise InputError("manifest.entries names a task twice.")
    digest = hashlib.sha256(data).hexdigest()
    return Artefact(digest, data, entries, manifest["agent"], manifest["method"], manifest["declares"])


def _entry(place: str, values: Any, read: Callable[[str, str, str], bytes], tasks: Sequence[Task]) -> list[File]:
    """The files of an entry, one per task: those of all instances of a family are the same."""
    _check(place, values, _ENTRY)
    if ("task" in values) == ("family" in values):
        raise InputError(f"{place} must name either a task or a family.")
    for key, allowed in (("kind", KINDS), ("action_mode", MODES)):
        if values[key] not in allowed:
            raise InputError(f"{place}.{key} must be one of {', '.join(allowed)}, not {shorten(values[key])}.")
    name = values["file"]
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) or name == MANIFEST:
        raise InputError(f"{place}.file must be the name of a file beside the manifest, not {shorten(name)}.")
    if not re.fullmatch(r"[0-9a-f]{64}", values["sha256"]):
        raise InputError(f"{place}.sha256 must be 64 digits 0-9a-f.")
    data = read(name, values["sha256"], place)
    if len(data) != values["bytes"] or hashlib.sha256(data).hexdigest() != values["sha256"]:
        raise InputError(f"{place}: {shorten(name)} does not have the stated sha256 and number of bytes.")
    chosen = [find_task(values["task"], tasks)] if "task" in values else find_family(values["family"], tasks)
    if "task" in values and chosen[0].family:
        raise InputError(f"{place}.task is one instance of a family; write family {chosen[0].family!r} in place of it.")
    model, options = chosen[0].entry.model, values.get("options", {})
    for key in options:
        if key not in FREE_OPTIONS or key not in model.options or values["kind"] == "declarative/1":
            raise InputError(
                f"{place}.options names {shorten(key)}, which is no option that an entry for {chosen[0].id} may choose."
            )
    model.check_options(options)
    return [File(task, values["kind"], name, data, values["action_mode"], options) for task in chosen]


# Policies.


class Scorer(Protocol):
    """What gives scores: a `Network`, or one in a jail."""

    @property
    def n_inputs(self) -> int:
        """Numbers in an observation."""

    @property
    def n_outputs(self) -> int:
        """Scores of an observation."""

    def run(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores (B, n_outputs) of observations (B, n_inputs)."""


class NetworkPolicy(Policy):
    """Scores from a network; the mask and the choice are applied here, out of its reach."""

    def __init__(
        self, network: Scorer, entry: Entry, is_sampling: bool = False, options: Mapping[str, Any] | None = None
    ) -> None:
        self.network, self.entry, self.is_sampling = network, entry, is_sampling
        self.options = dict(options or {})  # type: ignore[misc]

    def fit(self, instance: Any) -> Self:
        """Check that the network fits the instance."""
        self.instance = self.entry.model.load(instance)
        wanted = scores_shape(self.entry, self.instance, self.options)
        if (self.network.n_inputs, self.network.n_outputs) != wanted:
            raise InputError(
                f"the network maps {self.network.n_inputs} numbers to {self.network.n_outputs} scores, but instance "
                f"{self.instance.name!r} needs {wanted[0]} and {wanted[1]}."
            )
        self.space = self.entry.model.action_space(self.instance, self.entry.model.check_options(self.options))
        if self.is_sampling and isinstance(self.space, gym.spaces.Box):
            raise InputError(f"action_mode must be greedy for {self.entry.id}, whose actions are numbers.")
        return self

    def start(self, batch: int, seed: int) -> NDArray[np.uint64]:
        return np.array([seed_words((seed + b, 1)) for b in range(batch)])

    def predict(
        self,
        observation: NDArray[np.float32],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        action_masks: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.int64], Any]:
        obs = np.atleast_2d(observation)
        scores = self.network.run(obs)
        if not np.isfinite(scores).all():
            raise InputError("the network gives scores that are not finite.")
        if self.is_sampling:  # the largest score plus Gumbel noise has the law of the softmax
            words = self.start(len(obs), 0) if state is None else state.copy()
            level = np.array([[uniform(words, b) for _ in range(scores.shape[1])] for b in range(len(obs))])
            scores, state = scores - np.log(-np.log(np.maximum(level, 2.0**-60))), words
        actions = best_actions(scores, self.space, action_masks)
        return (actions if np.ndim(observation) == 2 else actions[0]), state


def scores_shape(entry: Entry, instance: Any, options: Mapping[str, Any] | None = None) -> tuple[int, int]:
    """Numbers in an observation, and scores that are needed."""
    chosen = entry.model.check_options(options or {})
    space = entry.model.action_space(instance, chosen)
    size = int(np.prod(space.shape)) if isinstance(space, gym.spaces.Box) else mask_size(space)
    return entry.model.observation_space(instance, chosen).shape[0], size


def load_policy(entry: File, is_jailed: bool = False) -> Policy:
    """The policy of an entry, fitted to its task and past the gate; InputError if it is refused.

    With `is_jailed`, a network runs in a jail from its first observation on; `release` ends it. A policy of this package is
    nobody's code but ours, and runs here.
    """
    task, instance = entry.task, entry.task.load()
    if entry.kind == "declarative/1":
        return _declared(entry).fit(instance)
    from matchgym.leaderboards.onnx_file import read_network

    scorer: Any = read_network(entry.data, *scores_shape(task.entry, instance, entry.options))
    if is_jailed:
        from matchgym.leaderboards.jail import JailedNetwork

        scorer = JailedNetwork(scorer)
    policy = NetworkPolicy(scorer, task.entry, entry.action_mode == "sample", entry.options).fit(instance)
    try:
        probe(scorer)
    except BaseException:
        release(policy)
        raise
    return policy


def release(policy: Policy) -> None:
    """End the jail of a policy, if it is in one."""
    close = getattr(getattr(policy, "network", None), "close", None)
    if close is not None:
        close()


def _declared(entry: File) -> Policy:
    values = parse_declaration(entry.data)
    kinds = task_policies(entry.task)
    if values["policy"] not in kinds:
        raise unknown("policy", values["policy"], kinds)
    kind, name = kinds[values["policy"]], values["policy"]
    tables = {key: value for key, value in values["parameters"].items() if isinstance(value, list)}
    texts = {key: str(value) for key, value in values["parameters"].items() if key not in tables}
    known = inspect.signature(kind).parameters
    for key in texts:
        if key in known and not _is_plain(known[key].annotation):
            raise InputError(f"parameter {shorten(key)} of {name} must be a table of numbers.")
    arguments = parse_arguments(kind, texts | dict.fromkeys(tables.keys() - known.keys(), ""), name)
    for key, table in tables.items():
        if _is_plain(known[key].annotation):
            raise InputError(f"parameter {shorten(key)} of {name} must not be a table.")
        arguments[key] = as_array(key, table, 2, (None, None), positive=False)
    return kind(**arguments)


def parse_declaration(data: bytes) -> dict[str, Any]:
    """The name and the parameters in a file of the kind declarative/1."""
    try:
        values = parse(data.decode("utf-8"), "the declaration")
    except UnicodeDecodeError:
        raise InputError("the declaration is not text.") from None
    _check("declaration", values, {"policy": str, "parameters": dict})
    for key, value in values["parameters"].items():
        if isinstance(value, bool) or not isinstance(value, int | float | str | list) or len(str(value)) > MAX_FILE_BYTES:
            raise InputError(f"the declaration's parameter {shorten(key)} must be a number, a text or a table of numbers.")
    return dict(values)


def _is_plain(annotation: Any) -> bool:
    """Whether a parameter is a number, a text or a list, which `parse_argument` reads without opening a file."""
    choices = [choice for choice in typing.get_args(annotation) if choice is not type(None)] or [annotation]
    return choices[0] in (bool, int, float, str) or typing.get_origin(choices[0]) in LISTS


def task_policies(task: Task) -> dict[str, type[Policy]]:
    """The policies of a task's model by name."""
    found: dict[str, type[Policy]] = task.entry.layer("baselines").POLICIES
    return found


def probe(network: Scorer) -> None:
    """Try what the static gate promises: finite scores, each from its own observation alone; InputError otherwise."""
    rng = np.random.default_rng(0)
    tables = [rng.integers(0, most, (PROBES, network.n_inputs)).astype(np.float32) for most in (20, 1000)]
    huge = np.float32(HUGE) * np.sign(rng.normal(size=tables[0].shape)).astype(np.float32)
    for inputs in (*tables, huge):
        scores = network.run(inputs)
        if scores.shape != (PROBES, network.n_outputs) or not np.isfinite(scores).all():
            raise InputError("the network gives scores that are not finite, or of another shape than it states.")
    order = rng.permutation(PROBES)
    for table in tables:
        together = network.run(table)
        size = 1 + np.abs(together).max(axis=1, keepdims=True)  # rounding is relative to the largest scores
        one_by_one = np.concatenate([network.run(table[k : k + 1]) for k in range(PROBES)])
        for other in (one_by_one, network.run(table[order])[np.argsort(order)], network.run(np.repeat(table, 2, 0))[::2]):
            if (np.abs(together - other) > PROBE_TOLERANCE * size).any():
                raise InputError("the network's scores of one observation depend on the others in the batch.")
