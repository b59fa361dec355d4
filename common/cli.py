"""Turn the annotated parameters of a script's `main` into command-line flags."""

import argparse
import atexit
import dataclasses
import difflib
import gc
import inspect
import os
import re
import signal
import sys
import typing
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist

from common.datasets import Size
from common.run import Run
from common.system.errors import UserError


def cli(main: Callable, argv: list[str] | None = None) -> None:
    """Run `main` with the flags in `argv` (default: the command line), as a program.

    Every parameter `name: type = default,  # help` of `main` becomes the flag `--name`. A bool also gets `--no-name`. A
    `Literal` accepts its choices, a `Size` 224 or 120x160. A parameter without default becomes a positional argument,
    repeatable if it is a `list`. If `main` has a parameter `run`, the fields of `Run` become flags too.
    A UserError prints one sentence and ends with exit status 1, a wrong flag with 2, Ctrl-C and SIGTERM with 130.
    """
    module = sys.modules[main.__module__]
    file, repository = Path(module.__file__).resolve(), Path(__file__).parents[1]
    place = file.relative_to(repository) if file.is_relative_to(repository) else Path(file.name)
    name = place.name if len(place.parts) == 1 else "-m " + ".".join(place.with_suffix("").parts)
    parser = argparse.ArgumentParser(
        prog=f"python {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    atexit.register(gc.freeze)  # without it, the last garbage collection takes a second
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # treat a cluster's request to stop like Ctrl-C
    try:
        main(**read_flags(parser, main, argv))
    except UserError as error:
        sys.exit(f"{parser.prog.split()[-1]}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    except RuntimeError as error:
        if not dist.is_initialized() or not re.search("connection (closed|reset)|nccl", str(error), re.IGNORECASE):
            raise
        sys.exit(f"{parser.prog.split()[-1]}: another process has ended; its message tells the reason")
    except BrokenPipeError:  # `python train.py | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def read_flags(parser: argparse.ArgumentParser, main: Callable, argv: list[str] | None) -> dict:
    """Return the arguments for `main` from the flags in `argv`."""
    parameters = inspect.signature(main).parameters
    ours = [p for p in parameters.values() if p.name != "run"]
    settings = [field for field in dataclasses.fields(Run) if field.init] if "run" in parameters else []
    add_flags(parser.add_argument_group("the experiment") if settings else parser, main, ours)
    if settings:
        add_flags(parser.add_argument_group("the run (the same flags in every script)"), Run, settings)
    required = [p.name.upper() for p in ours if p.default is inspect.Parameter.empty]
    parser.usage = " ".join([parser.prog, *required, "[--flag VALUE ...]"])  # --help lists the flags
    flags, unknown = parser.parse_known_args(argv)
    if unknown:
        near = difflib.get_close_matches(unknown[0], parser._option_string_actions, cutoff=0.8)
        parser.error(f"{unknown[0]} is no flag; {f'did you mean {near[0]}?' if near else '--help lists them'}")
    flags = vars(flags)
    if settings:
        flags["run"] = Run(**{field.name: flags.pop(field.name) for field in settings})
    return flags


def add_flags(group: argparse._ActionsContainer, owner: Callable, parameters: list) -> None:
    """Add one flag to `group` for each of `parameters`: parameters of a function or fields of a dataclass."""
    types, comments = typing.get_type_hints(owner), read_comments(owner)
    for parameter in parameters:
        default = parameter.default
        kind = types.get(parameter.name, type(default))
        text = comments.get(parameter.name, "")
        if default is inspect.Parameter.empty:
            several = {"nargs": "+"} if typing.get_origin(kind) is list else {}
            kind = typing.get_args(kind)[0] if several else kind
            options = {"type": kind, "metavar": parameter.name.upper(), "help": text.replace("%", "%%")}
            group.add_argument(parameter.name, **options, **several)
            continue
        if default not in ("", None):
            shown = "x".join(map(str, default)) if isinstance(default, tuple) else default
            text += f" [{('yes' if default else 'no') if isinstance(default, bool) else shown}]"
        options = {"default": default, "help": text.replace("%", "%%")}
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif typing.get_origin(kind) is typing.Literal:
            options["choices"] = typing.get_args(kind)
            if default not in options["choices"]:  # argparse does not check defaults
                there = ", ".join(options["choices"])
                raise UserError(f"{parameter.name} is {default!r} in the script; it must be one of {there}")
            options["metavar"] = "|".join(options["choices"])
        elif kind == bool | str:  # a flag with or without a value
            options |= {"nargs": "?", "const": True, "metavar": "NAME"}
        elif kind == Size:
            options["type"], options["metavar"] = read_size, "PIXELS|HEIGHTxWIDTH"
        else:
            options["type"] = kind
            options["metavar"] = kind.__name__.upper().replace("STR", "TEXT")
        group.add_argument("--" + parameter.name.replace("_", "-"), **options)


def read_size(text: str) -> Size:
    """Return the size from `text`: height x width, such as 120x160, or one number for both."""
    try:
        sides = [int(side) for side in text.split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; give one number, or height x width such as 120x160")
    return sides[0] if sides[0] == sides[-1] else tuple(sides)


def read_comments(owner: Callable) -> dict[str, str]:
    """Map each `name: type = default,  # comment` in the source of `owner` to its comment."""
    found = re.findall(r"^\s*(\w+)(?::| =)[^#\n]*#\s*(.*?)\s*$", inspect.getsource(owner), re.MULTILINE)
    return dict(reversed(found))  # if a name occurs twice, the first one is the parameter
