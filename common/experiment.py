"""What makes two runs the same experiment, and what a run is called."""

import ast
import hashlib
import inspect
import re
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from common.system.errors import UserError
from common.system.files import read_json

if TYPE_CHECKING:
    from common.run import Run

# What fingerprints are of, if they differ.
OTHERS = {
    "common": "other code in common/",
    "script": "other code in the script",
    "model": "other code in the model's file",
    "images": "other images or masks",
}
NOT_IN_NAMES = '/\\:*?"<>|$'  # not allowed in file names by some system, or read by a shell


def default_name(main: Callable, parameters: dict, run: "Run") -> str:
    """Name a run after its script and what differs from the script's defaults: train-shapes-epochs20-s1."""
    differs = [Path(inspect.getfile(main)).stem]
    for key, value in parameters.items():
        if value == inspect.signature(main).parameters[key].default or key == "encoder_weights":  # where a file lies
            continue
        if isinstance(value, bool):
            differs.append(key if value else f"no_{key}")
        elif isinstance(value, tuple):
            differs.append(key + "x".join(map(str, value)))
        else:
            differs.append(short_name(value) if isinstance(value, str) else f"{key}{value}")
    if run.init:
        differs.append(f"init_{short_name(run.init)}")
    if run.fold:
        differs.append(f"fold{run.fold.replace('/', 'of')}")
    if run.seed:
        differs.append(f"s{run.seed}")
    return re.sub(rf"[{re.escape(NOT_IN_NAMES)}\s]", "_", "-".join(differs))


def short_name(value: str) -> str:
    """Return `value`; of a path its last part, of best_x.pt x, of "." and ".." the name of the folder that is meant."""
    if value.endswith(".pt"):
        return Path(value).stem.removeprefix("best_")
    name = Path(value).name
    return name if name.strip(".") else Path(value).resolve().name


def numbered_name(base: str, config: dict) -> tuple[str, str]:
    """Return the name of a run, so that it replaces no other one: `base`, `base`-2, `base`-3, ...

    That is the first name that is free, or that of a run which differs in nothing.

    Args:
        config: what the run's config.json will hold of "experiment" and "fingerprints", or as much as is known of it.

    Returns:
        The name; and what differs from the last run whose name it is not, in words: "train had lr 0.01 -> 0.001".
    """
    beside = ""
    for number in count(1):
        name = base if number == 1 else f"{base}-{number}"
        recorded = read_json(Path("runs", name, "config.json"))
        if not recorded and not Path(f"best_{name}.pt").exists():
            return name, beside
        changes = differences(recorded, config)
        if recorded and not changes:
            return name, beside
        beside = f"{name} had {', '.join(changes.values())}" if recorded else f"{name} is of unknown settings"


def resumable_name(base: str, config: dict) -> tuple[str, str]:
    """Return the name of the newest run that can go on with the settings in `config`, and what was edited since.

    How many epochs there are may differ, and how long is waited for a better one; the checkpoint knows what else must
    be as it was.

    Raises:
        UserError: there is none; the sentence says which setting was another.
    """
    pattern, refused = rf"last_({re.escape(base)}(?:-(\d+))?)\.pt", ""
    found = filter(None, (re.fullmatch(pattern, path.name) for path in Path().glob("last_*.pt")))
    for name in (match[1] for match in sorted(found, key=lambda match: int(match[2] or 1), reverse=True)):
        recorded = read_json(Path("runs", name, "config.json"))
        changes = differences(recorded, config) if recorded else {}  # without a record the checkpoint itself must tell
        edited = ", ".join(changes.pop(key) for key in [*changes] if key in config["fingerprints"])
        if all(map(may_differ, changes)):
            return name, edited and f"{edited} than it began with"
        refused = refused or f"{name} had {', '.join(changes.values())}; give the settings that it began with"
    newest = sorted(Path().glob("last_*.pt"), key=lambda path: path.stat().st_mtime, reverse=True)[:3]
    there = ", ".join(map(str, newest)) or "none"
    missing = f"last_{base}.pt is not in {Path.cwd()} (the newest there: {there}); give the same flags as the run"
    missing += ", or its --name, with which --epochs may be another"
    raise UserError(f"nothing to resume: {refused or missing}")


def may_differ(parameter: str) -> bool:
    """Return whether a run can go on with another value of `parameter`."""
    return parameter == "patience" or parameter.endswith("epochs")


def differences(found: dict, expected: dict) -> dict[str, str]:
    """Return what differs between what two config.json hold, of what `expected` has, as {"lr": "lr 0.01 -> 0.001"}."""
    before, after = found.get("experiment", {}), expected["experiment"]
    changed = {key: f"{key} {before.get(key)} -> {after.get(key)}" for key in {**before, **after}}
    changed = {key: text for key, text in changed.items() if before.get(key) != after.get(key)}
    prints = found.get("fingerprints", {})
    others = {key: OTHERS[key] for key, value in expected["fingerprints"].items() if prints.get(key) != value}
    return changed | others


def code_of(script: str) -> str:
    """Return the code in the text of a script, without docstring and comments: what they say changes no result."""
    tree = ast.parse(script)
    if ast.get_docstring(tree) is not None:
        del tree.body[0]
    return ast.unparse(tree)


def fingerprint(text: str) -> str:
    """Return 12 hexadecimal digits that change with `text`."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]


def plain(value: object) -> object:
    """Return `value` as JSON gives it back: tuples as lists, paths as text."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)
