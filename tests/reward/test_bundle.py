"""A bundle is verified to the last byte, and what was trained is what runs."""

import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gripwire.errors import UserError
from gripwire_reward import bundle
from gripwire_reward.bundle import Bundle, Manifest
from gripwire_reward.scorer import Scorer
from tests.helpers import on_small_disk
from tests.reward import tiny

FILES = ("bundle.json", "model.onnx", "golden.npz", "report.html")


@pytest.fixture
def made(tmp_path: Path) -> Bundle:
    return tiny.make(tmp_path / "bundles")


def test_what_was_written_loads_and_has_its_hash_for_a_name(made: Bundle) -> None:
    loaded = bundle.load(made.path)
    assert loaded.id == made.path.name == bundle.identity((made.path / "bundle.json").read_bytes())
    assert set(loaded.manifest.files) == set(FILES) - {"bundle.json"}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_one_byte_changed_anywhere_is_refused_by_name(made: Bundle, name: str, place: float) -> None:
    data = bytearray((made.path / name).read_bytes())
    data[int(place * (len(data) - 1))] ^= 1
    (made.path / name).write_bytes(data)
    with pytest.raises(UserError, match=name):
        bundle.load(made.path)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_or_missing_file_is_refused_by_name(made: Bundle, name: str) -> None:
    file = made.path / name
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=name):
        bundle.load(made.path)
    file.unlink()
    with pytest.raises(UserError, match=name):
        bundle.load(made.path)


def test_a_file_that_was_added_is_refused(made: Bundle) -> None:
    (made.path / "weights.pkl").write_bytes(b"\x80\x04")
    with pytest.raises(UserError, match=r"weights\.pkl"):
        bundle.load(made.path)


def test_a_link_in_place_of_a_file_is_refused(made: Bundle, tmp_path: Path) -> None:
    shutil.copy(made.file("model.onnx"), tmp_path / "model.onnx")
    made.file("model.onnx").unlink()
    made.file("model.onnx").symlink_to(tmp_path / "model.onnx")
    with pytest.raises(UserError, match="not a plain file"):
        bundle.load(made.path)


def test_a_manifest_that_points_outside_its_folder_is_refused(made: Bundle) -> None:
    value = json.loads((made.path / "bundle.json").read_text())
    value["files"]["../evil"] = value["files"]["model.onnx"]
    data = json.dumps(value).encode()
    target = made.path.parent / bundle.identity(data)
    made.path.rename(target)
    (target / "bundle.json").write_bytes(data)
    with pytest.raises(UserError, match="not a plain file"):
        bundle.load(target)


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a bundle"):
        bundle.load(tmp_path)


def test_the_same_content_is_the_same_bundle(tmp_path: Path) -> None:
    first, second = tiny.make(tmp_path / "bundles"), tiny.make(tmp_path / "bundles")
    assert first.id == second.id
    assert len(list((tmp_path / "bundles").iterdir())) == 1


def _fat_bundle(bundles: Path) -> Bundle:
    """One of more than 64 KiB."""
    with bundle.staging(bundles) as aside:
        for name in ("model.onnx", "golden.npz"):
            (aside / name).write_bytes(np.random.default_rng(0).bytes(60_000))
        return bundle.seal(aside, Manifest(inputs=[tiny.CONTRACT]))


@pytest.mark.parametrize("folder", ["", "bundles"])
def test_a_full_disk_leaves_nothing_of_a_copied_bundle_and_says_so(tmp_path: Path, folder: str) -> None:
    source, disk = _fat_bundle(tmp_path / "elsewhere"), tmp_path / "small"
    flags = ["--data", str(disk), "--port-base", "15000"]
    swap = shlex.join([sys.executable, "-m", "gripwire", "reward", "swap", str(source.path), *flags])
    first = shlex.join(["mkdir", str(disk / folder)] if folder else ["true"])
    done = on_small_disk(disk, 65536, "sh", "-c", f"{first}; {swap}", look_at="bundles")
    assert done.returncode == 1
    assert "is full" in done.stderr and done.stderr.count("\n") == 1
    assert done.stdout == ""  # no file and no temporary folder


def test_a_file_size_limit_leaves_nothing_of_a_bundle_and_says_so(tmp_path: Path) -> None:
    source = _fat_bundle(tmp_path / "elsewhere")
    done = subprocess.run(
        [sys.executable, "-m", "gripwire", "reward", "swap", str(source.path), "--data", str(tmp_path)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000)),
    )
    assert done.returncode == 1
    assert "cannot be written" in done.stderr and done.stderr.count("\n") == 1
    assert list((tmp_path / "bundles").iterdir()) == []


