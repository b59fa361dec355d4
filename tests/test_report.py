"""tools/report.py on real small runs, and its page in a real browser."""

import csv
import html
import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import leave_out_pictures, make_few

import train
from common.cli import cli
from common.models import DilatedFCN
from common.reporting.page import Record, compared, labels
from common.run import Run
from tools import report

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
        patch.setattr(train, "BasicFCN", DilatedFCN)
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
    assert rows[0][1] == f"{(first + second) / 2:.3f} ± {abs(first - second) / 2**0.5:.3f}"


def test_settings_in_which_runs_differ_are_columns_and_the_others_are_said_once(runs, capsys):
    capsys.readouterr()
    report.main(images=0, device="cpu")
    table = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert table[0] == ["run", "mIoU", "pixel accuracy", "loss", "seed", "lr", "parameters", "time"]
    assert [row[4:6] for row in table[2:]] == [["0, 1", "0.001"], ["0", "0.0001"]]
    assert all(re.fullmatch(r"\d+ s", row[7]) for row in table[2:])  # no 0.0 minutes
    rows, shared = parts_of("</table>")[0], parts_of("Settings that all runs share")[1].partition("</dl>")[0]
    assert re.findall(r'title="(.+?)" .*?>(train.*?)</th>', rows) == [
        (FIRST, "train"),
        (f"{FIRST}-lr0.0001", "train, lr\u00a00.0001"),
    ]
    assert re.findall("<dt>batch size</dt><dd>(.*?)</dd>", shared) == ["16"] and "<dt>lr</dt>" not in shared


def test_the_test_with_augmentation_is_a_column(runs, capsys):
    changed = f"{FIRST}-lr0.0001"
    shutil.copy(f"runs/{changed}/test.json", f"runs/{changed}/test_tta.json")
    change(changed, "test_tta.json", scores={"mIoU": 0.4321})
    capsys.readouterr()
    report.main(images=0, device="cpu")
    table = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [row[2].strip() for row in (table[0], *table[2:])] == ["mIoU with TTA", "", "0.432"]
    assert ">mIoU with TTA</button>" in parts_of("</table>")[0] and ">0.432</td>" in parts_of("</table>")[0]


def test_what_differs_among_few_runs_is_no_column_and_what_a_script_has_alone_is_in_none():
    pets = {"script": "train_pets", "lr": "0.1", "encoder": "vgg16"}
    settings = [{"script": "train", "lr": rate} for rate in ("0.1", "0.2", "0.3")]
    settings += [pets | {"model": "unet"}, pets | {"model": "pspnet"}]
    shared, columns, others = compared([one | {"epochs": "9"} for one in settings], named=True)
    assert (shared, columns, others) == ({"epochs": "9"}, ["lr"], ["", "", "", "model unet", "model pspnet"])
    edited = [settings[0] | {"seed": seeds} for seeds in ("0", "0, 1")]
    assert compared(edited, named=True)[1] == ["seed", "version of the script"]


def parts_of(mark: str) -> list[str]:
    """Return what is before and behind the first `mark` in the page."""
    return Path("report.html").read_text().split(mark, 1)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train-voc2007-lr0.1-2"], ["train"]),
        (["train-lr1e-05-s2", "train-no_pretrained"], ["train, lr 1e-05, seed 2", "train, no pretrained"]),
        (["train_5_b-resnet18-epochs3", "train-image_size96-epochs3"], ["train_5_b, resnet18", "train, image size 96"]),
        (["my-own_idea", "train-lr0.1"], ["my-own_idea", "train"]),
    ],
)
def test_names_leave_out_what_all_runs_share_and_are_readable(names, expected):
    settings = {"script": "train", "lr": 0.1, "image_size": 96, "epochs": 3}
    assert labels([Record(name, settings, [], {}, [], {}) for name in names]) == expected


def test_runs_on_other_data_or_of_another_size_have_sections_and_tables_of_their_own(runs, capsys):
    change(f"{FIRST}-lr0.0001", "test.json", image_size=[48, 64])
    assert names_in_table(capsys) == [FIRST, f"{FIRST}-lr0.0001"]
    page = Path("report.html").read_text()
    assert re.findall("<h2>(.*?)</h2>", page)[:2] == [
        "shapes at 32x32, 7 test images",
        "shapes at 48x64, 7 test images",
    ]
    first, second = page.split("<section>")[1:]
    assert "lr 0.0001" not in first and "lr 0.0001" not in re.sub("<details>.*?</details>", "", second, flags=re.S)
    assert "Settings:" in second  # of the only run there


