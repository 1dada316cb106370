"""A linear programme stated with PuLP, solved by HiGHS, and held open so that rows and columns can be added to it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pulp
from numpy.typing import NDArray

TOLERANCE = 1e-10  # primal and dual feasibility; HiGHS accepts no less
DEVEX = 1  # pricing; the weights of steepest edge would be computed anew whenever rows are added, at 4 times the cost


class InfeasibleError(RuntimeError):
    """A programme has no solution."""


class HeldProgramme:
    """A maximisation problem after its first solve; `solve_again` continues from the last basis.

    Multipliers are those of a maximisation: >= 0 for a `<=` row or an upper bound, free for an equation. A partial programme
    still lacks columns, without which it may be infeasible: its first solution is not looked at.
    """

    def __init__(self, problem: pulp.LpProblem, is_partial: bool = False) -> None:
        assert problem.sense == pulp.LpMaximize
        self.problem = problem
        problem.solve(
            pulp.HiGHS(
                msg=False,
                threads=1,
                primal_feasibility_tolerance=TOLERANCE,
                dual_feasibility_tolerance=TOLERANCE,
                simplex_dual_edge_weight_strategy=DEVEX,
            )
        )
        self.solver: Any = problem.solverModel
        if not is_partial:
            self._read()

    def _read(self) -> None:
        status = self.solver.modelStatusToString(self.solver.getModelStatus())
        if status == "Infeasible":
            raise InfeasibleError(f"the linear programme {self.problem.name} has no solution.")
        if status != "Optimal":
            raise RuntimeError(f"HiGHS ended with status {status!r} on the linear programme {self.problem.name}.")
        solution = self.solver.getSolution()
        self.values = np.array(solution.col_value)
        self.row_multipliers = -np.array(solution.row_dual)
        self.column_multipliers = -np.array(solution.col_dual)
        self.value = -float(self.solver.getInfo().objective_function_value)

    def indices(self, variables: Sequence[pulp.LpVariable]) -> NDArray[np.int64]:
        """The columns of some variables."""
        return np.array([variable.index for variable in variables], np.int64)

    def add_rows(
        self, rows: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]], most: NDArray[np.float64] | None = None
    ) -> range:
        """Add rows (columns, coefficients) that say sum of coefficients x columns <= `most`, or 1; returns their numbers."""
        columns, coefficients = zip(*rows)
        starts = np.concatenate([[0], np.cumsum([len(each) for each in columns])]).astype(np.int32)
        indices = np.concatenate(columns).astype(np.int32)
        before, n = self.solver.getNumRow(), len(rows)
        entries = (len(indices), starts[:-1], indices, np.concatenate(coefficients))
        self.solver.addRows(n, np.full(n, -np.inf), np.ones(n) if most is None else most, *entries)
        return range(before, before + n)

    def set_objective(self, columns: NDArray[np.int64], coefficients: NDArray[np.float64]) -> None:
        """Change the coefficients of some columns in the objective."""
        self.solver.changeColsCost(len(columns), columns.astype(np.int32), -coefficients)

    def add_column(self, objective: float, rows: NDArray[np.int64], coefficients: NDArray[np.float64]) -> None:
        """Add a variable >= 0 with these coefficients in the objective and in some rows."""
        self.solver.addCol(-objective, 0.0, np.inf, len(rows), rows.astype(np.int32), coefficients)

    def solve_again(self) -> None:
        """Solve with what has changed since."""
        self.solver.run()
        self._read()
