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
    # By hand: 18 x the sum over the 3x3 layers of channels in x channels out x places of the smaller map, and a 1x1.
    assert "forward pass: 0.44 GFLOPs per image" in out
    megabytes = parameters * 4 / 2**20
    assert f"{megabytes:.0f} MiB weights, {megabytes:.0f} MiB gradients, {2 * megabytes:.0f} MiB optimizer" in out
    assert [path.name for path in Path("plots").iterdir()] == ["test_batch.png"]
    assert not Path("runs").exists()
    assert Path("best_test.pt").read_bytes() == b"of an earlier run"
