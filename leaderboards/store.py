"""The files of a published board."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from matchgym.envs.instance import InputError, shorten_path

SCHEMA_VERSION = 1  # of board.json
BOARD, TIMINGS, PAGE, CERTIFICATES = "board.json", "timings.json", "index.html", "certificates"
MAX_CERTIFICATE_BYTES = 1_000_000  # a larger certificate is published by its digest only
RESULTS = Path(__file__).parent / "results"  # what the project publishes


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no blanks, shortest round-trip floats."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def dump(value: Any) -> str:
    """JSON for files: indented, lists of numbers on one line, the order of keys kept."""
    text = json.dumps(value, indent=1, allow_nan=False)
    return re.sub(r"\[\n\s+([-+.\deE,\s]+?)\n\s+\]", _one_line, text) + "\n"


def _one_line(match: re.Match[str]) -> str:
    return "[" + re.sub(r"\s+", " ", match[1]) + "]"


def certificate_path(out: Path, task: str) -> Path:
    return out / CERTIFICATES / f"{task}.json"


def read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{shorten_path(path)} cannot be read; build the board first.") from None


def _refuse_constant(token: str) -> float:
    raise ValueError(f"{token} is not a number")


def _integer(digits: str) -> int:
    """An integer that a float can hold, as all numbers of a board are; certificates have integers of some 80 bits."""
    number = int(digits)
    float(number)  # OverflowError beyond
    return number


def read_json(path: Path) -> Any:
    """The JSON values of a file of the board; InputError if there are none."""
    try:
        return json.loads(read_text(path), parse_constant=_refuse_constant, parse_int=_integer)
    except (OverflowError, RecursionError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{shorten_path(path)} is not JSON; build the board anew.") from None


def read_board(out: Path) -> dict[str, Any]:
    """board.json with the keys that everything else relies on."""
    board = read_json(out / BOARD)
    keys = {"schema_version", "suite_version", "scorer_version", "package_version", "quick", "tasks"}
    if not isinstance(board, dict) or set(board) != keys or not isinstance(board["tasks"], list):
        raise InputError(f"{shorten_path(out / BOARD)} is not a leaderboard; build the board anew.")
    return board
