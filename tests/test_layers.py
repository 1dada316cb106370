"""Imports go down only: matchgym -> cli -> leaderboards -> agents -> baselines -> bounds -> envs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

LAYERS = ["envs", "bounds", "baselines", "agents", "leaderboards", "cli"]
ROOT = Path(__file__).parent.parent


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("layer", LAYERS)
def test_arrows_go_down(layer):
    above = LAYERS[LAYERS.index(layer) + 1 :]
    for path in (ROOT / layer).rglob("*.py"):
        for name in imported(path):
            assert name.split(".")[0] not in LAYERS, f"{path}: import matchgym.{name}, not {name}"
            assert not any(name.startswith(f"matchgym.{other}") for other in above), f"{path} imports {name}"


def test_envs_need_numpy_numba_and_gymnasium_only():
    allowed = {"matchgym", "numpy", "numba", "llvmlite", "gymnasium"} | set(sys.stdlib_module_names)
    for path in (ROOT / "envs").rglob("*.py"):
        assert {name.split(".")[0] for name in imported(path)} <= allowed, path


def test_import_is_light():
    code = "import sys, matchgym; print([m for m in ('torch', 'pulp', 'numba', 'scipy') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
