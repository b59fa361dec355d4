"""Run an experiment in several variants and set the results side by side."""

import csv
import io
import json
import statistics
from collections.abc import Callable
from dataclasses import replace

from common import plotting
from common.errors import UserError
from common.files import write_text
from common.metrics import MIOU, PIXEL_ACCURACY
from common.run import Run, default_name

COLUMNS = ["variant", "parameters", "test loss", "pixel accuracy", "mIoU", "floor", "images/s", "minutes"]


def compare_variants(main: Callable, variants: dict[str, dict], parameters: dict, run: Run) -> dict[str, dict]:
    """Run `main` once for each variant; print a table and draw a figure of what came out.

    Each is a run of its own, with the name that it would have alone. One that is finished is not run again, one that
    was interrupted goes on where it was, one that fails is left out.

    Args:
        main: an experiment that returns what `score` returns.
        variants: by name, what each changes in `parameters`; among it, the flag that asks for the comparison.
        parameters: the arguments of the `main` that asks for the comparison, that is `locals()`.
        run: as `main` received it, not started.

    Returns:
        What `score` returned, by variant.

    Raises:
        UserError: after all others have run, if a variant failed.
    """
    parameters = {key: value for key, value in parameters.items() if key != "run"}
    whole = replace(run, resume=False).start(main, parameters)
    results, histories, failures = {}, {}, []
    for number, (variant, changes) in enumerate(variants.items(), start=1):
        ours = parameters | changes
        name = f"{run.name}-{variant}" if run.name else default_name(main, ours, run.seed)
        one = replace(run, name=name, resume=False)
        whole.print(f"\n{variant}, {number} of {len(variants)}")
        config, test = one.folder / "config.json", one.folder / "test.json"
        recorded = json.loads(config.read_text())["parameters"] if config.exists() else {}
        known = recorded != {} and json.loads(json.dumps(ours)).items() <= recorded.items()
        try:
            if known and test.exists():
                whole.print(f"{test} is there")
                results[variant] = json.loads(test.read_text())
            else:
                results[variant] = main(**ours, run=replace(one, resume=known and one.last_checkpoint.exists()))
            histories[variant] = list(csv.DictReader(io.StringIO((one.folder / "history.csv").read_text())))
        except UserError as error:
            failures.append(f"{variant}: {error}")
            whole.print(failures[-1])
    if results and whole.rank == 0:
        table = [COLUMNS, *(row_of(variant, results[variant], histories[variant]) for variant in results)]
        write_text(whole.folder / "table.csv", "".join(",".join(row) + "\n" for row in table))
        plotting.plot_comparison(results, histories, whole.plot(), whole.name)
        lines = [f"| {' | '.join(row)} |" for row in [table[0], ["---"] * len(COLUMNS), *table[1:]]]
        whole.print("\n" + "\n".join(lines) + f"\n\nsee {whole.plot()} and {whole.folder / 'table.csv'}")
    if failures:
        raise UserError(f"{len(failures)} of {len(variants)} variants failed; {'; '.join(failures)}")
    return results


def row_of(variant: str, result: dict, history: list[dict]) -> list[str]:
    """Return the table's row of a variant; images/s are those of training, without validation, in its last stage."""
    rates = [float(row["train_images_per_second"]) for row in history if row["stage"] == history[-1]["stage"]]
    return [
        variant,
        f"{result['parameters'] / 1e6:.2f} M",
        f"{result['loss']:.3f}",
        f"{result['scores'][PIXEL_ACCURACY]:.3f}",
        f"{result['scores'][MIOU]:.3f}",
        f"{result['floor'][MIOU]:.3f}",
        f"{statistics.median(rates):.1f}",
        f"{sum(float(row['seconds']) for row in history) / 60:.1f}",
    ]
