"""Seasons: seeds that nobody can know while submissions are open, and that everybody can check afterwards.

A season has a secret of 32 random bytes. Its sha256 is published when the season opens and the secret itself when it closes.
The seeds of a task are HMAC-SHA256(secret, task | phase): phase "season" for the replications that rows are ranked by, phase
"fresh" for the verification of would-be leaders. Replication b takes seed + b. Public seeds, for practice, are the tasks' own.
The same with "instance" in place of a phase draws the instances of the families.
"""

import hashlib
import hmac
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import matchgym
from matchgym.envs.instance import InputError, shorten
from matchgym.leaderboards.families import FamilyTask
from matchgym.leaderboards.store import CERTIFICATES, Record, Store
from matchgym.leaderboards.tasks import SCORER_VERSION, SUITE_VERSION, TASKS, Task

PHASES = ("season", "fresh")
INSTANCE = "instance"  # stands for the phase where the seed is that of a secret instance
OPENED, CLOSED, ARCHIVED = "season-opened", "season-closed", "season-archived"


@dataclass(frozen=True)
class Season:
    """A season as the records tell of it."""

    name: str
    commitment: str  # sha256 of the secret
    is_quick: bool  # whether its tasks are at a fraction of their length, to try things out
    versions: tuple[str, str]  # of the suite and the scorer
    revealed: bytes | None = None  # the secret, once the season is closed

    @property
    def is_open(self) -> bool:
        return self.revealed is None

    def secret(self, store: Store) -> bytes:
        """The secret, revealed or kept beside the store; InputError if it is neither."""
        found = self.revealed or store.secret(self.name)
        if found is None:
            raise InputError(
                f"the secret of season {self.name} is neither revealed nor kept here; its rows cannot be replayed."
            )
        if hashlib.sha256(found).hexdigest() != self.commitment:
            raise InputError(f"the secret of season {self.name} does not have the sha256 that the season committed to.")
        return found


def seed_of(secret: bytes, task: Task, phase: str) -> int:
    """The seed of replication 0 of a task, below 2^62."""
    digest = hmac.new(secret, f"{task.name}|{phase}".encode(), hashlib.sha256).digest()
    return int.from_bytes(digest[:8], "big") >> 2


def season_tasks(season: Season, store: Store, tasks: Sequence[Task] = TASKS) -> dict[str, Task]:
    """The tasks of a season by name; those of families have their instances if the season's secret is revealed or here."""
    secret = season.revealed or store.secret(season.name)
    found = {}
    for task in tasks:
        if isinstance(task, FamilyTask) and secret is not None:
            task = task.drawn_with(seed_of(season.secret(store), task, INSTANCE))
        found[task.name] = task.quick() if season.is_quick else task
    return found


def seasons(records: list[Record]) -> list[Season]:
    """All seasons, oldest first."""
    found: dict[str, Season] = {}
    for record in records:
        body = record["body"]
        if record["kind"] == OPENED:
            if body["season"] in found:
                raise InputError(f"record {record['n']} opens season {body['season']!r} twice.")
            versions = body["suite_version"], body["scorer_version"]
            found[body["season"]] = Season(body["season"], body["commitment"], body["quick"], versions)
        elif record["kind"] == CLOSED:
            old = found.get(body["season"])
            if old is None or not old.is_open:
                raise InputError(f"record {record['n']} closes season {body['season']!r}, which is not open.")
            revealed = bytes.fromhex(body["secret"])
            if hashlib.sha256(revealed).hexdigest() != old.commitment:
                raise InputError(f"record {record['n']} reveals a secret that season {old.name} did not commit to.")
            found[old.name] = replace(old, revealed=revealed)
    return list(found.values())


def latest(store: Store) -> Season:
    """The season that was opened last; InputError if there is none."""
    found = seasons(store.records())
    if not found:
        raise InputError("the board has no season; open one with: matchgym leaderboard open NAME.")
    return found[-1]


def open_season(store: Store, name: str, is_quick: bool = False, secret: bytes | None = None) -> Season:
    """Commit to a secret; by default fresh random bytes."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,39}", name):
        raise InputError(f"a season's name has up to 40 of a-z, 0-9, . and -, unlike {shorten(name)}.")
    if name == CERTIFICATES:
        raise InputError(f"a season cannot be named {name}, as a folder beside its secret is; choose another name.")
    known = seasons(store.records())
    if any(season.is_open for season in known):
        raise InputError(f"season {known[-1].name} is still open; close it first.")
    if any(season.name == name for season in known):
        raise InputError(f"there was a season {name} already; choose another name.")
    secret = os.urandom(32) if secret is None else secret
    commitment = hashlib.sha256(secret).hexdigest()
    store.put_secret(name, secret)
    versions = {"suite_version": SUITE_VERSION, "scorer_version": SCORER_VERSION, "package_version": matchgym.__version__}
    store.append(OPENED, {"season": name, "commitment": commitment, "quick": is_quick, **versions})
    return Season(name, commitment, is_quick, (SUITE_VERSION, SCORER_VERSION))


def archive(store: Store, season: Season) -> None:
    """Keep the last board of a closed season among the blobs: with another suite, it no longer follows from the records."""
    store.append(ARCHIVED, {"season": season.name, "board_sha256": store.put_blob(store.board())})


def close_season(store: Store) -> Season:
    """Reveal the secret of the open season; nothing can be submitted to it any more."""
    season = latest(store)
    if not season.is_open:
        raise InputError(f"season {season.name} is closed already.")
    secret = season.secret(store)
    store.append(CLOSED, {"season": season.name, "secret": secret.hex()})
    store.reveal_certificates()
    return replace(season, revealed=secret)
