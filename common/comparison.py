"""Run an experiment once for each value of one setting, all else equal, and put the results side by side."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from common import checkpoint
from common.engine import best_row
from common.metrics import MIOU, PIXEL_ACCURACY
from common.plotting import plot_comparison


def compare(main: Callable, settings: dict, switch: str, flag: str, values: Iterable[str]) -> dict[str, dict]:
    """Call `main` with each of `values`; draw their curves in one figure, print their scores in one table.

    Each call is a run of its own, <run>-<value>, with the same seed: the same initial weights, the same batches. With
    `--resume`, a comparison that was stopped goes on: finished runs are only scored again.

    Args:
        main: the experiment's function; returns what `common.engine.score` does.
        settings: its arguments, that is `locals()`.
        switch: the parameter that asked for the comparison; off in each call.
        flag: the parameter that takes the values.
        values: the values.

    Returns:
        What `main` returned, by value.
    """
    settings = dict(settings)
    run = settings.pop("run")
    whole = replace(run, resume=False).start(main, settings)
    results, histories = {}, {}
    for value in values:
        one = replace(run, name=f"{whole.name}-{value}")
        one.resume = run.resume and one.last_checkpoint.exists()
        results[value] = main(**{**settings, switch: False, flag: value}, run=one)
        histories[value] = checkpoint.load(one.last_checkpoint)["history"]
    if whole.rank == 0:
        plot_comparison(histories, whole.plot(), whole.name)
    width = max(map(len, [flag, *results])) + 2
    whole.print(f"\n{flag:<{width}}{'rate':>10}{'best epoch':>12}{'test mIoU':>11}{'accuracy':>10}{'loss':>8}")
    for value, result in results.items():
        best, scores = best_row(histories[value]), result["scores"]
        line = f"{value:<{width}}{histories[value][0]['lr']:>10.1e}{best['epoch']:>12}{scores[MIOU]:>11.4f}"
        whole.print(f"{line}{scores[PIXEL_ACCURACY]:>10.4f}{result['loss']:>8.3f}")
    whole.print(f"see {whole.plot()}")
    return results
