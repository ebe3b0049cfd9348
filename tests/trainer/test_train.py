"""The head's training, and the model that comes out of it."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gripwire_reward.scorer import session
from gripwire_trainer import drift, model
from gripwire_trainer.backbone import EfficientNetLite0, Pictures
from gripwire_trainer.checkpoint import Run
from gripwire_trainer.model import Head, HeadShape
from gripwire_trainer.scratch import SmallNet
from gripwire_trainer.train import (
    EarlyStopping,
    Frames,
    Recipe,
    Trained,
    Training,
    balance,
    logits,
    train_head,
)
from gripwire_trainer.views import InMemory, OnDisk, Views
from tests.helpers import on_small_disk

SHAPE = HeadShape(embeddings=4, latent=16, hidden=16)
TRAIN, SELECT, HELD = torch.arange(0, 200), torch.arange(200, 280), torch.arange(280, 360)


def _frames(learnable: bool = True) -> Frames:
    """360 frames in two views of eight components at four places; a quarter are success."""
    torch.manual_seed(0)
    success = (torch.arange(360) % 4 == 0).float()
    views = torch.randn(360, 2, 8, 4)
    if learnable:
        views[success > 0, :, 0] += 3
    kept = InMemory(360, 2, views[:, 0].half())
    for view in range(2):
        kept.put(0, view, views[:, view].half())
    return Frames(kept, success)


def _head(seed: int = 0) -> Head:
    torch.manual_seed(seed)
    return Head(model.Basis(torch.zeros(8), torch.eye(8)), 4, SHAPE)


def _train(frames: Frames, recipe: Recipe, told: Callable[[Training], None] = lambda _: None) -> Trained:
    return train_head(Training(_head(recipe.seed), frames, TRAIN, SELECT, recipe), told)


def test_training_stops_after_ten_epochs_without_a_better_validation_loss() -> None:
    stopping = EarlyStopping(patience=10)
    losses = [1.0, 0.8, 0.6] + [0.7] * 30
    seen = 0
    for loss in losses:
        stopping.improved(loss)
        seen += 1
        if stopping.stop:
            break
    assert seen == 3 + 10 and stopping.best == 0.6


def test_a_gain_too_small_to_matter_is_kept_but_earns_no_patience() -> None:
    stopping = EarlyStopping(patience=3, least_gain=0.01)
    assert stopping.improved(0.5)
    assert [stopping.improved(0.5 - 0.001 * i) for i in (1, 2, 3)] == [True] * 3
    assert stopping.stop


def test_on_noise_it_stops_early_and_keeps_the_best_not_the_last() -> None:
    frames = _frames(learnable=False)
    trained = _train(frames, Recipe(epochs=60, patience=10, learning_rate=1e-2))
    assert len(trained.curve) < 60
    losses = [epoch["validation_loss"] for epoch in trained.curve]
    assert losses[trained.best_epoch] == min(losses)
    best = logits(trained.best, frames, SELECT)
    trained.best.load_state_dict(trained.last)
    assert not np.allclose(best, logits(trained.best, frames, SELECT))


def test_the_same_seed_gives_the_same_weights_whatever_trains_beside_it() -> None:
    alone = _train(_frames(), Recipe(epochs=3, seed=5)).last

    def disturb(training: Training) -> None:
        torch.rand(100)

    beside = _train(_frames(), Recipe(epochs=3, seed=5), disturb).last
    assert all(torch.equal(alone[name], beside[name]) for name in alone)


def test_a_learnable_difference_is_learnt() -> None:
    frames = _frames()
    head = _train(frames, Recipe(epochs=100, patience=100)).best
    assert np.mean((logits(head, frames, HELD) > 0) == (frames.success[HELD].numpy() > 0)) > 0.97


def test_an_interrupted_training_goes_on_to_the_very_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gripwire_trainer.checkpoint._EVERY_S", 0)
    recipe = Recipe(epochs=8, patience=8, seed=3)
    whole = _train(_frames(), recipe)

    def interrupt(training: Training) -> None:
        if training.epoch == 4:
            raise KeyboardInterrupt

    run = Run(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train_head(Training(_head(3), _frames(), TRAIN, SELECT, recipe), interrupt, run.fold(0))
    epochs: list[int] = []
    resumed = train_head(
        Training(_head(99), _frames(), TRAIN, SELECT, recipe), lambda t: epochs.append(t.epoch), run.fold(0)
    )
    assert epochs == [5, 6, 7, 8]
    assert resumed.curve == whole.curve and resumed.best_epoch == whole.best_epoch
    assert all(torch.equal(whole.last[name], resumed.last[name]) for name in whole.last)
    for name, values in whole.best.state_dict().items():
        assert torch.equal(values, resumed.best.state_dict()[name])


def test_a_state_that_cannot_be_read_costs_the_work_not_the_job(tmp_path: Path) -> None:
    kept = Run(tmp_path).fold(0)
    (tmp_path / "head-0.safetensors").write_bytes(b"half a file")
    assert kept.load() is None


def test_both_classes_weigh_the_same() -> None:
    success = torch.tensor([1.0] * 10 + [0.0] * 90)
    weight = balance(success)
    assert weight[:10].sum() == pytest.approx(float(weight[10:].sum()))
    assert float(weight.mean()) == pytest.approx(1)


def test_a_head_judges_projected_features_as_it_judges_the_backbones_own() -> None:
    torch.manual_seed(0)
    features = torch.randn(50, 12, 3, 3) * torch.arange(1, 13)[:, None, None] + 1
    basis = model.principal([features], components=6)
    head = Head(basis, 9, SHAPE).eval()
    with torch.no_grad():
        assert torch.allclose(head(features), head.learn(basis.project(features)), atol=2e-2)


def test_the_principal_directions_are_the_strongest_ones() -> None:
    torch.manual_seed(0)
    features = torch.randn(400, 4, 2, 2) * torch.tensor([1.0, 9.0, 0.1, 5.0])[:, None, None]
    columns = model.principal([features], components=2).columns
    assert columns.abs().argmax(0).tolist() == [1, 3]


@pytest.mark.parametrize("backbone", [EfficientNetLite0((32, 32)), Pictures()])
def test_a_backbone_never_trains_even_when_told_to(backbone: torch.nn.Module) -> None:
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    backbone.train()
    backbone(torch.randn(8, 3, 32, 32))
    assert all(torch.equal(before[k], v) for k, v in backbone.state_dict().items())
    assert not any(p.requires_grad for p in backbone.parameters())


def _head_of(backbone: torch.nn.Module, features: Tensor) -> model.Learner:
    if isinstance(backbone, Pictures):
        return SmallNet((64, 64), SHAPE)
    return Head(model.principal([features]), features[0, 0].numel(), SHAPE)


@pytest.mark.parametrize("backbone", [EfficientNetLite0((64, 64)), Pictures()])
def test_the_exported_graph_gives_what_torch_gives(backbone: torch.nn.Module) -> None:
    torch.manual_seed(0)
    images = torch.rand(6, 3, 64, 64)
    features = backbone(images)
    far = drift.fit(drift.pool(features))
    heads = [_head_of(backbone, features) for _ in range(2)]
    classifier = model.Classifier(backbone, heads, far)
    engine = session(model.export_onnx(classifier, (64, 64), ["logit", "features"]), 1, "test")
    with torch.no_grad():
        logit, whitened = classifier(images)
    got = engine.run(["logit", "features"], {"image": images.numpy()})
    assert np.allclose(got[0], logit.numpy(), atol=1e-3)
    assert np.allclose(got[1], whitened.numpy(), atol=1e-2)


def test_drift_is_near_one_for_the_training_frames_and_large_far_from_them() -> None:
    torch.manual_seed(0)
    pooled = torch.randn(500, 20) @ torch.randn(20, 20)
    far = drift.fit(pooled)
    own = far.whiten(pooled).square().mean(1).sqrt()
    assert float(own.median()) == pytest.approx(1, abs=0.15)
    strange = far.whiten(pooled + 8 * pooled.std(0)).square().mean(1).sqrt()
    assert float(strange.min()) > float(own.max())


def test_views_come_back_from_memory_and_from_the_disk_alike(tmp_path: Path) -> None:
    shown = torch.randint(0, 256, (7, 3, 2, 4, 5), dtype=torch.uint8)  # frames, views, and a picture's shape

    def taken(views: Views) -> torch.Tensor:
        for view in range(3):
            views.put(0, view, shown[:4, view])
            views.put(4, view, shown[4:, view])
        return views.take(torch.tensor([6, 0, 3, 3]), torch.tensor([2, 0, 1, 2]))

    due = shown[[6, 0, 3, 3], [2, 0, 1, 2]]
    assert torch.equal(taken(InMemory(7, 3, shown[:, 0])), due)
    assert torch.equal(taken(OnDisk(3, shown[:, 0], tmp_path / "cache")), due)
    assert list((tmp_path / "cache").iterdir()) == []  # nothing is left, whatever becomes of the process


def test_views_without_room_on_the_disk_are_an_error_that_says_so(tmp_path: Path) -> None:
    script = (
        "import sys, torch; from pathlib import Path; from gripwire_trainer.views import OnDisk\n"
        "pictures = torch.zeros(9, 3, 64, 64)\n"
        "OnDisk(1, pictures, Path(sys.argv[1]) / 'cache').put(0, 0, pictures)"
    )
    done = on_small_disk(disk := tmp_path / "disk", 65536, sys.executable, "-c", script, str(disk))
    assert done.returncode == 1 and f"the disk that holds {disk / 'cache'} is full" in done.stderr
