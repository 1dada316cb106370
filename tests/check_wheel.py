"""Build the wheel, install it in a clean environment without extras, and use it as a stranger would.

Run by `make wheel`; not part of the test suite, because it builds an environment. Also runs the type checker, which needs a
regular install.
"""

import json
import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = {
    "matchgym": "matchgym",
    **{name: f"matchgym/{name}" for name in ("envs", "bounds", "baselines", "agents", "leaderboards", "cli")},
}
STAYING = {"__pycache__", "zoo"}  # the zoo's networks are among the results, which are packed
SUFFIXES = {".py", ".npz", ".json", ".jsonl", ".html", ".css", ".typed"}


def run(*command: object, cwd: Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != expect:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}, not {expect}:\n{done.stdout}\n{done.stderr}")
    return done


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        run(sys.executable, "-m", "build", "--wheel", "--outdir", work, cwd=ROOT)
        (wheel,) = work.glob("*.whl")

        packed = set(zipfile.ZipFile(wheel).namelist())
        for folder, target in FOLDERS.items():
            for path in (ROOT / folder).rglob("*"):
                if path.suffix in SUFFIXES and not STAYING & set(path.parts):
                    wanted = f"{target}/{path.relative_to(ROOT / folder)}"
                    assert wanted in packed, f"{wanted} is missing from the wheel"
        print(f"{wheel.name}: {len(packed)} files, none missing")

        venv.create(work / "venv", with_pip=True)
        python, matchgym = work / "venv/bin/python", work / "venv/bin/matchgym"
        run(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel, cwd=work)
        run(python, "-c", "import matchgym, gymnasium as gym; gym.make('StationaryMatching-v0').reset(seed=0)", cwd=work)
        run(
            python,
            "-c",
            "import gymnasium as gym; gym.make('matchgym:StationaryMatching-v0', render_mode='rgb_array')",
            cwd=work,
        )
        assert "evaluate" in run(matchgym, "--help", cwd=work).stdout
        ids = json.loads(run(matchgym, "envs", "--json", cwd=work).stdout)["environments"]
        for entry in ids:
            # Not every default instance has a bound: some leave their rewards open.
            run(matchgym, "bound", entry["id"], "--instance", "toy", "--json", cwd=work)
            run(matchgym, "evaluate", entry["id"], "--policy", entry["policies"][0], "--replications", 2, "--json", cwd=work)
            refused = run(matchgym, "train", entry["id"], cwd=work, expect=2)
            assert "matchgym[rl]" in refused.stderr, refused.stderr
        print("the installed wheel imports, makes environments, bounds and evaluates; training asks for its extra")

        types = run(
            sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", "--python-executable", python,
            "-p", "matchgym", cwd=work,
        )  # fmt: skip
        print(f"types: {types.stdout.strip()}")


if __name__ == "__main__":
    main()
