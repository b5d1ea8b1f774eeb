"""Original checkpoints of the refiner's parts, extracted from the golden published checkpoint."""

import pytest
import torch

from ..conftest import GOLDEN

SAM = GOLDEN / "sam"
RENAMED = (("temp_v", "gamma_v"), ("temp_l", "gamma_l"), ("backbone.swintransformer.", "backbone.0."))


@pytest.fixture(scope="module")
def published_weights(published):
    weights = {}
    for shard in sorted(published.glob("*.bin")):
        weights |= torch.load(shard, weights_only=True)
    return weights


@pytest.fixture(scope="module")
def originals(published, published_weights, tmp_path_factory):
    """Folder with `ram.pth`, `dino.pth` and `sam.pth` in the layouts of their own projects."""
    folder = tmp_path_factory.mktemp("originals")
    ram = {name.removeprefix("ram."): value for name, value in published_weights.items() if name.startswith("ram.")}
    torch.save({"model": ram, "epoch": 3}, folder / "ram.pth")
    dino = {}
    for name, value in published_weights.items():
        if name.startswith("grounding_dino."):
            name = name.removeprefix("grounding_dino.")
            for ours, original in RENAMED:
                name = name.replace(ours, original)
            dino["module." + name] = value
    dino["module.bert.embeddings.position_ids"] = torch.arange(512)[None]
    torch.save({"model": dino}, folder / "dino.pth")
    (folder / "sam.pth").write_bytes((SAM / "sam_vit_tiny.pth").read_bytes())
    return folder
