"""The command line `matchgym`."""

import sys
from collections.abc import Sequence

import typer

from matchgym.envs.instance import InputError

UsageError = typer.BadParameter.__base__  # whichever click typer is built on
LONGEST = 235  # characters of a refusal: three lines of 80 columns
INTERRUPTED = 130  # what typer returns after Ctrl-C


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Exit codes: 0 done, 2 bad input (one sentence on stderr), 1 anything else."""
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        from matchgym.cli.commands import app

        code = app(words, prog_name="matchgym", standalone_mode=False) or 0
    except InputError as error:
        sys.exit(_refuse(str(error)))
    except UsageError as error:  # type: ignore[misc]
        sys.exit(_refuse(error.format_message()))
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(_interrupted())
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone; there is nobody to tell
        sys.exit(1)
    except OSError as error:
        print(f"{error.filename or 'output'}: {error.strerror}.", file=sys.stderr)
        sys.exit(1)
    if code == INTERRUPTED:
        sys.exit(_interrupted())
    sys.exit(code)


def _interrupted() -> int:
    print("Interrupted; what was finished is kept.", file=sys.stderr)
    return 1


def _refuse(sentence: str) -> int:
    print(sentence if len(sentence) <= LONGEST else sentence[: LONGEST - 3] + "...", file=sys.stderr)
    return 2