def test_a_folder_that_cannot_hold_bundles_is_named(tmp_path: Path) -> None:
    (tmp_path / "bundles").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="bundles"), bundle.staging(tmp_path / "bundles"):
        pass


def test_what_a_killed_process_had_begun_is_removed_a_day_later_and_nothing_younger(tmp_path: Path) -> None:
    old, young = tmp_path / ".new-old", tmp_path / ".new-young"
    for folder in (old, young):
        folder.mkdir()
        (folder / "model.onnx").write_bytes(b"half")
    os.utime(old, (0, time.time() - 2 * 86400))
    with bundle.staging(tmp_path):
        pass
    assert not old.exists() and young.exists()


def test_a_short_id_finds_its_bundle_and_nothing_else_does(made: Bundle, tmp_path: Path) -> None:
    assert bundle.find(made.id[:8], tmp_path / "bundles") == made.path
    for other in ("../bundles/" + made.id, str(made.path), "*", "", "0" * 20):
        with pytest.raises(UserError, match="no bundle"):
            bundle.find(other, tmp_path / "bundles")


def test_golden_frames_that_score_otherwise_are_refused(tmp_path: Path) -> None:
    Scorer(bundle.load(tiny.make(tmp_path, golden_error=0.005).path))
    with pytest.raises(UserError, match="golden frame 0"):
        Scorer(bundle.load(tiny.make(tmp_path, golden_error=0.02).path))


def test_another_crop_than_the_trained_one_is_caught_by_the_golden_frames(tmp_path: Path) -> None:
    shifted = tiny.CONTRACT.model_copy(update={"scale": 1 / 128})
    with pytest.raises(UserError, match="what would run is not what was trained"):
        Scorer(bundle.load(tiny.make(tmp_path, contract=shifted).path))


def test_a_model_that_gives_nan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not finite"):
        Scorer(bundle.load(tiny.make(tmp_path, gain=float("nan")).path))


def test_a_model_for_another_input_size_is_refused(tmp_path: Path) -> None:
    wide = tiny.CONTRACT.model_copy(update={"size": (32, 32)})
    with pytest.raises(UserError, match="32"):
        Scorer(bundle.load(tiny.make(tmp_path, contract=wide).path))


@pytest.mark.parametrize(
    ("content", "why"), [(b"not a graph", "not an ONNX model"), (b"", "ONNX Runtime cannot read it")]
)
def test_a_file_that_is_no_graph_is_refused(tmp_path: Path, made: Bundle, content: bytes, why: str) -> None:
    with bundle.staging(tmp_path / "other") as aside:
        shutil.copy(made.file("golden.npz"), aside)
        (aside / "model.onnx").write_bytes(content)
        broken = bundle.seal(aside, made.manifest)
    with pytest.raises(UserError, match=why):
        Scorer(bundle.load(broken.path))


def test_pickled_golden_frames_are_never_unpickled(tmp_path: Path, made: Bundle) -> None:
    with bundle.staging(tmp_path / "other") as aside:
        shutil.copy(made.file("model.onnx"), aside)
        np.savez(aside / "golden.npz", frames=np.array([{}], object), logits=np.zeros(1, np.float32))
        pickled = bundle.seal(aside, made.manifest)
    with pytest.raises(UserError, match="golden"):
        Scorer(bundle.load(pickled.path))


def test_scores_are_calibrated_and_features_come_along(made: Bundle) -> None:
    scorer = Scorer(made)
    good, bad = scorer.frame(tiny.picture(True)), scorer.frame(tiny.picture(False))
    assert good.logit > 0 > bad.logit
    assert good.probability == pytest.approx(1 / (1 + np.exp(-good.logit / 2)))
    assert good.features.shape == (3,)


def test_a_batch_scores_as_its_frames_do(made: Bundle) -> None:
    from gripwire_reward.preprocess import preprocess

    scorer = Scorer(made)
    images = [tiny.picture(i % 3 == 0, i) for i in range(7)]
    logits, _ = scorer.batch(np.stack([preprocess(i, scorer.contract) for i in images]))
    assert np.allclose(logits, [scorer.frame(i).logit for i in images], atol=1e-5)
