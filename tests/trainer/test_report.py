"""The report: a page that stands alone and says what it should, and a picture of the same."""

import base64
import html
import re
from collections.abc import Sequence
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from gripwire_reward.bundle import Manifest, Metric, TrainedOn
from gripwire_reward.calibration import Calibration
from gripwire_trainer import report
from gripwire_trainer.figures import Judged, all_figures
from gripwire_trainer.report import curves, episode_table, figure_table
from gripwire_trainer.report.album import LISTED, SHOWN, WORST, worst_frames
from tests.trainer.judging import RULE, judged, well

HOSTILE = "<script>alert('x')</script>\"&/$\\frac{1}$ \N{SNOWMAN}/0"
GRASP = [0] * 12 + [1] * 28
FAILED = [0] * 40
SECTIONS = ("figures", "charts", "doubtful", "worst", "episodes", "timelines", "origin")


def _episodes() -> list[Judged]:
    """A planted wrong label (12 to 17 of set/lied), stray positives, one episode of a hostile name."""
    lied = judged("set/lied", [0] * 18 + [1] * 22, [0.01] * 12 + [0.99] * 28)
    blind = judged("set/blind", GRASP, [0.02] * 10 + [0.98] * 30, uncertain=[10, 11], invalid=range(20, 25))
    return [
        well("set/0", GRASP),
        well(HOSTILE, FAILED, mistakes=[7]),
        lied,
        blind,
        well("set/fooled", FAILED, mistakes=[20, 21, 22, 23]),
        well("set/still", FAILED),
    ]


def _manifest(episodes: Sequence[Judged], name: str = "lamp & <b>cube") -> Manifest:
    contract = {
        "key": "observation.images.gripper_cam",
        "frame": (48, 64),
        "crop": {"top": 0, "left": 8, "height": 48, "width": 48},
        "size": (24, 24),
    }
    manifest = Manifest.model_validate({"inputs": [contract]})
    split = {"report 0": ["set/0", "set/lied"], "report 1": ["set/blind"]}
    return manifest.model_copy(
        update={
            "name": name,
            "created": "2026-01-02T03:04:05+00:00",
            "calibration": Calibration(temperature=1.25),
            "decision": RULE,
            "metrics": all_figures(episodes, curves.raw),
            "note": "Each figure is of <two> heads.",
            "trained_on": TrainedOn(datasets={"set": "ab" * 32}, labels={"set.json": "cd" * 32}, split=split),
        }
    )


def _pictures(name: str) -> NDArray[np.uint8]:
    """Grey pictures as bright as their number in the episode."""
    return np.broadcast_to(np.arange(40, dtype=np.uint8)[:, None, None, None] * 6, (40, 24, 24, 3)).copy()


class _Page(HTMLParser):
    """What is on a page; fails where elements are not closed in the order in which they were opened."""

    OPTIONAL = frozenset({"meta", "br", "img", "li", "tr", "td", "th", "dt", "dd", "thead", "tbody", "body"})
    DRAWN = frozenset({"rect", "path", "circle", "polyline", "text", "title"})

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.sections: dict[str, str] = {}
        self._open: list[str] = []
        self._section = ""
        self.feed(page.decode())
        self.close()
        assert self._open == [], f"left open: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "section":
            self._section = dict(attrs)["id"] or ""
        if tag not in self.OPTIONAL:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in self.DRAWN, f"<{tag}/> is not closed in HTML"
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.OPTIONAL:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        self.sections[self._section] = self.sections.get(self._section, "") + data

    def values(self, attribute: str) -> list[str]:
        return [value for name, value in self.attributes if name == attribute]


@pytest.fixture(scope="module")
def page() -> bytes:
    episodes = _episodes()
    return report.render(_manifest(episodes), episodes, _pictures)


@pytest.fixture(scope="module")
def parsed(page: bytes) -> _Page:
    return _Page(page)


def test_the_page_is_whole_and_has_every_section(parsed: _Page) -> None:
    assert [name for name in parsed.values("id") if name in SECTIONS] == list(SECTIONS)
    assert parsed.tags.count("polyline") == 1 + len(_episodes())
    assert all(len(parsed.sections[name]) > 40 for name in SECTIONS)


def test_every_link_leads_to_a_place_on_the_page_and_no_id_is_there_twice(parsed: _Page) -> None:
    ids, links = parsed.values("id"), parsed.values("href")
    assert links and {link.removeprefix("#") for link in links} <= set(ids)
    assert len(set(ids)) == len(ids)


def test_the_page_fetches_nothing_and_runs_nothing(page: bytes, parsed: _Page) -> None:
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(parsed.tags)
    assert all(source.startswith("data:image/jpeg;base64,") for source in parsed.values("src"))
    assert set(re.findall(rb"url\(([^)]*)\)", page)) == {b"#hatch"}
    assert b"@import" not in page and b"//" not in re.sub(rb"base64,[^\"]*", b"", page)
    assert not [name for name, _ in parsed.attributes if name.startswith("on")]


