"""``python -m offline``: preview a stack, or write its manifests, with no account, cluster or Pulumi CLI."""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
import traceback
from collections.abc import Generator, Sequence
from pathlib import Path

from rich.console import Console

from offline import manifests, preview
from offline.answers import Answers
from offline.engine import NotAnsweredOffline, ProgramRefused, run_program
from offline.recording import Recording
from planning.stackfile import StackFileError, read_stack, stack_path

_ROOT = Path(__file__).resolve().parents[1]
_FAILED, _REFUSED = 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; give its exit code: 1 for a bug or a limit of the offline engine, 2 for a configuration."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except (StackFileError, manifests.NotOurDirectory) as error:
        return _fail(str(error), _REFUSED)
    except ProgramRefused as error:
        return _fail(str(error), _REFUSED)
    except NotAnsweredOffline as error:
        return _fail(f"cannot be previewed offline: {error}", _FAILED)
    except Exception as error:
        return _fail(_from_the_program(error).rstrip(), _FAILED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m offline", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("stack", metavar="STACK", help="a stack's name, or a path to a stack file")
    common.add_argument("--program", type=Path, default=_ROOT / "__main__.py", help="the Pulumi program to run")

    one = commands.add_parser("preview", parents=[common], help="print the plan, the resources and the outputs")
    one.add_argument("--all", action="store_true", help="list every resource and cut no line")
    one.add_argument("--json", action="store_true", help="print everything as JSON")
    one.set_defaults(run=_preview)

    two = commands.add_parser("manifests", parents=[common], help="write Kubernetes objects and Helm values as files")
    two.add_argument("out", metavar="OUT", type=Path, help="the directory to write, new or written by this command")
    two.add_argument(
        "--samples", action="store_true", help="sample ids and ARNs in place of ${name.property}, for a scratch cluster"
    )
    two.set_defaults(run=_manifests)
    return parser


def _preview(options: argparse.Namespace) -> int:
    recording = _run(options, preview=True)
    if options.json:
        print(preview.as_json(recording))
    else:
        terminal = sys.stdout.isatty()
        console = Console(highlight=False, width=None if terminal else preview.WIDTH)
        preview.show(recording, console, everything=options.all)
    if recording.duplicate_urns:
        raise ProgramRefused([f"duplicate resource URN {urn}" for urn in recording.duplicate_urns], [])
    return 0


def _manifests(options: argparse.Namespace) -> int:
    answers = Answers(placeholders=not options.samples)
    recording = _run(options, preview=False, answers=answers)
    count = manifests.write(recording, options.out, placeholders=answers.given)
    print(f"{count} objects and Helm releases of stack {recording.stack} in {options.out}; start at index.md")
    return 0


def _run(options: argparse.Namespace, *, preview: bool, answers: Answers | None = None) -> Recording:
    stack = read_stack(stack_path(options.stack))
    with _progress(f"running the program for {stack.stack_name}"), contextlib.redirect_stdout(sys.stderr):
        return run_program(
            options.program,
            stack.project,
            stack.stack_name,
            stack.engine_config(),
            stack.secret_keys,
            preview=preview,
            answers=answers,
        )


@contextlib.contextmanager
def _progress(text: str) -> Generator[None]:
    """Turn a spinner on standard error after two seconds, in a terminal only."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    status = console.status(text)
    timer = threading.Timer(2.0, status.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        status.stop()


def _fail(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


def _from_the_program(error: Exception) -> str:
    """Format a bug's traceback from the program's first line on, without the machinery that led to it."""
    shown = traceback.TracebackException.from_exception(error)
    chain: traceback.TracebackException | None = shown
    while chain is not None:
        frames = list(chain.stack)
        own = [position for position, frame in enumerate(frames) if _is_program(frame.filename)]
        if own:
            chain.stack = traceback.StackSummary.from_list(frames[own[0] :])
        chain = chain.__cause__ or chain.__context__
    return "".join(shown.format())


def _is_program(filename: str) -> bool:
    file = Path(filename)
    return file.is_relative_to(_ROOT) and "site-packages" not in file.parts and _ROOT / "offline" not in file.parents


if __name__ == "__main__":
    sys.exit(main())
