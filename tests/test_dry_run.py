import re
from pathlib import Path

import pytest

import train
from common.models import BasicFCN, count_parameters
from common.run import Run


def test_a_dry_run_shows_data_model_cost_and_a_batch_and_leaves_nothing_else(few_shapes, capsys):
    Path("best_test.pt").write_bytes(b"of an earlier run")
    with pytest.raises(SystemExit) as end:
        train.main("shapes", image_size=96, batch_size=4, run=Run(name="test", device="cpu", dry_run=True))
    assert not end.value.code
    out, parameters = capsys.readouterr().out, count_parameters(BasicFCN(6))
    assert f"model: {parameters / 1e6:.2f} M parameters" in out
    assert re.search(r"background [67]\d\.\d%, ", out)
    forward, backward = map(float, re.search(r"GFLOPs an image: ([\d.]+) forward, ([\d.]+) backward", out).groups())
    assert 1.8 < backward / forward <= 2.1  # the gradients of the input and of the weights
    megabytes = parameters * 4 / 2**20
    assert f"{megabytes:.0f} MiB weights, {megabytes:.0f} MiB gradients, {2 * megabytes:.0f} MiB optimizer" in out
    assert [path.name for path in Path("plots").iterdir()] == ["test_batch.png"]
    assert not Path("runs/test/config.json").exists() and not Path("last_test.pt").exists()
    assert Path("best_test.pt").read_bytes() == b"of an earlier run"