def test_names_are_shown_as_they_are_and_never_taken_for_markup(page: bytes, parsed: _Page) -> None:
    for e in _episodes():
        assert e.name in parsed.sections["episodes"] and e.name in parsed.sections["timelines"]
    assert HOSTILE in parsed.sections["worst"]
    assert b"<script" not in page
    assert "lamp & <b>cube" in parsed.text and "Each figure is of <two> heads." in parsed.text


def test_every_figure_stands_beside_its_interval_and_always_fail(parsed: _Page) -> None:
    manifest, text = _manifest(_episodes()), parsed.sections["figures"]
    for name, metric in manifest.metrics.items():
        if name != "always_fail_accuracy":
            value, spread = figure_table.written(name, metric)
            assert f"{figure_table.ROWS[name].name}{value}{spread}{metric.episodes}" in text
    accuracy, failing = (manifest.metrics[name] for name in ("frame_accuracy", "always_fail_accuracy"))
    assert figure_table.percent(failing.value) in text.split(figure_table.percent(accuracy.value))[1][:80]


def test_what_was_left_open_by_the_labels_is_said(parsed: _Page) -> None:
    assert "240 frames, 2 of them left out" in parsed.text
    assert "An onset up to 2 frames before the labelled one counts as on time" in parsed.text
    sure = [well("a", GRASP), well("b", FAILED)]
    other = _Page(report.render(_manifest(sure), sure, _pictures))
    assert "left out" not in other.text and "on time" not in other.text


def test_the_confusion_matrices_hold_the_counts(parsed: _Page) -> None:
    matrix = episode_table.matrix(episode_table.Confusion(7, 3, 1, 9), "Frames", "said")
    cells = re.findall(r"<td( class=bad)?><b>(\d+)", matrix)
    assert cells == [("", "7"), (" class=bad", "1"), (" class=bad", "3"), ("", "9")]
    assert "87.50" in matrix and "75.00" in matrix
    assert "Episodes" in parsed.sections["charts"] and "decided success" in parsed.sections["charts"]


def _jpegs(part: str) -> list[float]:
    """Mean brightness of each picture."""
    out = []
    for code in re.findall(r'src="data:image/jpeg;base64,([^"]+)"', part):
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(code), np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None and picture.shape == (24, 24, 3)
        out.append(float(picture.mean()))
    return out


def test_the_planted_wrong_label_comes_first_with_the_frames_at_its_borders(page: bytes) -> None:
    doubtful = page.decode().split('<section id="doubtful">')[1].split("</section>")[0]
    first = doubtful.split('<div class="doubt">')[1]
    assert "1. Frames 12 to 17" in first and ">set/lied</a>" in first
    assert "Success begins at 18 by the label; the head says at <b>12</b>" in first
    assert _jpegs(first) == pytest.approx([6 * i for i in (11, 12, 14, 17, 18)], abs=2)
    assert re.findall(r"<figcaption>(\d+: \w+)", first) == [
        "11: failure", "12: failure", "14: failure", "17: failure", "18: success"
    ]  # fmt: skip


def test_the_worst_mistakes_are_the_frames_they_are_said_to_be(page: bytes) -> None:
    worst = page.decode().split('<section id="worst">')[1].split("</section>")[0]
    frames = [int(n) for n in re.findall(r"<br>frame (\d+)", worst)]
    assert len(frames) == 4
    assert _jpegs(worst) == pytest.approx([6 * i for i in frames], abs=2)
    assert "not valid" in worst


def test_of_each_run_of_wrong_frames_the_worst_is_shown_and_sure_mistakes_come_first() -> None:
    said = [0.1] * 40
    said[5:8], said[20], said[30:32] = [0.6, 0.97, 0.7], 0.99, [0.55, 0.6]
    (e,) = found = [judged("set/0", FAILED, said)]
    assert [frame for _, frame in worst_frames(found)] == [20, 6, 31]
    assert worst_frames(found, 2) == [(e, 20), (e, 6)]


def test_episodes_with_a_wrong_decision_lead_the_table() -> None:
    names = [e.name for e in episode_table.most_to_see_first(_episodes())]
    assert names == ["set/lied", "set/fooled", "set/blind", HOSTILE, "set/0", "set/still"]


def test_decisions_are_told_in_words() -> None:
    early = judged("e", [0] * 20 + [1] * 20, [0.9] * 5 + [0.1] * 15 + [0.9] * 20)
    told = [episode_table.decided(e) for e in [*_episodes(), early, judged("m", GRASP, [0.1] * 40)]]
    assert told == [
        ("success at 14 (+2)", True),
        ("no success", True),
        ("success at 14, 4 too early", False),
        ("success at 12 (+0)", True),
        ("false success at 22", False),
        ("no success", True),
        ("success at 2, 18 too early", False),
        ("success missed", False),
    ]