def test_folds_of_a_cross_validation_share_a_row_as_seeds_do(runs, capsys):
    change(FIRST, "config.json", experiment={"fold": "1/2"})
    change(f"{FIRST}-s1", "config.json", experiment={"fold": "2/2", "seed": 0})
    change(f"{FIRST}-s1", "test.json", floor={"mIoU": 0.5})
    floors = [json.loads(Path(f"runs/{name}/test.json").read_text())["floor"] for name in (FIRST, f"{FIRST}-s1")]
    Path(f"runs/{FIRST}").rename(f"runs/{FIRST}-fold1of2")
    capsys.readouterr()
    report.main(images=1, device="cpu")
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| train")]
    assert len(rows) == 2 and sum(" ± " in row and row.startswith(f"| {FIRST} |") for row in rows) == 1
    section = parts_of("<h2>shapes at 32x32, folds of 2</h2>")[1].partition("</section>")[0]
    assert f"mIoU {(floors[0]['mIoU'] + 0.5) / 2:.3f}" in section and "<dd>1/2, 2/2</dd>" in section
    assert "No pictures: each fold has its own test images" in section


def test_curves_of_several_seeds_are_a_band_and_those_of_one_are_a_line(runs):
    report.main(images=0, device="cpu")
    page = Path("report.html").read_text()
    drawn = re.findall("<figcaption>([^<]*)</figcaption><svg", page)
    labels = ["mIoU in validation", "Pixel accuracy in validation", "Loss in validation"]
    assert list(map(html.unescape, drawn)) == [*labels, "Learning rate at the epoch's start"]
    assert page.count('class="run0"') == 2 * 4 and page.count('class="run1"') == 4
    assert "the band shows the lowest and highest values" in page
    shutil.rmtree(f"runs/{FIRST}-s1")
    report.main(images=0, device="cpu")
    assert "the band around it" not in Path("report.html").read_text()


def test_each_run_shows_its_settings_the_scores_of_its_classes_and_what_it_confuses(runs):
    report.main(images=0, device="cpu")
    shown = next(part for part in parts_of("<details>")[1].split("<details>") if f"runs/{FIRST}/" in part)
    assert html.escape(train.__doc__.splitlines()[0]) in shown and "<dt>weight decay</dt><dd>0.0001</dd>" in shown
    with open(f"runs/{FIRST}/classes.csv", newline="") as file:
        for row in csv.DictReader(file):
            cells = re.search(f'<th scope=row data-value="{row["class"]}">.*?</tr>', shown)[0]
            texts = re.findall(r"<td.*?>(.*?)</td>", cells)
            scores = [row[key] for key in ("IoU", "precision", "recall", "Dice")]
            assert texts[:4] == [score and f"{float(score):.3f}" for score in scores]
            assert texts[4:] == [f"{float(row['share of pixels']):.2%}", row["images"]]
    test = json.loads(Path(f"runs/{FIRST}/test.json").read_text())
    names, counts = list(test["iou"]), test["confusion"]
    wrong = sorted((n for t, row in enumerate(counts) for p, n in enumerate(row) if n and t != p), reverse=True)
    listed = re.findall(
        r"<li>(\w+) predicted as (\w+): (<?\d+)% of its pixels \(([\d,]+)\)</li>", shown.replace("&lt;", "<")
    )
    assert [int(pixels.replace(",", "")) for *_, pixels in listed] == wrong[:10]
    for target, predicted, share, pixels in listed:
        row = counts[names.index(target)]
        assert row[names.index(predicted)] == int(pixels.replace(",", ""))
        assert share == f"{100 * row[names.index(predicted)] / sum(row):.0f}" or share == "<1"


