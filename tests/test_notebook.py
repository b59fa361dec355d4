import shutil
from pathlib import Path

import nbformat
import pytest
from conftest import REPOSITORY
from nbclient import NotebookClient

import train
from common import checkpoint
from common.datasets.shapes import draw_scene
from common.run import Run

NOTEBOOK = REPOSITORY / "SegmentationVisualization.ipynb"


def test_the_notebook_in_git_holds_no_outputs():
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        assert cell.cell_type != "code" or (not cell.outputs and cell.execution_count is None)


@pytest.mark.slow
def test_it_shows_every_model_on_test_images_and_on_photographs(few_shapes, monkeypatch):
    for seed in (0, 1):
        train.main("shapes", image_size=32, epochs=1, run=Run(device="cpu", seed=seed))
    draw_scene(5, side=90)[0].crop((0, 0, 90, 60)).convert("L").save("photo of mine.png")
    shutil.copy(NOTEBOOK, "notebook.ipynb")
    notebook = nbformat.read("notebook.ipynb", as_version=4)
    notebook.cells[1].source = notebook.cells[1].source.replace("IMAGES = []", 'IMAGES = ["photo of mine.png"]')
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    shutil.copy("best_train-shapes-image_size32-epochs1.pt", "best_other.pt")
    contents = checkpoint.load(Path("best_other.pt"))
    checkpoint.save(Path("best_other.pt"), contents | {"dataset": "voc2007"})  # which is not here
    checkpoint.save(Path("best_unknown.pt"), contents | {"model": "MyNet"})
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(Path.cwd())}}).execute()

    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [o.data["image/png"] for o in outputs if "data" in o and "image/png" in o.data]
    assert len(pictures) == 2
    text = "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stdout")
    assert "train-shapes-image_size32-epochs1 " in text and "train-shapes-image_size32-epochs1-s1" in text
    assert "no figure for voc2007: " in text and "skipped: best_unknown.pt holds MyNet" in text
    assert not [o.text for o in outputs if o.output_type == "stream" and o.name == "stderr"]
