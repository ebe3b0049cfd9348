"""The head's training, and the model that comes out of it."""

import numpy as np
import pytest
import torch

from gripwire_reward.scorer import session
from gripwire_trainer import backbone, model
from gripwire_trainer.train import EarlyStopping, Recipe, Rows, balance, logits, train_head


def _rows(count: int, seed: int, learnable: bool = True) -> Rows:
    torch.manual_seed(seed)
    success = (torch.arange(count) % 4 == 0).float()
    features = torch.randn(2, count, 8, 2, 2)
    if learnable:
        features[:, success > 0, 0] += 3
    return Rows(features.half(), success)


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
    select = _rows(40, 1, learnable=False)
    trained = train_head(
        _rows(40, 0, learnable=False), select, Recipe(epochs=60, patience=10, learning_rate=1e-2)
    )
    assert len(trained.curve) < 60
    losses = [epoch["validation_loss"] for epoch in trained.curve]
    assert losses[trained.best_epoch] == min(losses)
    best, last = (logits(h, select.features[0]) for h in (trained.best, trained.last))
    assert not np.allclose(best, last)


def test_the_same_seed_gives_the_same_weights() -> None:
    a, b = (train_head(_rows(40, 0), _rows(20, 1), Recipe(epochs=3, seed=5)).best for _ in range(2))
    assert all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_a_learnable_difference_is_learnt() -> None:
    held = _rows(80, 2)
    head = train_head(_rows(200, 0), _rows(80, 1), Recipe(epochs=30)).best
    assert np.mean((logits(head, held.features[0]) > 0) == (held.success.numpy() > 0)) > 0.97


def test_both_classes_weigh_the_same() -> None:
    success = torch.tensor([1.0] * 10 + [0.0] * 90)
    weight = balance(success)
    assert weight[:10].sum() == pytest.approx(float(weight[10:].sum()))
    assert float(weight.mean()) == pytest.approx(1)


def test_standardising_the_maps_equals_standardising_the_features() -> None:
    torch.manual_seed(0)
    head = model.Head(8, 4).eval()
    features = torch.randn(5, 8, 2, 2) * 3 + 1
    head.standardise(features)
    pooled = torch.einsum("ncp,kcp->nkc", (features.flatten(2) - head.mean) / head.std, head.maps)
    expected = head.judge(pooled.flatten(1)).squeeze(1)
    assert torch.allclose(head(features), expected, atol=1e-5)


def test_the_backbone_never_trains_even_when_told_to() -> None:
    frozen = backbone.Backbone((32, 32))
    before = {k: v.clone() for k, v in frozen.state_dict().items()}
    frozen.train()
    frozen(torch.randn(8, 3, 32, 32))
    assert all(torch.equal(before[k], v) for k, v in frozen.state_dict().items())
    assert not any(p.requires_grad for p in frozen.parameters())


def test_the_exported_graph_gives_what_torch_gives() -> None:
    torch.manual_seed(0)
    heads = [model.Head(backbone.CHANNELS, 16) for _ in range(2)]
    classifier = model.Classifier(backbone.Backbone((64, 64)), heads)
    engine = session(model.export_onnx(classifier, (64, 64), ["logit", "features"]), 1, "test")
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        logit, features = classifier(images)
    got = engine.run(["logit", "features"], {"image": images.numpy()})
    assert np.allclose(got[0], logit.numpy(), atol=1e-3)
    assert np.allclose(got[1], features.numpy(), atol=1e-3)
    assert got[1].shape == (3, backbone.CHANNELS)
