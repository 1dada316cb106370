"""Policies for admission to freelance markets: rule (7) of Chatterjee, Varshney and Vishwanath, and plain ones.

The environment's scheme allocates; with exact MaxWeight, rule (7) is `admission-maxweight` of FreelanceMarket-v0.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from matchgym.baselines import freelance_queues as ways
from matchgym.baselines.freelance_market import POOLS, FreelancePolicy, exact_value
from matchgym.baselines.policy import Policy
from matchgym.bounds.freelance_market import decline
from matchgym.envs.base import Model
from matchgym.envs.freelance_admission import MODEL
from matchgym.envs.instance import InputError, shorten

__all__ = ["POLICIES", "exact_value"]


class AcceptAll(FreelancePolicy):
    """Accept everything."""

    model: ClassVar[Model] = MODEL
    scheme = ways.NOTHING


class Thinning(AcceptAll):
    """Accept each job with a fixed probability: 1 - beta*, times share."""

    def __init__(self, share: float = 0.99) -> None:
        if not (np.isfinite(share) and 0 <= share <= 1):
            raise InputError(f"share must lie in [0, 1], not {shorten(share)}.")
        self.share = share

    def fit(self, instance: Any) -> Self:
        loaded = self.model.load(instance)
        self.chance = self.share * (1 - decline(loaded).value)
        return super().fit(loaded)


class AdmissionMaxWeight(AcceptAll):
    """Rule (7)-I: decline an epoch's arrivals if nu sum_j A_j sum_s Q_js exceeds their number."""

    admission = ways.PRESSURE_CENTRAL

    def __init__(self, nu: float = 0.01) -> None:
        self.nu = nu


class AdmissionJLTT(AcceptAll):
    """Rule (7)-II: the same with the tasks of the emptiest category; needs pools."""

    options: ClassVar[Mapping[str, Any]] = POOLS
    admission = ways.PRESSURE_POOLS

    def __init__(self, nu: float = 0.01) -> None:
        self.nu = nu


POLICIES: dict[str, type[Policy]] = {
    "accept-all": AcceptAll,  # the anchor of scores
    "thinning": Thinning,
    "admission-maxweight": AdmissionMaxWeight,
    "admission-jltt": AdmissionJLTT,
}
