"""The instances of freelance markets: categories of agents with hours of skills, types of jobs that need them.

Laws of arrivals and of availability, per epoch and independent over epochs: "poisson"; "binomial", with the fewest trials whose
success probability is at most `arrival_success` or `availability_success`; "deterministic", the means themselves, integers;
"finite", a list of outcomes with their probabilities.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from matchgym.envs.instance import InputError, Instance, as_array, as_number, is_count, shorten, shorten_path
from matchgym.envs.slotted_queues import trials_of

LAWS = ("poisson", "binomial", "deterministic", "finite")
POISSON, BINOMIAL, DETERMINISTIC, FINITE = range(len(LAWS))
CLASSES = {(True, True): "FD", (False, True): "FND", (True, False): "ID", (False, False): "IND"}  # (decomposable, flexible)
MOST_CATEGORIES = 62  # bits of a set of categories
MOST_SETS = 4096  # of categories that limit a flexible market
MOST_NUMBERS = 10**7  # of a table of job types, categories and skills
LARGEST_MEAN = 1e8  # jobs or agents per epoch
UNITY = 1e-9  # how far probabilities may be from a sum of 1
MOST_COUNTED = 2**53  # jobs or agents in one place


class Outcomes(NamedTuple):
    """A law on finitely many vectors of counts."""

    probabilities: NDArray[np.float64]  # (K,)
    counts: NDArray[np.int64]  # (K, n)


Ragged = tuple[NDArray[np.float64], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class FreelanceMarketInstance(Instance):
    """A market of N job types, L categories of agents and S skills; M agent types in all."""

    model: ClassVar[str] = "freelance_market"

    arrival_means: NDArray[np.float64]  # (N,) lambda >= 0, not all 0, jobs per epoch
    job_hours: NDArray[np.float64]  # (N, S) r >= 0, hours of a skill that a job needs; 0: no such task
    availability_means: Ragged  # per category (M_l,) mu >= 0, agents per epoch
    agent_hours: Ragged  # per category (M_l, S) h >= 0, hours of a skill that an agent brings per epoch
    compatible: NDArray[np.int64] | None = None  # (N, L) of 0 and 1: which categories may serve a job type; None: all
    decomposable: bool = False  # whether the tasks of a job may be done in different epochs
    flexible: bool = True  # whether a job may be spread over categories
    arrival_law: str = "poisson"  # one of LAWS
    availability_law: str = "poisson"  # one of LAWS
    arrival_support: Any = None  # for "finite": ((probability, (N counts)), ...)
    availability_support: Any = None  # for "finite": ((probability, ((M_1 counts), (M_2 counts), ...)), ...)
    arrival_success: float = 0.5  # in (0, 1]
    availability_success: float = 0.5  # in (0, 1]
    arrival_pattern: NDArray[np.float64] | None = None  # (P,) factors of arrival_means, epoch by epoch, over and over; mean 1
    initial_jobs: NDArray[np.float64] | None = None  # (N,) integers >= 0, waiting at the start; None: none
    holding_cost: float = 0.0  # >= 0, per waiting job and epoch
    decline_cost: float = 0.0  # >= 0, per job declined on arrival

    def __post_init__(self) -> None:
        super().__post_init__()
        means = as_array("arrival_means", self.arrival_means, 1, (None,), positive=False)
        if not means.any():
            raise InputError("arrival_means are all 0; give at least one job type that arrives.")
        n = len(means)
        hours = as_array("job_hours", self.job_hours, 2, (n, None), positive=False)
        if not hours.any(1).all():
            raise InputError(f"job_hours[{int(hours.any(1).argmin())}] are all 0; every job type needs a task.")
        skills = hours.shape[1]
        for field in ("availability_means", "agent_hours"):
            if not isinstance(getattr(self, field), list | tuple) or not len(getattr(self, field)):
                raise InputError(f"{field} must be a list with an entry for each category, at least one.")
        size = len(self.availability_means)
        if len(self.agent_hours) != size or size > MOST_CATEGORIES:
            raise InputError(
                f"agent_hours has {len(self.agent_hours)} categories where availability_means has {size}; "
                f"give as many to each, at most {MOST_CATEGORIES}."
            )
        if n * size * skills > MOST_NUMBERS:
            raise InputError(f"job_hours has {n} types x {skills} skills for {size} categories; at most {MOST_NUMBERS} in all.")
        agents = tuple(
            as_array(f"availability_means[{k}]", each, 1, (None,), positive=False)
            for k, each in enumerate(self.availability_means)
        )
        brought = tuple(
            as_array(f"agent_hours[{k}]", each, 2, (len(present), skills), positive=False)
            for k, (each, present) in enumerate(zip(self.agent_hours, agents))
        )
        checked: dict[str, Any] = {"arrival_means": means, "job_hours": hours, "availability_means": agents}
        checked |= {"agent_hours": brought, "compatible": _relation(self.compatible, n, size)}
        for field in ("decomposable", "flexible"):
            if not isinstance(getattr(self, field), bool | np.bool_):
                raise InputError(f"{field} must be true or false, not {shorten(getattr(self, field))}.")
            checked[field] = bool(getattr(self, field))
        for side, largest in (("arrival", means.max()), ("availability", max(each.max() for each in agents))):
            if largest > LARGEST_MEAN:
                raise InputError(f"{side}_means go up to {largest:g}, above {LARGEST_MEAN:g}; choose shorter epochs.")
            success = as_number(f"{side}_success", getattr(self, f"{side}_success"), positive=True)
            if success > 1:
                raise InputError(f"{side}_success must lie in (0, 1], not {success:g}.")
            checked[f"{side}_success"] = success
        checked["arrival_support"] = _support("arrival", self.arrival_law, self.arrival_support, (means,), is_nested=False)
        checked["availability_support"] = _support(
            "availability", self.availability_law, self.availability_support, agents, is_nested=True
        )
        if self.arrival_pattern is not None:
            pattern = as_array("arrival_pattern", self.arrival_pattern, 1, (None,), positive=False)
            if abs(pattern.mean() - 1) > UNITY:
                raise InputError(f"arrival_pattern has mean {pattern.mean():g}; scale it to mean 1.")
            if self.arrival_law in ("deterministic", "finite") and (pattern != 1).any():
                raise InputError(f"arrival_pattern has no meaning with arrival_law {self.arrival_law}; leave it out.")
            checked["arrival_pattern"] = pattern
        if self.initial_jobs is not None:
            checked["initial_jobs"] = start = as_array("initial_jobs", self.initial_jobs, 1, (n,), positive=False)
            if (start != np.floor(start)).any() or start.max() > 2**24:
                raise InputError(f"initial_jobs must be integers up to {2**24}, one per job type.")
        for field in ("holding_cost", "decline_cost"):
            checked[field] = as_number(field, getattr(self, field), positive=False)
        for field, value in checked.items():
            object.__setattr__(self, field, value)
        if self.flexible and len(self.category_sets) > MOST_SETS:
            raise InputError(f"compatible has more than {MOST_SETS} unions of its rows; give fewer categories to choose from.")

    def to_dict(self) -> dict[str, Any]:
        values = super().to_dict()
        return values | {
            field: [each.tolist() for each in getattr(self, field)] for field in ("availability_means", "agent_hours")
        }

    @property
    def n_types(self) -> int:
        return len(self.arrival_means)

    @property
    def n_categories(self) -> int:
        return len(self.availability_means)

    @property
    def n_skills(self) -> int:
        return self.job_hours.shape[1]

    @property
    def kind(self) -> str:
        """The class of the market: "FD", "FND", "ID" or "IND"."""
        return CLASSES[self.decomposable, self.flexible]

    @property
    def allowed(self) -> NDArray[np.bool_]:
        """(N, L), which categories may serve a type."""
        return np.asarray(self.compatible, np.bool_)

    @property
    def needs(self) -> NDArray[np.bool_]:
        """(N, S), which tasks a type has."""
        return self.job_hours > 0

    @property
    def agent_category(self) -> NDArray[np.int64]:
        """(M,) the category of every agent type, category by category."""
        return np.repeat(np.arange(self.n_categories), [len(each) for each in self.availability_means])

    @property
    def hours(self) -> NDArray[np.float64]:
        """(M, S) h of every agent type."""
        return np.concatenate(self.agent_hours)

    @property
    def mean_hours(self) -> NDArray[np.float64]:
        """(L, S) m, mean hours per epoch of a category and a skill."""
        return np.array([present @ brought for present, brought in zip(self.availability_means, self.agent_hours)])

    @property
    def signatures(self) -> NDArray[np.int64]:
        """(N,) N(j) as a set of bits."""
        return self.allowed @ (1 << np.arange(self.n_categories, dtype=np.int64))

    @property
    def category_sets(self) -> NDArray[np.int64]:
        """The sets K of categories, as bits, that limit a flexible market: the unions of N(j), and their N(j) themselves.

        Among the sets with the same types inside, N(j) within K, the smallest has the fewest hours. More than MOST_SETS are
        not listed.
        """
        distinct = set(self.signatures.tolist())
        unions: set[int] = {0} if 0 in distinct else set()
        for each in sorted(distinct - {0}):
            unions |= {each} | {each | other for other in unions}
            if len(unions) > MOST_SETS:
                break
        return np.array(sorted(unions), np.int64)

    def outcomes(self, side: str) -> Outcomes | None:
        """The law of the arrivals ("arrival") or of the agents ("availability") if it is finite or deterministic."""
        law, support = getattr(self, f"{side}_law"), getattr(self, f"{side}_support")
        if law == "deterministic":
            means = self.arrival_means if side == "arrival" else np.concatenate(self.availability_means)
            return Outcomes(np.ones(1), np.rint(means).astype(np.int64)[None])
        if law != "finite":
            return None
        counts = [row if side == "arrival" else [each for part in row for each in part] for _, row in support]
        return Outcomes(np.array([p for p, _ in support]), np.array(counts, np.int64))

    def trials(self, side: str) -> NDArray[np.int64]:
        """Trials of binomial counts, of jobs (N,) or agents (M,)."""
        means = self.arrival_means if side == "arrival" else np.concatenate(self.availability_means)
        return trials_of(means, getattr(self, f"{side}_success"))

    @property
    def size(self) -> str:
        """In words, for tables."""
        return f"{self.kind}, {self.n_types} job types x {self.n_categories} categories, {self.n_skills} skills"

    @property
    def objective_scale(self) -> float:
        """Decisions (epochs) per unit of time."""
        return 1.0


def _relation(value: Any, n: int, size: int) -> NDArray[np.int64]:
    """A read-only table (N, L) of 0 and 1, all 1 for None."""
    try:
        given = np.ones((n, size), np.int64) if value is None else np.array(value, object)
    except ValueError:
        given = np.zeros(0)
    if given.shape != (n, size) or not all(
        isinstance(x, bool | int | np.integer | np.bool_) and x in (0, 1) for x in given.flat
    ):
        raise InputError(f"compatible must be a table ({n}, {size}) of true and false, a row per job type.")
    table = given.astype(np.int64)
    table.setflags(write=False)
    return table


def _support(side: str, law: Any, support: Any, means: Sequence[NDArray[np.float64]], *, is_nested: bool) -> Any:
    """A checked support as nested tuples, or None; the means must be its own."""
    if law not in LAWS:
        raise InputError(f"{side}_law must be one of {', '.join(LAWS)}, not {shorten(law)}.")
    flat = np.concatenate(means)
    field = f"{side}_support"
    if law != "finite":
        if support is not None:
            raise InputError(f'{field} is for {side}_law "finite"; leave it out or change the law.')
        if law == "deterministic" and (flat != np.floor(flat)).any():
            raise InputError(f"{side}_means must be integers with {side}_law deterministic.")
        return None
    if not isinstance(support, list | tuple) or not support:
        raise InputError(f'{field} must be a list of [probability, counts] with {side}_law "finite".')
    checked, total, mean = [], 0.0, np.zeros(len(flat))
    for k, outcome in enumerate(support):
        if not isinstance(outcome, list | tuple) or len(outcome) != 2:
            raise InputError(f"{field}[{k}] must be a pair [probability, counts], not {shorten(outcome)}.")
        p = as_number(f"{field}[{k}][0]", outcome[0], positive=True)
        parts = outcome[1] if is_nested else [outcome[1]]
        if not isinstance(parts, list | tuple) or len(parts) != len(means):
            raise InputError(f"{field}[{k}][1] must have a list of counts for each of the {len(means)} categories.")
        counts = [as_array(f"{field}[{k}][1]", part, 1, (len(m),), positive=False) for part, m in zip(parts, means)]
        row = np.concatenate(counts)
        if (row != np.floor(row)).any() or row.max() > LARGEST_MEAN:
            raise InputError(f"{field}[{k}][1] must hold integers up to {LARGEST_MEAN:g}.")
        total, mean = total + p, mean + p * row
        whole = tuple(tuple(int(x) for x in part) for part in counts)
        checked.append((p, whole if is_nested else whole[0]))
    if abs(total - 1) > UNITY:
        raise InputError(f"{field} has probabilities that add up to {total:g}; make it 1.")
    if np.abs(mean - flat).max() > UNITY * (1 + flat.max()):
        raise InputError(f"{side}_means must be the means of {field}, which are {shorten(mean.tolist())}.")
    return tuple(checked)


def read_counts(field: str, path: str | Path) -> list[list[int]]:
    """The rows of a CSV file of counts, an epoch a row; a first row without any number is a header."""
    try:
        path = Path(path)
    except TypeError:
        raise InputError(f"{field} must be the path of a CSV file, not {shorten(path)}.") from None
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{field}: {shorten_path(path)} cannot be read as CSV ({type(error).__name__}).") from None
    if rows and not any(_is_number(cell) for cell in rows[0][1]):
        rows = rows[1:]
    if not rows:
        raise InputError(f"{field}: {shorten_path(path)} holds no epochs; give one a row, after one header at most.")
    for line, row in rows:
        for cell in row:
            if not (cell.strip().isascii() and cell.strip().isdigit()) or int(cell) > MOST_COUNTED:
                raise InputError(
                    f"{field}: line {line} of {shorten_path(path)} has {shorten(cell)} where a whole number from 0 to 2^53 is "
                    "needed; give an epoch a row, after one header at most."
                )
    return [[int(cell) for cell in row] for _, row in rows]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def with_data(
    values: dict[str, Any], arrivals: str | Path | None = None, availability: str | Path | None = None
) -> dict[str, Any]:
    """The JSON values of an instance whose arrivals or agents are drawn from the epochs of CSV files.

    Parameters
    ----------
    values : JSON values of an instance without the laws and means that the files replace.
    arrivals : CSV file of counts, a row per epoch and a column per job type; an epoch draws one of its rows.
    availability : the same of agents, a column per agent type, category by category.
    """
    found = dict(values)
    for field, path, sizes in (
        ("arrivals", arrivals, None),
        ("availability", availability, [len(each) for each in values["agent_hours"]]),
    ):
        if path is None:
            continue
        rows, side = read_counts(field, path), field.removesuffix("s")
        if len({len(row) for row in rows}) != 1 or (sizes is not None and len(rows[0]) != sum(sizes)):
            raise InputError(f"{field}: {shorten_path(Path(path))} must have a column for every type in every row.")
        weight = 1 / len(rows)
        means = (np.array(rows).sum(0) * weight).tolist()
        ends = np.cumsum(sizes or [len(means)]).tolist()
        parts = [(end - size, end) for size, end in zip(sizes or [len(means)], ends)]
        found[f"{side}_law"] = "finite"
        if side == "arrival":
            found["arrival_means"], found["arrival_support"] = means, [[weight, row] for row in rows]
        else:
            found["availability_means"] = [means[a:b] for a, b in parts]
            found["availability_support"] = [[weight, [row[a:b] for a, b in parts]] for row in rows]
    return found


def as_counts(field: str, value: Any, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """An integer array of this shape with entries from 0 to 2^53; InputError otherwise."""
    array = np.asarray(value, object)
    if array.shape != shape or not all(
        (is_count(each) or (isinstance(each, float) and each >= 0 and each.is_integer())) and each <= MOST_COUNTED
        for each in array.flat
    ):
        raise InputError(f"{field} must be integers from 0 to 2^53 of shape {shape}, not {shorten(value)}.")
    return array.astype(np.int64)
