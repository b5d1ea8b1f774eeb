"""Muon, alone and together with AdamW."""

from copy import deepcopy

import pytest
import torch

from lyrics.recipes.micro.common.muon import Muon, MuonWithAdamW
from lyrics.recipes.micro.common.step_trainer import StepArguments, train_step


@pytest.mark.parametrize("rate", [0.004, 0.02])
def test_muon_trains_matrices_at_the_rate_of_the_recipe(tmp_path, rate):
    class Part(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix, self.table = torch.nn.Linear(6, 6, bias=False), torch.nn.Parameter(torch.zeros(6))
            self.before = self.matrix.weight.detach().clone()

        def forward(self, inputs, count):
            return (self.matrix(inputs).sum(-1) + inputs @ self.table - count).square().mean()

    settings = {"max_steps": 1, "learning_rate": 0.05, "matrix_learning_rate": rate, "use_cpu": True, "scenes": 8}
    part = train_step(
        Part,
        StepArguments(str(tmp_path), report_to="none", eval_scenes=8, **settings),
        lambda scene, random: {"inputs": random.normal(size=6).astype("f"), "count": float(len(scene.objects))},
        loss=lambda model, batch: model(batch["inputs"], batch["count"].float()),
    )
    moved = torch.linalg.svdvals(part.matrix.weight.detach() - part.before)
    assert moved[0] == pytest.approx(rate, rel=0.4)  # AdamW would change each weight by 0.05
    torch.testing.assert_close(part.table.detach().abs(), torch.full((6,), 0.05), rtol=1e-3, atol=0)


def test_muon_updates_weights_like_torch():
    """Up to rounding: `torch.optim.Muon` computes its updates in bfloat16."""
    ours, theirs = (torch.nn.Linear(24, 40, bias=False) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    optimizers = Muon([ours.weight], lr=0.02, weight_decay=0.9), torch.optim.Muon([theirs.weight], 0.02, 0.9)
    for step in range(5):
        gradient = torch.randn(40, 24, generator=torch.Generator().manual_seed(step))
        for layer, optimizer in zip((ours, theirs), optimizers, strict=True):
            layer.weight.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=0, atol=2e-3)


def test_a_part_can_have_another_learning_rate():
    model = torch.nn.ModuleDict({"mqformer": torch.nn.Linear(4, 4), "mqformers": torch.nn.Linear(4, 4)})
    optimizer = MuonWithAdamW(model, 1e-2, 0.02, rates_of={"mqformer": 0.005})
    before = {name: part.weight.detach().clone() for name, part in model.items()}
    sum(part(torch.eye(4)).pow(3).sum() for part in model.values()).backward()
    optimizer.step()
    moved = {name: torch.linalg.matrix_norm(part.weight.detach() - before[name]) for name, part in model.items()}
    assert 3 < moved["mqformers"] / moved["mqformer"] < 5


def test_resumed_muon_gives_the_same_weights():
    """Its updates of matrices are nearly orthogonal, and a learning rate scheduler reaches all groups."""

    def make():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Embedding(7, 8), torch.nn.Linear(8, 6), torch.nn.LayerNorm(6))
        return model, MuonWithAdamW(model, 1e-2, 0.02)

    def step(model, optimizer, seed):
        tokens = torch.randint(7, (5,), generator=torch.Generator().manual_seed(seed))
        model(tokens).pow(3).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    (model, optimizer), (other, resumed) = make(), make()
    before = model[1].weight.detach().clone()
    step(model, optimizer, 0)
    singular = torch.linalg.svdvals(model[1].weight.detach() - before)
    assert singular[3] > singular[0] / 2  # all directions learn about equally fast
    other.load_state_dict(model.state_dict())
    resumed.load_state_dict(deepcopy(optimizer.state_dict()))
    for one in (optimizer, resumed):
        torch.optim.lr_scheduler.LambdaLR(one, lambda _: 0.5)
        assert len({group["lr"] / group["initial_lr"] for group in one.param_groups}) == 1
    step(model, optimizer, 1)
    step(other, resumed, 1)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)