def test_only_the_episodes_that_are_shown_are_read_and_each_once() -> None:
    read = []

    def pictures(name: str) -> NDArray[np.uint8]:
        read.append(name)
        return _pictures(name)

    report.render(_manifest(_episodes()), _episodes(), pictures)
    assert sorted(read) == sorted(["set/lied", "set/blind", "set/fooled", HOSTILE])


def test_a_flood_of_doubts_is_cut_and_says_so() -> None:
    flood = [judged(f"set/{i}", [0] * 40, [0.02, 0.9] * 20) for i in range(6)]
    page = report.render(_manifest(flood), flood, _pictures).decode()
    assert page.count('class="doubt"') == SHOWN
    assert page.count("<li>") == LISTED - SHOWN
    assert f"And {120 - LISTED} more" in page
    assert page.count('<div class="faces">') == 1 and len(_jpegs(page.split('id="worst"')[1])) == WORST


@pytest.mark.parametrize(
    "episodes",
    [
        [well("set/0", GRASP)],
        [well("set/0", FAILED), well("set/1", FAILED)],
        [well("set/0", [1] * 40)],
        [judged("set/0", GRASP, [0.5] * 40, invalid=range(40))],
    ],
    ids=["no mistake", "no success", "no failure", "nothing valid"],
)
def test_episodes_of_one_kind_alone_have_a_report_too(episodes: list[Judged]) -> None:
    files = report.files(_manifest(episodes), episodes, _pictures)
    assert _Page(files["report.html"]).sections["timelines"].count("set/") == len(episodes)
    assert "nan" not in _Page(files["report.html"]).text
    assert _png(files["report.png"]).std() > 5


def test_reliability_bins_hold_what_was_said_and_seen() -> None:
    said = [0.02] * 30 + [0.5] * 4 + [0.98] * 6
    before, after = curves.reliability_curves([judged("a", [0] * 33 + [1] * 7, said)])
    assert after.frames.tolist() == before.frames.tolist() == [30, 4, 6]
    assert after.predicted == pytest.approx([0.02, 0.5, 0.98])
    assert after.seen == pytest.approx([0, 0.25, 1])
    assert after.low[2] < 0.7 and after.high[2] > 0.999  # six of six prove little
    assert after.error == pytest.approx((30 * 0.02 + 4 * 0.25 + 6 * 0.02) / 40)


def test_the_marked_points_are_those_of_the_threshold_and_of_the_verdicts() -> None:
    said = [0.1] * 6 + [0.6, 0.9, 0.4, 0.9]
    curve = curves.precision_recall([judged("a", [0] * 7 + [1] * 3, said)], 0.3)
    assert curve.judged == pytest.approx((2 / 3, 2 / 3))
    assert curve.served == pytest.approx((1, 3 / 4))
    assert curve.base == pytest.approx(0.3)
    assert curve.begin == 0.5
    assert curves.precision_recall([well("a", GRASP)], 0.5).begin == 0.9


def test_per_cent_is_never_rounded_to_all() -> None:
    assert figure_table.hundredths(1.0) == "100.00"
    assert figure_table.hundredths(0.999999) == "99.99"
    assert figure_table.written("false_success_rate", Metric(value=0, low=0, high=0.139, episodes=20)) == (
        "0.00\N{NO-BREAK SPACE}%", "at most 13.90\N{NO-BREAK SPACE}%"
    )  # fmt: skip


def _png(data: bytes) -> NDArray[np.uint8]:
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return np.asarray(picture, np.uint8)


def test_the_picture_shows_the_same_and_comes_out_the_same_again() -> None:
    episodes = _episodes()
    manifest = _manifest(episodes, name="$\\frac{$ lamp")
    files = report.files(manifest, episodes, _pictures)
    assert sorted(files) == ["report.html", "report.png"]
    picture = _png(files["report.png"])
    assert picture.shape[1] == 1500
    for row in (picture[:40], picture[60:390], picture[400:]):
        assert row.std() > 10  # title, figures and charts, timelines
    violet, red = np.array([201, 79, 123]), np.array([43, 58, 207])
    for colour in (violet, red):  # decisions and wrong frames, in OpenCV's order of colours
        assert (np.abs(picture[400:].astype(int) - colour).max(2) < 12).sum() > 20
    assert report.files(manifest, episodes, _pictures) == files


def test_the_picture_of_very_many_episodes_stays_a_picture() -> None:
    many = [well(f"set/{i}", GRASP if i % 2 else FAILED) for i in range(300)]
    from gripwire_trainer.report.poster import draw

    assert _png(draw(_manifest(many), many)).shape[0] < 2500


def test_hostile_names_are_escaped_in_attributes_too(page: bytes) -> None:
    assert f'aria-label="timeline of {html.escape(HOSTILE)}"'.encode() in page