def test_the_hardest_images_are_those_of_the_lowest_mean_over_the_runs(runs):
    mious = {f"test_000{i}": 0.5 for i in range(7)}
    change(FIRST, "test.json", image_miou={**mious, "test_0003": 0.0, "test_0005": 0.1})
    change(f"{FIRST}-s1", "test.json", image_miou={**mious, "test_0005": 0.2, "test_0001": None})  # all void
    change(f"{FIRST}-lr0.0001", "test.json", image_miou=mious)
    report.main(images=1, cases=1, device="cpu")
    hardest = parts_of("<h3>Hardest images and random images</h3>")[1]
    listed = re.findall(r"<dt>(\w+)</dt><dd>([\d.]+)</dd>", hardest)
    assert listed[:2] == [("test_0005", "0.27"), ("test_0003", "0.33")] and len(listed) == 7
    assert "test_0005, mIoU 0.27 on average<" in hardest


def test_a_published_score_is_beside_ours_where_it_is_defined_alike(runs):
    change(FIRST, "config.json", experiment={"script": "train_drinks", "dataset": "drinks"})
    Path(f"runs/{FIRST}/train.py").rename(f"runs/{FIRST}/train_drinks.py")
    change(f"{FIRST}-s1", "config.json", experiment={"script": "train", "dataset": "voc2007"})  # of another definition
    change(FIRST, "test.json", scores={"per-image mIoU over classes present": 0.81234})
    report.main(images=0, device="cpu")
    published = re.findall("Published: (.*?)</p>", Path("report.html").read_text())
    assert published == [f"per-image mIoU over classes present 0.761 (1051 images at 480x640); {FIRST} here: 0.812."]


def test_names_that_hold_marks_of_html_are_shown_as_they_are(runs):
    test = json.loads(Path(f"runs/{FIRST}/test.json").read_text())
    bad = "<script>alert(1)</script>"
    test["iou"] = {f"{bad}{i}": iou for i, iou in enumerate(test["iou"].values())}
    change(FIRST, "test.json", dataset=bad)
    Path(f"runs/{FIRST}/test.json").write_text(json.dumps({**test, "dataset": bad}))
    Path("runs", FIRST).rename(f"runs/train-{bad.replace('/', '')}")
    report.main(images=0, device="cpu")
    page = Path("report.html").read_text()
    assert "alert(1)" in page and "<script>alert" not in page


def names_in_table(capsys) -> list[str]:
    """Return the names of the rows of the report's table."""
    capsys.readouterr()
    report.main(images=0, device="cpu")
    return [line.split(" | ")[0][2:] for line in capsys.readouterr().out.splitlines() if line.startswith("| train")]


@pytest.mark.parametrize("edited", [False, True])
def test_runs_that_differ_in_more_than_their_seed_have_a_row_each_whatever_their_names(runs, capsys, edited):
    if edited:
        Path(f"runs/{FIRST}-s1/train.py").write_text("another loss")
    else:
        change(f"{FIRST}-s1", "config.json", experiment={"augment": True})
    assert names_in_table(capsys) == [FIRST, f"{FIRST}-lr0.0001", f"{FIRST}-s1"]


def test_the_worst_and_the_best_image_of_each_model_are_shown_with_their_scores(runs):
    report.main(images=1, cases=1, device="cpu")
    page = Path("report.html").read_text()
    for path in Path("runs").glob("*epochs2*/test.json"):
        mious = json.loads(path.read_text())["image_miou"]
        shown = page.partition(f"runs/{path.parent.name}/")[2].partition("Hardest and easiest images of this run")[2]
        shown = shown.partition("</details>")[0].replace("<wbr>", "").replace("\u00a0", " ")
        captions = re.findall(r"<figcaption>(\w+): ([\d.]+)</figcaption>", shown)
        assert [mious[name] for name, _ in captions[:2]] == [min(mious.values()), max(mious.values())]
        assert [miou for _, miou in captions[:2]] == [f"{mious[name]:.2f}" for name, _ in captions[:2]]


def test_a_run_that_cannot_be_read_is_named_and_one_without_a_test_is_not_shown(runs, capsys):
    Path(f"runs/{FIRST}-lr0.0001/history.csv").unlink()
    Path(f"runs/{FIRST}-s1/test.json").unlink()
    assert names_in_table(capsys) == [FIRST]
    page = Path("report.html").read_text()
    assert f"Skipped: runs/{FIRST}-lr0.0001 cannot be read (FileNotFoundError" in page and f"{FIRST}-s1" not in page


