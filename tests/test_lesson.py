"""tools/lesson.py; README, docs and scripts say of results what results/ holds."""

import difflib
import json
import re
from pathlib import Path

import pytest
from conftest import REPOSITORY

from benchmarks.tables import written
from common.reporting import results
from common.reporting.results import RESULTS, against, load_results, parent_of, say
from common.system.errors import UserError
from tools import lesson

SCORES = ("miou", "pixel_accuracy", "loss")
SIX = ("background", "cat", "cow", "dog", "horse", "sheep")  # that the part of VOC 2012 has many of


@pytest.fixture
def tiny(monkeypatch, voc_root):
    """The lesson on the small VOC data; the function runs two of its scripts."""
    monkeypatch.setitem(lesson.SETTINGS, "voc2007", "--image-size 32 --epochs 2 --batch-size 4")
    return lambda **options: lesson.main("voc2007", scripts="train train_4_a", data_root=voc_root, **options)


@pytest.mark.slow
def test_every_run_is_kept_once_and_what_was_interrupted_goes_on(tiny, capsys):
    Path("runs/lesson-voc2007-train-s0").mkdir(parents=True)  # as a kill before the first epoch leaves it
    tiny(seeds="0")
    kept = json.loads(Path("runs/results/voc2007/train.json").read_text())
    assert kept["command"] == "python train.py --dataset voc2007 --image-size 32 --epochs 2 --batch-size 4 --patience 0"
    assert [run["seed"] for run in kept["runs"]] == [0] and 0 <= kept["runs"][0]["miou"] <= 1
    before = Path("best_lesson-voc2007-train-s0.pt").read_bytes()
    Path("runs/lesson-voc2007-train_4_a-s0/test.json").unlink()  # as if it had been interrupted
    tiny(seeds="0 1")
    assert Path("best_lesson-voc2007-train-s0.pt").read_bytes() == before
    log = Path("runs/lesson-voc2007-train_4_a-s0.log").read_text()
    assert "resuming runs/lesson-voc2007-train_4_a-s0/last.pt after epoch 2" in log
    kept = json.loads(Path("runs/results/voc2007/train_4_a.json").read_text())
    assert [run["seed"] for run in kept["runs"]] == [0, 1]
    assert " (2 seeds) |" in capsys.readouterr().out


def test_a_run_that_fails_says_why_and_the_others_go_on(tiny, capsys):
    Path("runs").mkdir()
    Path("plots").write_text("a file where a folder should be")
    with pytest.raises(UserError, match="2 of 2 runs failed"):
        tiny(seeds="0")
    assert capsys.readouterr().out.count("failed: train") == 2


def test_means_deviations_and_differences():
    parent = {"runs": [{"miou": 0.5}, {"miou": 0.52}, {"miou": 0.54}]}
    result = {"runs": [{"miou": 0.6}, {"miou": 0.62}, {"miou": 0.64}]}
    assert say(results.mean(result, "miou"), results.deviation(result, "miou")) == "0.620 ± 0.020"
    assert against(result, parent) == "+0.100 ± 0.016"  # 0.02 * sqrt(2 / 3)
    assert against({"runs": [{"miou": 0.6}]}, parent) == "+0.080" and against(result, None) == ""


def test_tables_and_result_lines_are_what_results_hold():
    for path, text in written(load_results(), lesson.SCRIPTS).items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run python benchmarks/tables.py"


@pytest.mark.parametrize("script", [*lesson.SCRIPTS[1:], "train_5_d"])
def test_diff_with_the_parent_shows_the_experiment_on_one_screen(script):
    texts = [(REPOSITORY / f"{name}.py").read_text().splitlines() for name in (parent_of(script), script)]
    changed = [line for line in difflib.ndiff(*texts) if line[0] in "-+"]
    assert len(changed) <= 18, "\n".join(changed)


def test_every_score_in_prose_is_in_results():
    known = numbers((REPOSITORY / "docs/published.csv").read_text(), 1)
    for name in ("earlier.json", "train_best_choices.json", "new_places.json"):
        known |= numbers((RESULTS / name).read_text(), 1)
    for (dataset, _), result in load_results().items():
        known |= numbers(json.dumps(result), 1)
        for key in SCORES:
            known |= {f"{results.mean(result, key):.3f}", f"{results.deviation(result, key):.3f}"}
        if dataset == "voc2012":
            tests = [test for run in result["runs"] for test in (run, run.get("tta")) if test]
            known |= {f"{sum(test['iou'][name] for name in SIX) / 6:.3f}" for test in tests}
            known.add(f"{result['floor']['pixel_accuracy'] / 6:.3f}")
    for name in ("README.md", "docs/experiments.md", "docs/other-sets.md", "docs/your-own.md", "results/ablations.md"):
        page = REPOSITORY / name
        text, tables = page.read_text("utf-8"), r"<!-- (?:lesson|leave_out).*?<!-- end -->"
        there = known | numbers(" ".join(re.findall(tables, text, re.DOTALL)))  # what is written from results
        unknown = numbers(re.sub(rf"```text.*?```|{tables}", "", text, flags=re.DOTALL)) - there
        assert not unknown, f"{page.name}: no file in results/ holds {sorted(unknown)}"


def numbers(text: str, digits: int = 3) -> set[str]:
    """Return the numbers from 0 to 1 in `text` that have so many `digits` at least, rounded to three."""
    return {f"{float(number):.3f}" for number in re.findall(rf"(?<![\d.])0\.\d{{{digits},}}", text)}
