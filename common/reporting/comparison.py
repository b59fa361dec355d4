"""Run an experiment in several variants and set the results side by side."""

import inspect
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from common.checkpoint import describe_run
from common.experiment import default_name, numbered_name, plain
from common.history import read_history
from common.metrics import MIOU, PIXEL_ACCURACY
from common.reporting import plotting
from common.reporting.results import table as markdown
from common.run import Run
from common.system.errors import UserError
from common.system.files import read_json, write_json, write_text


def compare_variants(main: Callable, variants: dict[str, dict], parameters: dict, run: Run) -> dict[str, dict]:
    """Run `main` once for each variant; print a table and draw a figure of what came out.

    Each is a run of its own, with the name that it would have alone. One that is finished is not run again, one that
    was interrupted goes on where it was, one that fails is left out.

    Args:
        main: an experiment that returns what `score` returns.
        variants: by name, what each changes in `parameters`. Flags that begin with "compare" are off in all.
        parameters: the arguments of the `main` that asks for the comparison, that is `locals()`.
        run: as `main` received it, not started.

    Returns:
        What `score` returned, by variant.

    Raises:
        UserError: after all others have run, if a variant failed.
    """
    if run.dry_run:
        raise UserError("--dry-run shows a single training; leave out the comparison")
    arguments = inspect.signature(main).parameters.keys() - {"run"}  # locals() may hold more by now
    parameters = {key: value for key, value in parameters.items() if key in arguments}
    parent = replace(run, resume=False).start(main, parameters)
    if parent.rank == 0:
        write_json(parent.folder / "config.json", describe_run(parent))
    parameters |= {key: False for key in parameters if key.startswith("compare")}
    results, frozen, histories, failures = {}, {}, {}, []
    for number, (variant, changes) in enumerate(variants.items(), start=1):
        settings = parameters | changes
        base = f"{run.name}-{variant}" if run.name else default_name(main, settings, run)
        config = parent.config | {"experiment": parent.experiment | plain(settings)}
        variant_run = replace(run, name=numbered_name(base, config)[0], resume=False)
        parent.print(f"\n{variant}, {number} of {len(variants)}")
        test, begun = variant_run.folder / "test.json", (variant_run.folder / "config.json").exists()
        try:
            if begun and test.exists():
                parent.print(f"{test} is there")
                results[variant] = read_json(test)
            else:
                variant_run.resume = begun and variant_run.last_checkpoint.exists()
                if not (result := main(**settings, run=variant_run)):
                    raise UserError("the test images have no masks to compare it by")
                results[variant] = result
            folder = Path("runs", results[variant]["run"])
            histories[variant] = read_history(folder)
            frozen[variant] = read_json(folder / "test_frozen.json")
        except UserError as error:
            if parent.world_size > 1:  # the other processes may not have failed, and would wait for this one
                raise
            failures.append(variant)
            parent.print(f"{variant} failed: {error}")
    if results and parent.rank == 0:
        speeds = {variant: training_speed(histories[variant]) for variant in results}
        rows = [row_of(v, results[v], frozen[v], histories[v], speeds[v]) for v in results]
        table = [list(rows[0]), *(list(row.values()) for row in rows)]
        write_text(parent.folder / "table.csv", "".join(",".join(row) + "\n" for row in table))
        plotting.plot_comparison(results, frozen, histories, speeds, parent.plot(), parent.name)
        parent.print(f"\n{markdown(table)}\n\nsee {parent.plot()} and {parent.folder / 'table.csv'}")
    if failures:
        raise UserError(f"{len(failures)} of {len(variants)} variants failed, for reasons above: {', '.join(failures)}")
    return results


def training_speed(history: list[dict]) -> float:
    """Return the images/s of training, without validation: the median over the epochs of the last stage."""
    last = [row for row in history if row["stage"] == history[-1]["stage"] and row["epoch"]]
    return statistics.median(row["train_images_per_second"] for row in last)


def row_of(variant: str, result: dict, frozen: dict, history: list[dict], speed: float) -> dict[str, str]:
    """Return the table's row of a variant, by column; if `frozen` has scores, what fine-tuning made of them."""
    row = {"variant": variant, "parameters": f"{result['parameters'] / 1e6:.2f} M"}
    last, first = ({"test loss": r["loss"], **r["scores"]} for r in (result, frozen or result))
    for column in ("test loss", PIXEL_ACCURACY, MIOU):
        if frozen:
            row[f"{column} frozen"] = f"{first[column]:.3f}"
            row[f"{column} fine-tuned"] = f"{last[column]:.3f}"
            row[f"{column} change"] = f"{last[column] - first[column]:+.3f}"
        else:
            row[column] = f"{last[column]:.3f}"
    minutes = sum(epoch["seconds"] for epoch in history) / 60
    return row | {"floor": f"{result['floor'][MIOU]:.3f}", "images/s": f"{speed:.1f}", "minutes": f"{minutes:.1f}"}
