"""A rehearsal of `fit`: a declared policy of a stranger must be ready in time and within memory.

What a declaration names is our code, but a stranger chooses the parameters, and a programme can take for ever on an instance.
So `fit` is first run in a child process with limits; only what passes is fitted here.
"""

import multiprocessing
import os
import resource
import signal
from multiprocessing.connection import Connection
from typing import Any

from matchgym.envs.instance import InputError
from matchgym.leaderboards.artefact import File, load_policy

FIT_SECONDS, FIT_MEGABYTES = 120.0, 6144  # of wall time, and of address space
START, START_SECONDS = "spawn", 60.0  # a fresh interpreter: forks of a process with threads may hang


def rehearse(file: File, seconds: float = FIT_SECONDS, megabytes: int = FIT_MEGABYTES) -> None:
    """Fit a declared policy in a child process; InputError if that fails, takes too long or needs too much memory."""
    here, there = multiprocessing.Pipe(duplex=False)
    context: Any = multiprocessing.get_context(START)
    child = context.Process(target=_child, args=(file, megabytes, there), daemon=True)
    child.start()
    there.close()
    try:
        answer = _receive(here, START_SECONDS, file)
        if answer == "started":
            answer = _receive(here, seconds, file)
    except TimeoutError:
        raise InputError(
            f"the declared policy is not ready for task {file.task.name} within {seconds:g} s; choose other parameters."
        ) from None
    except EOFError:
        raise InputError(too_large(file, megabytes)) from None
    finally:
        _end(child)
        here.close()
    if answer != "ready":
        raise InputError(answer)


def too_large(file: File, megabytes: int) -> str:
    return f"the declared policy needs more than {megabytes} MB, or breaks down, on task {file.task.name}; change it."


def _receive(pipe: Connection, seconds: float, file: File) -> str:
    if not pipe.poll(seconds):
        raise TimeoutError
    return str(pipe.recv())


def _end(child: Any) -> None:
    """End the child and the solvers that it started, which are in its group."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        child.kill()
    child.join()


def _child(file: File, megabytes: int, pipe: Connection) -> None:
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
    pipe.send("started")
    try:
        load_policy(file)
        answer = "ready"
    except InputError as error:
        answer = str(error)
    except MemoryError:
        answer = too_large(file, megabytes)
    pipe.send(answer)