def test_a_model_that_is_damaged_or_of_other_test_images_than_the_data_now_has_is_not_shown(runs, capsys):
    change(f"{FIRST}-s1", "test.json", image_miou={"another": 0.5})
    Path(f"best_{FIRST}.pt").unlink()
    Path(f"best_{FIRST}.pt").write_text("no model")
    Path(f"best_{FIRST}-lr0.0001.pt").unlink()
    Path(f"best_{FIRST}-lr0.0001.pt").symlink_to(f"best_{FIRST}-s1.pt")
    report.main(images=1, cases=1, device="cpu")
    out, page = capsys.readouterr().out, Path("report.html").read_text()
    problem = f"classes or test images of shapes changed since {FIRST}-s1; train it again"
    assert f"no pictures: {problem}\n" in out and f"No pictures: {problem}<" in page
    assert f"No pictures: best_{FIRST}.pt" in page
    shown = [part for part in page.split("<details>") if "Hardest and easiest images of this run" in part]
    assert len(shown) == 1 and f"runs/{FIRST}-lr0.0001/" in shown[0]


def test_without_runs_or_models_a_sentence_says_so(trained, few_shapes):
    with pytest.raises(SystemExit, match="holds no finished run; train one, then start the report"):
        cli(report.main, [])
    assert not Path("report.html").exists()
    shutil.copytree(trained / "runs", "runs")
    report.main(device="cpu")
    assert "No pictures: there is no best_*.pt for shapes here" in Path("report.html").read_text()


@pytest.fixture(scope="module")
def browser():
    """Chromium, without a window."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"):
        options.add_argument(f"--{flag}")
    options.add_argument("--disable-background-networking")  # a browser that calls home waits for an answer
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with webdriver.Chrome(options=options, service=service) as browser:
        yield browser


@needs_browser
def test_in_a_browser_the_page_can_be_used_and_nothing_is_wrong(runs, browser):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    report.main(images=2, cases=1, device="cpu")
    run, all_of = browser.execute_script, lambda css: browser.find_elements(By.CSS_SELECTOR, css)
    for width, scheme in ((390, "dark"), (1300, "light")):
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.get(Path("report.html").absolute().as_uri())
        assert run("return document.documentElement.scrollWidth") <= width  # the page itself is not wider
        colors = {"dark": "rgba(22, 24, 27, 1)", "light": "rgba(255, 255, 255, 1)"}
        assert all_of("body")[0].value_of_css_property("background-color") == colors[scheme]
    assert not run("return [...document.querySelectorAll('.wide')].filter(e => e.scrollWidth > e.clientWidth).length")

    def names() -> list[str]:
        return [cell.text for cell in all_of(".results tbody th")]

    first, second, *_ = all_of(".results thead th")
    first.click()
    assert names() == ["train", "train, lr 0.0001"] and first.get_attribute("aria-sort") == "ascending"
    first.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert names() == ["train, lr 0.0001", "train"] and first.get_attribute("aria-sort") == "descending"
    second.click()
    scores = [float(cell.get_attribute("data-value")) for cell in all_of(".results tbody td:nth-child(2)")]
    assert scores == sorted(scores) and len(scores) == 2

    lines = [all_of(f".curves .run{number}")[0] for number in (0, 1)]
    all_of(".key button")[1].click()
    assert [line.value_of_css_property("opacity") for line in lines] == ["0.08", "1"]
    all_of(".key button")[1].click()
    assert [line.value_of_css_property("opacity") for line in lines] == ["1", "1"]

    matrix = all_of("details table.heat")[0]
    assert not matrix.is_displayed()
    all_of("summary")[0].send_keys(Keys.ENTER)
    assert matrix.is_displayed() and all_of("details table.classes")[0].is_displayed()

    mask = all_of("section > .pictures img.mask")[0]
    assert mask.value_of_css_property("opacity") == "0.6"
    slider = all_of("#slider input")[0]
    run("arguments[0].value = 0.2; arguments[0].dispatchEvent(new Event('input'))", slider)
    assert mask.value_of_css_property("opacity") == "0.2"

    pictures = all_of("img")
    shown = len(all_of("section > .pictures"))  # two at random, and the hardest, which may be one of them
    assert shown in (2, 3) and len(pictures) == 2 * (shown * (1 + 3) + 3 * 2)  # truth and models; hardest and easiest
    assert all(run("return arguments[0].naturalWidth", picture) == 32 for picture in pictures)

    assert not run("return performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length")
    assert browser.get_log("browser") == []
