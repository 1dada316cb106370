"""What a bound is: a value, the solution behind it, and a certificate that anyone can check without a solver."""

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from matchgym.bounds.rational import CertificateError, round_down, round_up
from matchgym.envs.instance import Instance


@dataclass(frozen=True)
class Proof:
    """What a certificate proves of the bounded quantity, in exact arithmetic: a lower value, an upper value, or both."""

    lower: Fraction | None = None
    upper: Fraction | None = None
    truncation: Fraction = Fraction(0)  # what cutting off the state space costs in them, beyond the solver's value


# Between the solver's value and the certified one, relative and absolute: rates over 20 decades cost some 1e-6, and an
# alteration is meant to be seen.
VALUE_TOLERANCE, VALUE_FLOOR = 1e-5, 1e-8

Prover = Callable[[Any, dict[str, Any]], Proof]  # (instance, certificate) -> Proof


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A bound on what any policy can earn on an instance, in objective units.

    `value` is the solver's number. `lower` and `upper` are what the certificate proves; the published number is
    `certified_value`, which is `upper` for an upper bound and `lower` for a lower one.
    """

    kind: str
    sense: str  # "upper" or "lower"
    value: float
    lower: float | None
    upper: float | None
    solution: dict[str, Any]  # arrays named after the paper's variables
    duals: dict[str, Any]  # arrays named after the constraints
    certificate: dict[str, Any]  # JSON values
    instance: Instance = field(repr=False)
    prove: Prover = field(repr=False)
    unit: str = "reward per unit of time"
    report: dict[str, Any] = field(default_factory=dict)  # JSON values that the command line shows besides

    @property
    def certified_value(self) -> float:
        certified = self.upper if self.sense == "upper" else self.lower
        if certified is None:
            raise CertificateError(f"a bound of sense {self.sense!r} has no certified value.")
        return certified

    def verify(self) -> float:
        """Derive the bound anew from the instance and the certificate, in rational arithmetic and without any solver.

        Whatever the multipliers, the derived value is a valid bound: bad ones only weaken it. Returns the certified value.
        Raises CertificateError if the certificate is malformed or proves anything else than
        `lower` and `upper`, or if `value` is not what it proves.
        """
        if self.certificate.get("kind") != self.kind or (self.upper if self.sense == "upper" else self.lower) is None:
            raise CertificateError(f"the certificate does not belong to a bound of kind {self.kind} and sense {self.sense}.")
        try:
            proof = self.prove(self.instance, self.certificate)
            derived = _rounded(proof)
        except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, CertificateError):
                raise
            raise CertificateError(f"the certificate of {self.kind} is malformed ({error!r}).") from None
        if derived != (self.lower, self.upper):
            raise CertificateError(
                f"the certificate of {self.kind} proves (lower, upper) = {derived}, not {(self.lower, self.upper)} as stated."
            )
        tolerance = VALUE_TOLERANCE * abs(self.certified_value) + VALUE_FLOOR + float(proof.truncation)
        if not isinstance(self.value, float) or not abs(self.value - self.certified_value) <= tolerance:
            raise CertificateError(f"the value {self.value!r} of {self.kind} is not the certified {self.certified_value!r}.")
        return self.certified_value


def _rounded(proof: Proof) -> tuple[float | None, float | None]:
    return (
        None if proof.lower is None else round_down(proof.lower),
        None if proof.upper is None else round_up(proof.upper),
    )


def certify(
    kind: str, sense: str, value: float, instance: Instance, prove: Prover, certificate: dict[str, Any], **found: Any
) -> Bound:
    """The bound that a certificate proves; `found` holds `solution` and `duals`."""
    certificate = {"kind": kind, **certificate}
    lower, upper = _rounded(prove(instance, certificate))
    return Bound(
        kind=kind,
        sense=sense,
        value=value,
        lower=lower,
        upper=upper,
        certificate=certificate,
        instance=instance,
        prove=prove,
        **found,
    )
