"""The instances of congestion-aware learning: platforms with job types that are seen, and with clients whose types are not."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from matchgym.envs.compile import kernel
from matchgym.envs.instance import InputError, Instance, as_array, as_number, is_count, shorten
from matchgym.envs.slotted_queues import LAWS, largest_total, trials_of

REWARD_LAWS = ("bernoulli", "uniform_noise")
MOST_SLOTS = 10**6  # the clock is observed as a 32-bit number, from which slots must be told apart
MOST_FEATURES = 100  # p q, the coefficients that ridge regression learns
MOST_PAIRS = 10**5  # of job types, or seats, and servers
CROWDED = 1e-9  # probability, per episode, that all seats are taken when a client comes, who is then turned away


def check_sizes(n: int, n_servers: Any, horizon: Any) -> None:
    """Refuse a number of servers or slots that is no count or too large."""
    if not is_count(n_servers, 1) or n * n_servers > MOST_PAIRS:
        raise InputError(f"n_servers must be an integer >= 1, with at most {MOST_PAIRS} pairs, not {shorten(n_servers)}.")
    if not is_count(horizon, 1) or horizon > MOST_SLOTS:
        raise InputError(f"horizon must be an integer from 1 to {MOST_SLOTS}, not {shorten(horizon)}.")


@dataclass(frozen=True, kw_only=True, eq=False)
class CongestionLearningInstance(Instance):
    """Rates per slot and rewards per job, of I job types and J servers."""

    model: ClassVar[str] = "congestion_learning"

    arrival_rates: NDArray[np.float64]  # (I,) >= 0, not all 0, jobs per slot
    n_servers: int  # J >= 1
    rewards: NDArray[np.float64] | None = None  # (I, J) >= 0, mean reward per job; None: drawn from Unif(0, 1) at each reset
    service_rates: NDArray[np.float64] | None = None  # (J,) > 0, jobs per slot (integer part, plus one with the rest's
    # probability); None: one each
    compatibility: NDArray[np.int64] | None = None  # (I, J) of 0 and 1: which servers may take a type; None: all
    arrival_law: str = "poisson"  # one of LAWS; "geometric" on {0, 1, ...}, "shifted-geometric" on {1, 2, ...}
    arrival_success: float = 0.1  # success probability of the trials behind binomial arrivals, in (0, 1]
    reward_law: str = "bernoulli"  # or "uniform_noise": X = r + Unif(-noise, noise), clipped to [0, reward_cap]
    noise: float = 0.0  # >= 0
    reward_cap: float | None = None  # known bound on rewards; None: 1, or what rewards + noise can reach if they exceed 1
    horizon: int = 1000  # T >= 1, slots
    job_features: NDArray[np.float64] | None = None  # f (I, p) of either sign, known to the platform, for `*-ridge` policies
    server_features: NDArray[np.float64] | None = None  # g (J, q)

    def __post_init__(self) -> None:
        super().__post_init__()
        rates = as_array("arrival_rates", self.arrival_rates, 1, (None,), positive=False)
        if not rates.any():
            raise InputError("arrival_rates are all 0; give at least one type that arrives.")
        n = len(rates)
        check_sizes(n, self.n_servers, self.horizon)
        m = int(self.n_servers)
        checked: dict[str, Any] = {"arrival_rates": rates, "n_servers": m}
        if self.rewards is not None:
            checked["rewards"] = as_array("rewards", self.rewards, 2, (n, m), positive=False)
        service = np.ones(m) if self.service_rates is None else self.service_rates
        checked["service_rates"] = as_array("service_rates", service, 1, (m,), positive=True)
        checked["compatibility"] = as_relation("compatibility", self.compatibility, n, m)
        for field, names in (("arrival_law", LAWS), ("reward_law", REWARD_LAWS)):
            if getattr(self, field) not in names:
                raise InputError(f"{field} must be one of {', '.join(names)}, not {shorten(getattr(self, field))}.")
        if not 0 < as_number("arrival_success", self.arrival_success, positive=False) <= 1:
            raise InputError(f"arrival_success must lie in (0, 1], not {shorten(self.arrival_success)}.")
        if self.arrival_law == "shifted-geometric" and rates.min() < 1:
            raise InputError("arrival_rates must be >= 1 with arrival_law shifted-geometric; choose geometric.")
        checked["noise"] = noise = as_number("noise", self.noise, positive=False)
        if self.reward_law == "bernoulli" and noise:
            raise InputError('noise is for reward_law "uniform_noise"; leave it out or change the law.')
        largest = 1.0 if self.rewards is None else float(checked["rewards"].max())
        cap = max(1.0, largest + noise if largest > 1 else 0.0) if self.reward_cap is None else self.reward_cap
        checked["reward_cap"] = cap = as_number("reward_cap", cap, positive=False)
        if largest > cap:
            raise InputError(f"rewards go up to {largest:g}, above reward_cap {cap:g}; raise the cap.")
        if self.reward_law == "bernoulli" and largest > 1:
            raise InputError('rewards must be <= 1 with reward_law "bernoulli"; use "uniform_noise" for others.')
        if (self.job_features is None) != (self.server_features is None):
            raise InputError("job_features and server_features belong together; give both or neither.")
        if self.job_features is not None:
            checked["job_features"] = as_array("job_features", self.job_features, 2, (n, None), positive=None)
            checked["server_features"] = as_array("server_features", self.server_features, 2, (m, None), positive=None)
            width = checked["job_features"].shape[1] * checked["server_features"].shape[1]
            if width > MOST_FEATURES:
                raise InputError(
                    f"job_features and server_features make {width} pairs, above {MOST_FEATURES}; use fewer columns."
                )
        for field, value in checked.items():
            object.__setattr__(self, field, value)

    @property
    def features(self) -> NDArray[np.float64]:
        """phi_ij = vec(f_i g_j') in row i J + j, (I J, p q); no columns if there are no features."""
        if self.job_features is None or self.server_features is None:
            return np.zeros((self.n_types * self.n_servers, 0))
        return np.kron(self.job_features, self.server_features).astype(np.float64)

    @property
    def n_types(self) -> int:
        return len(self.arrival_rates)

    @property
    def load(self) -> float:
        """rho = sum of arrival rates / sum of service rates."""
        return float(self.arrival_rates.sum() / self.capacities.sum())

    @property
    def capacities(self) -> NDArray[np.float64]:
        """m_j (J,), jobs per slot."""
        assert self.service_rates is not None
        return self.service_rates

    @property
    def allowed(self) -> NDArray[np.bool_]:
        """(I, J), which servers may take a type."""
        return np.asarray(self.compatibility, np.bool_)

    @property
    def mean_rewards(self) -> NDArray[np.float64]:
        """E X of each pair (I, J): r_ij, or less and more where noise is clipped."""
        if self.rewards is None:
            raise InputError("rewards are drawn anew in every episode; give a matrix `rewards` to have one answer.")
        return np.array([[clipped_mean(r, self.noise, self.reward_cap) for r in row] for row in self.rewards.tolist()])

    @property
    def trials(self) -> NDArray[np.int64]:
        """Trials of binomial arrivals (I,)."""
        return trials_of(self.arrival_rates, self.arrival_success)

    @property
    def most_jobs(self) -> int:
        """More jobs than an episode ever brings."""
        return largest_total(self.law, self.arrival_rates, self.trials, self.horizon)

    @property
    def law(self) -> int:
        """The number of the arrival law in LAWS."""
        return LAWS.index(self.arrival_law)

    @property
    def size(self) -> str:
        """In words, for tables."""
        return f"{self.n_types} types x {self.n_servers} servers"

    @property
    def objective_scale(self) -> float:
        """Decisions (slots) per unit of time."""
        return 1.0


def as_relation(field: str, value: Any, n: int, m: int) -> NDArray[np.int64]:
    """A read-only table (n, m) of 0 and 1, all 1 for None, with a 1 in every row."""
    given = np.ones((n, m), np.int64) if value is None else np.asarray(value, object)
    if given.shape != (n, m) or not all(entry in (0, 1) for entry in given.flat):
        raise InputError(f"{field} must be a table ({n}, {m}) of true and false, or of 1 and 0.")
    table = given.astype(np.int64)
    if not table.any(1).all():
        raise InputError(f"{field}[{int(table.any(1).argmin())}] allows no server; every job type needs one.")
    table.setflags(write=False)
    return table


@kernel
def clipped_mean(r, noise, cap):
    """Mean of r + Unif(-noise, noise) clipped to [0, cap], for r in [0, cap]."""
    over, under = max(r + noise - cap, 0), max(noise - r, 0)
    return r + (under * under - over * over) / (4 * noise) if noise > 0 else r


@dataclass(frozen=True, kw_only=True, eq=False)
class FloatingClientsInstance(Instance):
    """Probabilities per slot of clients, jobs per slot of a client, and rewards per job."""

    model: ClassVar[str] = "floating_clients"

    client_arrivals: NDArray[np.float64]  # (I,) mu, in [0, 1], not all 0
    client_departures: NDArray[np.float64]  # (I,) nu, in (0, 1]
    job_rates: NDArray[np.float64]  # (I,) lambda >= 0, jobs per slot of a client's presence
    n_servers: int  # J >= 1
    rewards: NDArray[np.float64] | None = None  # (I, J) in [0, 1]; None: drawn from Unif(0, 1) at each reset
    horizon: int = 1000  # T >= 1, slots

    def __post_init__(self) -> None:
        super().__post_init__()
        arrivals = as_array("client_arrivals", self.client_arrivals, 1, (None,), positive=False)
        n = len(arrivals)
        checked: dict[str, Any] = {
            "client_arrivals": arrivals,
            "client_departures": as_array("client_departures", self.client_departures, 1, (n,), positive=True),
            "job_rates": as_array("job_rates", self.job_rates, 1, (n,), positive=False),
        }
        for field in ("client_arrivals", "client_departures"):
            if checked[field].max() > 1:
                raise InputError(f"{field} are probabilities per slot, so at most 1, not {checked[field].max():g}.")
        if not (arrivals * checked["job_rates"]).any():
            raise InputError("client_arrivals and job_rates bring no jobs; give a type with both above 0.")
        check_sizes(n, self.n_servers, self.horizon)
        if self.rewards is not None:
            checked["rewards"] = as_array("rewards", self.rewards, 2, (n, int(self.n_servers)), positive=False)
            if checked["rewards"].max() > 1:
                raise InputError(f"rewards are success probabilities, so at most 1, not {checked['rewards'].max():g}.")
        for field, value in checked.items():
            object.__setattr__(self, field, value)
        if self.n_seats * self.n_servers > MOST_PAIRS:
            raise InputError(f"client_arrivals / client_departures keep {self.present:.3g} clients present; lower them.")

    @property
    def n_types(self) -> int:
        return len(self.client_arrivals)

    @property
    def present(self) -> float:
        """Mean number of clients present in the long run."""
        return float((self.client_arrivals / self.client_departures).sum())

    @property
    def n_seats(self) -> int:
        """Seats enough for all clients of an episode but with probability CROWDED.

        The number present is a sum of independent trials, whose tail Chernoff's bound for a Poisson number of its mean covers.
        """
        mean, seats = self.present, math.ceil(self.present) + 1
        while seats - mean - seats * math.log(seats / mean) > math.log(CROWDED / self.horizon):
            seats += 1
        return seats

    @property
    def reward_cap(self) -> float:
        return 1.0

    @property
    def size(self) -> str:
        """In words, for tables."""
        return f"{self.n_types} types, {self.n_seats} seats x {self.n_servers} servers"

    @property
    def objective_scale(self) -> float:
        """Decisions (slots) per unit of time."""
        return 1.0
