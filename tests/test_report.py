"""report.py on real small runs, and its page in a real browser."""

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import leave_out_pictures, make_few

import report
import train
from common.cli import cli
from common.run import Run

needs_browser = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")), reason="needs chromium and chromedriver"
)

FIRST = "train-shapes-image_size32-epochs2"  # a run's name


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with two seeds of an experiment."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_few(patch)
        leave_out_pictures(patch)
        for seed in (0, 1):
            train.main("shapes", image_size=32, epochs=2, run=Run(device="cpu", precision="fp32", seed=seed))
    return folder


@pytest.fixture
def runs(trained, few_shapes) -> None:
    """The records of `trained` in the current folder, links to its models, and a run of another --lr."""
    shutil.copytree(trained / "runs", "runs")
    for path in trained.glob("best_*.pt"):
        Path(path.name).symlink_to(path)
    copy_run(f"{FIRST}-lr0.0001")
    change(f"{FIRST}-lr0.0001", "config.json", experiment={"lr": 1e-4})


def copy_run(name: str) -> None:
    """Copy the first run's record and model."""
    shutil.copytree(f"runs/{FIRST}", f"runs/{name}")
    Path(f"best_{name}.pt").symlink_to(f"best_{FIRST}.pt")


def change(name: str, file: str, **changes: object) -> None:
    """Replace values in a file of the run's record; of values that are dicts, some of their items."""
    path = Path("runs", name, file)
    record = json.loads(path.read_text())
    for key, value in changes.items():
        record[key] = {**record[key], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(record))


def test_seeds_of_an_experiment_share_a_row_of_the_table(runs, capsys):
    capsys.readouterr()
    report.main(images=0, device="cpu")
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| train")]
    assert [row[0] for row in rows] == [f"| {FIRST}", f"| {FIRST}-lr0.0001"]
    scores = [
        json.loads(path.read_text())["scores"]["mIoU"] for path in sorted(Path("runs").glob("*epochs2*/test.json"))
    ]
    first, _, second = scores
    assert rows[0][1] == f"{(first + second) / 2:.3f} ± {abs(first - second) / 2**0.5:.3f} (2 seeds)"
    assert rows[0][8].removesuffix(" |") == train.__doc__.splitlines()[0]


def names_in_table(capsys) -> list[str]:
    """Return the names of the rows of the report's table."""
    capsys.readouterr()
    report.main(images=0, device="cpu")
    return [line.split(" | ")[0][2:] for line in capsys.readouterr().out.splitlines() if line.startswith("| train")]


@pytest.mark.parametrize("other", [{"experiment": {"augment": True}}, {"fingerprints": {"script": "another loss"}}])
def test_runs_that_differ_in_more_than_their_seed_have_a_row_each_whatever_their_names(runs, capsys, other):
    change(f"{FIRST}-s1", "config.json", **other)
    assert names_in_table(capsys) == [FIRST, f"{FIRST}-lr0.0001", f"{FIRST}-s1"]


def test_the_worst_and_the_best_image_of_each_model_are_shown_with_their_scores(runs):
    report.main(images=1, cases=1, device="cpu")
    page = Path("report.html").read_text()
    for path in Path("runs").glob("*epochs2*/test.json"):
        mious = json.loads(path.read_text())["image_miou"]
        shown = page.partition(f"Worst and best of {path.parent.name}<")[2].partition("<h3>")[0]
        captions = re.findall(r"<figcaption>(\w+): ([\d.]+)</figcaption>", shown)
        assert [mious[name] for name, _ in captions[:2]] == [min(mious.values()), max(mious.values())]
        assert [miou for _, miou in captions[:2]] == [f"{mious[name]:.2f}" for name, _ in captions[:2]]


def test_a_run_that_cannot_be_read_is_named_and_one_without_a_test_is_not_shown(runs, capsys):
    Path(f"runs/{FIRST}-lr0.0001/history.csv").unlink()
    Path(f"runs/{FIRST}-s1/test.json").unlink()
    assert names_in_table(capsys) == [FIRST]
    page = Path("report.html").read_text()
    assert f"Left out: runs/{FIRST}-lr0.0001 cannot be read (FileNotFoundError" in page and f"{FIRST}-s1" not in page


def test_a_model_that_is_damaged_or_of_other_test_images_than_the_data_now_has_is_not_shown(runs, capsys):
    change(f"{FIRST}-s1", "test.json", image_miou={"another": 0.5})
    Path(f"best_{FIRST}.pt").unlink()
    Path(f"best_{FIRST}.pt").write_text("no model")
    Path(f"best_{FIRST}-lr0.0001.pt").unlink()
    Path(f"best_{FIRST}-lr0.0001.pt").symlink_to(f"best_{FIRST}-s1.pt")
    report.main(images=1, cases=1, device="cpu")
    out, page = capsys.readouterr().out, Path("report.html").read_text()
    problem = f"by {FIRST}-s1: classes or test images of shapes are others now; train it again"
    assert f"no pictures {problem}\n" in out and f"No pictures {problem}<" in page
    assert f"No pictures by {FIRST}: best_{FIRST}.pt" in page
    assert re.findall("Worst and best of ([^<]+)<", page) == [f"{FIRST}-lr0.0001"]


def test_without_runs_or_models_a_sentence_says_so(trained, few_shapes):
    with pytest.raises(SystemExit, match="holds no finished run; train one, and start the report"):
        cli(report.main, [])
    assert not Path("report.html").exists()
    shutil.copytree(trained / "runs", "runs")
    report.main(device="cpu")
    assert "No pictures of shapes: none of its best_*.pt is here" in Path("report.html").read_text()


@needs_browser
def test_in_a_browser_the_table_sorts_the_slider_fades_and_nothing_is_wrong(runs):
    from selenium import webdriver
    from selenium.webdriver.common.by import By

    report.main(images=2, cases=1, device="cpu")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"):
        options.add_argument(f"--{flag}")
    options.add_argument("--disable-background-networking")  # a browser that calls home waits for an answer
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with webdriver.Chrome(options=options, service=service) as browser:
        browser.get(Path("report.html").absolute().as_uri())

        def names() -> list[str]:
            return [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, "#results td:first-child")]

        head = browser.find_element(By.CSS_SELECTOR, "#results th:nth-child(1)")
        head.click()
        assert names() == sorted(names()) and head.get_attribute("aria-sort") == "ascending"
        head.click()
        assert names() == sorted(names(), reverse=True) and head.get_attribute("aria-sort") == "descending"
        browser.find_element(By.CSS_SELECTOR, "#results th:nth-child(2)").click()
        cells = browser.find_elements(By.CSS_SELECTOR, "#results td:nth-child(2)")
        scores = [float(cell.get_attribute("data-value")) for cell in cells]
        assert scores == sorted(scores) and len(scores) == 2

        mask = browser.find_element(By.CSS_SELECTOR, "img.mask")
        assert mask.value_of_css_property("opacity") == "0.6"
        slider = browser.find_element(By.CSS_SELECTOR, "#slider input")
        browser.execute_script("arguments[0].value = 0.2; arguments[0].dispatchEvent(new Event('input'))", slider)
        assert mask.value_of_css_property("opacity") == "0.2"

        pictures = browser.find_elements(By.TAG_NAME, "img")
        assert len(pictures) == 2 * (2 * (1 + 3) + 3 * 2)  # each over a photograph: truth and models; best and worst
        assert all(browser.execute_script("return arguments[0].naturalWidth", picture) == 32 for picture in pictures)

        assert browser.get_log("browser") == []
