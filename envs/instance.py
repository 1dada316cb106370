"""Instances: frozen records of numbers with validation, JSON, a digest and a catalogue.

A model derives its instance class from `Instance`, lists its fields, and checks them in `__post_init__` with the helpers of
this file, so that every fault of every model is reported in one sentence that names the field and the remedy.
"""

import difflib
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeGuard, TypeVar

import numpy as np
from numpy.typing import NDArray

SMALLEST, LARGEST = 1e-12, 1e12  # magnitudes accepted for rates and rewards: choose another unit of time or money
MAX_FILE_BYTES = 64 * 2**20
MAX_NESTING = 32
MAX_DIGITS = 400  # of an integer, more than any float has
STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def shorten_path(path: Path, limit: int = 60) -> str:
    """The end of a path, for messages."""
    text = str(path)
    return text if len(text) <= limit else "..." + text[3 - limit :]


T = TypeVar("T", bound="Instance")


class InputError(ValueError):
    """Something the user gave is wrong; the message is one sentence that names it and the remedy."""


def shorten(value: object, limit: int = 60) -> str:
    """`repr(value)` cut to `limit` characters, for messages."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _check_numbers(field: str, value: Any, place: tuple[int, ...] = ()) -> None:
    """Refuse what `numpy.asarray` would quietly turn into numbers: strings, booleans, nulls."""
    if isinstance(value, list | tuple):
        for index, entry in enumerate(value):
            _check_numbers(field, entry, (*place, index))
    elif isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number | np.ndarray):
        raise InputError(f"{field}{list(place) if place else ''} must be a number, not {shorten(value)}.")


def as_array(field: str, value: Any, axes: int, shape: tuple[int | None, ...], *, positive: bool | None) -> NDArray[np.float64]:
    """A read-only float array with the wanted shape and entries that are finite and > 0 (or >= 0; None: of either sign).

    `shape` holds None where any extent >= 1 is allowed. Raises InputError otherwise.
    """
    wanted = "(" + ", ".join("any" if extent is None else str(extent) for extent in shape) + ("," if axes == 1 else "") + ")"
    if not isinstance(value, list | tuple | np.ndarray):
        raise InputError(f"{field} must be a list of shape {wanted}, not {shorten(value)}.")
    _check_numbers(field, value)
    try:
        array = np.array(value, np.float64)
    except (ValueError, TypeError) as error:
        raise InputError(f"{field} must be a rectangular list of shape {wanted}; its rows differ in length.") from error
    except OverflowError as error:
        raise InputError(f"{field} holds an integer too large to be a rate or a reward; change the unit.") from error
    if array.ndim != axes:
        raise InputError(f"{field} needs {axes} {'axis' if axes == 1 else 'axes'}, shape {wanted}, but has {array.ndim}.")
    if 0 in array.shape:
        raise InputError(f"{field} is empty; give at least one entry on each side.")
    if any(extent is not None and extent != found for extent, found in zip(shape, array.shape)):
        raise InputError(f"{field} has shape {array.shape} where the other fields ask for {wanted}; make the sizes agree.")
    low_enough = array > 0 if positive else (array >= 0) | (positive is None)
    wrong = ~(np.isfinite(array) & low_enough)
    if wrong.any():
        place = tuple(int(k) for k in np.argwhere(wrong)[0])
        sign = "" if positive is None else " and > 0" if positive else " and >= 0"
        raise InputError(f"{field}{list(place)} is {array[place]:g}; it must be finite{sign}.")
    odd = (array != 0) & ((abs(array) < SMALLEST) | (abs(array) > LARGEST))
    if odd.any():
        place = tuple(int(k) for k in np.argwhere(odd)[0])
        raise InputError(
            f"{field}{list(place)} is {array[place]:g}, outside [{SMALLEST:g}, {LARGEST:g}]; change the unit of time or money."
        )
    array.setflags(write=False)
    return array


def as_number(field: str, value: Any, *, positive: bool) -> float:
    """A float that is finite and > 0 (or >= 0); InputError otherwise."""
    if isinstance(value, list | tuple | np.ndarray):
        raise InputError(f"{field} must be one number, not {shorten(value)}.")
    _check_numbers(field, value)
    try:
        return float(as_array(field, [value], 1, (1,), positive=positive)[0])
    except InputError as error:
        raise InputError(str(error).replace(f"{field}[0]", field)) from None


def unknown(what: str, name: object, names: Iterable[str], where: str = "`matchgym envs` lists them") -> InputError:
    """The refusal of a name that is not among `names`: lists them if they are few, else the closest and where to look."""
    known = list(names)
    if len(", ".join(known)) <= 120:
        remedy = f"choose from {', '.join(known)}"
    else:
        close = difflib.get_close_matches(str(name), known, 1)
        remedy = (f"did you mean {close[0]!r}? " if close else "") + where
    return InputError(f"unknown {what} {shorten(name)}; {remedy}.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Instance:
    """Base of every model's instance: `name` and whatever fields the model adds.

    Class attributes of a subclass: `model`, the stem that its JSON names.
    """

    model: ClassVar[str]
    name: str = "unnamed"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not 1 <= len(self.name) <= 100 or not self.name.isprintable():
            raise InputError(f"name must be a printable string of 1 to 100 characters, not {shorten(self.name)}.")

    def measures(self, match_rates: NDArray[np.float64]) -> dict[str, float]:
        """What match rates amount to beside the objective, by name, per unit of time; `Model.rates` counts the same."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """JSON values: {"model", "name", <fields>}."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"model": self.model} | {
            name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()
        }

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no blanks, shortest round-trip floats."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @property
    def sha256(self) -> str:
        """Digest of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.to_json() == self.to_json()

    def __hash__(self) -> int:
        return hash(self.sha256)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The instance with these JSON values; unknown, missing and misplaced keys are refused."""
        if not isinstance(values, Mapping):
            raise InputError(f"an instance must be a JSON object, not {shorten(values)}.")
        if "model" not in values:
            raise InputError(f'key "model" is missing; add "model": "{cls.model}".')
        if values["model"] != cls.model:
            raise InputError(f'model is {shorten(values["model"])}, but this environment needs "{cls.model}".')
        allowed = {field.name: field for field in fields(cls)}
        for key in values:
            if key != "model" and key not in allowed:
                raise unknown("key", key, allowed)
        for key, field in allowed.items():
            if key not in values and field.default is MISSING:
                raise InputError(f"key {shorten(key)} is missing; the keys of {cls.model} are {', '.join(allowed)}.")
        return cls(**{key: value for key, value in values.items() if key != "model"})

    @classmethod
    def read(cls, path: Path) -> Self:
        """The instance in a JSON file; a message names the file."""
        try:
            return cls.from_dict(_read_json(path))
        except InputError as error:
            raise InputError(f"{shorten_path(path)}: {error}") from None


