"""Policies for admission to freelance markets: rule (7) of Chatterjee, Varshney and Vishwanath, and plain ones.

The environment's scheme allocates; policies take its name. With `scheme` "maxweight", `admission-maxweight` and
`admission-jltt` do what they do in FreelanceMarket-v0.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from matchgym.baselines import freelance_rules as rules
from matchgym.baselines.freelance_market import POOLS, FreelancePolicy, exact_value
from matchgym.baselines.policy import Policy
from matchgym.bounds.freelance_market import decline
from matchgym.envs.base import Model
from matchgym.envs.freelance_admission import MODEL
from matchgym.envs.freelance_schemes import NOTHING
from matchgym.envs.instance import InputError, shorten

__all__ = ["POLICIES", "exact_value"]

SCHEME: str = MODEL.options["scheme"][0]


class AcceptAll(FreelancePolicy):
    """Accept everything; scheme: the environment's, for every policy here."""

    model: ClassVar[Model] = MODEL
    pools: ClassVar[Mapping[str, Any]] = {}
    scheme = NOTHING

    def __init__(self, scheme: str = SCHEME) -> None:
        self.options = {**self.pools, "scheme": scheme}  # type: ignore[misc]


class Thinning(AcceptAll):
    """Accept each job with a fixed probability: 1 - beta*, times share."""

    def __init__(self, share: float = 0.99, scheme: str = SCHEME) -> None:
        super().__init__(scheme)
        if not (np.isfinite(share) and 0 <= share <= 1):
            raise InputError(f"share must lie in [0, 1], not {shorten(share)}.")
        self.share = share

    def fit(self, instance: Any) -> Self:
        loaded = self.model.load(instance)
        self.chance = self.share * (1 - decline(loaded).value)
        return super().fit(loaded)


class AdmissionMaxWeight(AcceptAll):
    """Rule (7)-I: decline an epoch's arrivals if nu sum_j A_j sum_s Q_js exceeds their number."""

    admission = rules.PRESSURE_CENTRAL

    def __init__(self, nu: float = 0.01, scheme: str = SCHEME) -> None:
        super().__init__(scheme)
        self.nu = nu


class AdmissionJLTT(AcceptAll):
    """Rule (7)-II: the same with the tasks of the emptiest category; needs pools."""

    pools = POOLS
    admission = rules.PRESSURE_POOLS

    def __init__(self, nu: float = 0.01, scheme: str = SCHEME) -> None:
        super().__init__(scheme)
        self.nu = nu


POLICIES: dict[str, type[Policy]] = {
    "accept-all": AcceptAll,  # the anchor of scores
    "thinning": Thinning,
    "admission-maxweight": AdmissionMaxWeight,
    "admission-jltt": AdmissionJLTT,
}