class Rates(Protocol):
    """Waiting suppliers of n types and customers of m types: what an instance, or a part of one, says of their dynamics."""

    @property
    def name(self) -> str: ...
    @property
    def supplier_rates(self) -> NDArray[np.float64]: ...  # (n,)
    @property
    def departure_rates(self) -> NDArray[np.float64]: ...  # (n,)
    @property
    def customer_rates(self) -> NDArray[np.float64]: ...  # (m,)
    @property
    def rewards(self) -> NDArray[np.float64]: ...  # (n, m)
    @property
    def offered(self) -> NDArray[np.float64]: ...  # (n,)
    @property
    def joins(self) -> NDArray[np.int64] | None: ...  # (m,) the queue of unmatched customers; None: they are lost
    @property
    def n_suppliers(self) -> int: ...
    @property
    def n_customers(self) -> int: ...


def read_array(field: str, path: Path) -> NDArray[np.float64]:
    """A table of numbers >= 0 in a JSON file."""
    try:
        return as_array(field, _read_json(path), 2, (None, None), positive=False)
    except InputError as error:
        raise InputError(f"{shorten_path(path)}: {error}") from None


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise InputError(f"key {shorten(key)} stands twice; keep one.")
        values[key] = value
    return values


def _integer(digits: str) -> int | float:
    """An integer; infinity, which every field refuses by name, for one that no float can hold."""
    return int(digits) if len(digits) <= MAX_DIGITS else math.copysign(math.inf, -1 if digits[0] == "-" else 1)


def _read_json(path: Path) -> Any:
    try:
        if not path.exists():
            raise InputError("there is no such file.")
        if not path.is_file():
            raise InputError("this is not a regular file; give a JSON file.")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"the file is larger than {MAX_FILE_BYTES // 2**20} MiB; give a smaller instance.")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"the file cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise InputError("the file is not UTF-8 text; give a JSON file.") from None
    if not text.strip():
        raise InputError("the file is empty; give a JSON object.")
    depth = deepest = 0
    for character in STRING.sub("", text):
        depth += (character in "[{") - (character in "]}")
        deepest = max(deepest, depth)
    if deepest > MAX_NESTING:
        raise InputError(f"the file is nested {deepest} deep; an instance needs fewer than {MAX_NESTING} levels.")
    try:
        return json.loads(text, object_pairs_hook=_refuse_duplicates, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise InputError(f"the file is not JSON: {error.msg} at line {error.lineno} column {error.colno}.") from None


def load_instance(
    kind: type[T],
    catalogue: Mapping[str, Callable[[], Mapping[str, Any]]],
    source: "str | Path | Mapping[str, Any] | T",
) -> T:
    """An instance from a catalogue name, a path to a JSON file, a dict of JSON values, or itself."""
    if isinstance(source, kind):
        return source
    if isinstance(source, Mapping):
        return kind.from_dict(source)
    if not isinstance(source, str | Path):
        raise InputError(f"instance must be a catalogue name, a path or a dict of JSON values, not {shorten(source)}.")
    if isinstance(source, str) and source in catalogue:
        return kind.from_dict(catalogue[source]())
    try:
        exists = bool(str(source)) and Path(source).exists()
    except (OSError, ValueError):  # a name too long or with a null character
        exists = False
    if not exists:
        raise unknown("instance or file", str(source), catalogue)
    return kind.read(Path(source))


def is_count(value: object, low: int = 0) -> TypeGuard[int]:
    """Whether `value` is an integer (not a boolean) >= low."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= low)
