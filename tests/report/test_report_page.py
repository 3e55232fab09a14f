"""The page as text: every figure of the ledger stands in it, nothing in it is taken for markup, and broken runs still open."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from shoestring import report
from shoestring.errors import FileError
from shoestring.recipe import ledger
from shoestring.report.charts import MOST_POINTS, charts, thin
from shoestring.report.figures import COLUMNS, pair, text
from shoestring.report.page import bars
from tests.report.example_run import HOSTILE, write_composition, write_run


class Page(HTMLParser):
    """Collects the marked figures, the elements, and whatever a browser would fetch."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.figures: dict[tuple[str, str, str], str] = {}
        self.final: dict[str, str] = {}
        self.elements: list[str] = []
        self.links: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        found = {key: value or "" for key, value in attributes}
        if "data-side" in found:
            key = (found["data-step"], found["data-figure"], found["data-side"])
            assert key not in self.figures, f"{key} stands twice in the page"
            self.figures[key] = found["data-value"]
        elif "data-figure" in found:
            self.final[found["data-figure"]] = found["data-value"]
        self.links += [found[key] for key in ("src", "href", "data", "action") if key in found]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("page") / "runs" / "quickstart")
    write_composition(folder)
    report.write(folder)
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page((run / "report.html").read_text("utf-8"))


def test_every_figure_of_the_ledger_stands_in_the_page_with_all_its_digits(run: Path, page: Page) -> None:
    rows = ledger.read(run / "ledger.jsonl")
    assert rows
    for row in rows:
        for figure in COLUMNS:
            for side, quantity in zip(("predicted", "measured"), pair(row, figure)):
                shown = page.figures[row.step, figure, side]
                assert (float(shown) if shown else None) == quantity.value, (row.step, figure, side)
    steps = {step for step, _, _ in page.figures}
    assert steps == {row.step for row in rows} | {"total"}


def test_totals_and_final_figures(run: Path, page: Page) -> None:
    rows = ledger.read(run / "ledger.jsonl")
    seconds = sum(row.measured.seconds.value or 0 for row in rows)
    assert float(page.figures["total", "seconds", "measured"]) == pytest.approx(seconds)
    assert float(page.final["final-seconds"]) == pytest.approx(seconds)
    assert float(page.final["final-disk"]) == 7.44e6
    assert float(page.final["final-bits_per_byte"]) == 1.8712
    # 4096 x 256 embedding + 6 x (4 x 256 x 256 + 3 x 256 x 704 + 2 x 256) + 256
    assert float(page.final["final-parameters"]) == 4096 * 256 + 6 * (4 * 256**2 + 3 * 256 * 704 + 512) + 256
    assert float(page.final["limit-seconds"]) == 540


def test_nothing_a_sample_says_becomes_markup(run: Path, page: Page) -> None:
    source = (run / "report.html").read_text("utf-8")
    assert HOSTILE not in source
    assert "onerror=\\&#34;" in source or "&lt;img src=x onerror=" in source
    assert page.elements.count("script") == 3
    assert "img" not in page.elements
    assert all(link.startswith(("#", "data:")) for link in page.links), page.links
    assert "</script" not in source.split('id="chart-data">')[1].split("</script>")[0]


def test_kinds_and_reasons_are_said(run: Path) -> None:
    source = (run / "report.html").read_text("utf-8")
    assert 'title="unknown: text processing has no FLOPs to speak of"' in source
    assert 'title="estimated: 30 W x time' in source
    assert "reused" in source


def test_the_plan_shows_values_with_their_units_and_all_digits(run: Path) -> None:
    source = (run / "report.html").read_text("utf-8")
    assert 'data-value="402.0">6 min 42 s</td>' in source
    assert 'data-value="6242560">6,242,560</td>' in source


@pytest.mark.parametrize("steps", [0, 1, 5, 7])
def test_an_unfinished_run_opens_as_far_as_it_came(tmp_path: Path, steps: int) -> None:
    folder = write_run(tmp_path / "runs" / "half", status="running", steps=steps)
    source = report.write(folder, tmp_path / "elsewhere.html").read_text("utf-8")
    assert "has not come to its end" in source
    assert len({step for step, _, _ in Page(source).figures} - {"total"}) == len(ledger.read(folder / "ledger.jsonl"))


def test_artifacts_that_are_gone_leave_their_part_empty(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs" / "bare")
    for place in (tmp_path / "runs" / "store").iterdir():
        (place / "artifact.json").unlink()
    (folder / "recipe.yaml").unlink()
    source = report.write(folder).read_text("utf-8")
    assert 'id="ledger"' in source
    assert 'id="samples"' not in source
    assert 'id="recipe"' not in source


def test_a_training_log_that_a_kill_cut_short_is_drawn_as_far_as_it_goes(tmp_path: Path) -> None:
    place = tmp_path / "checkpoint"
    place.mkdir()
    (place / "training.jsonl").write_text('{"step": 0, "loss": 2.5}\n{"step": 1, "loss": NaN}\n{"step": 2, "lo', "utf-8")
    from shoestring.report.read import training

    assert [step["loss"] for step in training(place)] == [2.5, None]
    assert training(tmp_path) == []


def test_long_logs_are_thinned_and_keep_their_ends() -> None:
    steps = [{"step": number} for number in range(10 * MOST_POINTS + 7)]
    kept = thin(steps)
    assert len(kept) <= MOST_POINTS + 2
    assert (kept[0], kept[-1]) == (steps[0], steps[-1])
    assert thin(steps[:5]) == steps[:5]
    assert thin([]) == []


def test_a_composition_without_a_run_has_a_page(tmp_path: Path) -> None:
    source = report.write(write_composition(tmp_path / "compose")).read_text("utf-8")
    assert "Do the gains multiply?" in source
    assert "×0.315" in source
    assert 'data-chart="interaction"' in source
    assert 'id="ledger"' not in source


def test_charts_hold_what_the_ledger_says(run: Path) -> None:
    drawn = charts(report.read(run))
    size = drawn["size"]["data"][0]
    assert size["text"] == ["pretrain", "wanda", "distil", "gptq"]
    assert size["y"] == [1.8213, 1.9874, 1.8529, 1.8712]
    cost = drawn["cost-seconds"]["data"][0]["x"]
    assert cost[0] == pytest.approx(2.31 + 2.84 + 0.61 + 2.77 + 5.92 + 0.004 + 388.4)
    kinds = {kind: [trace["name"] for trace in drawn[f"loss-{kind}"]["data"]] for kind in ("learning", "distance")}
    assert kinds == {"learning": ["pretrain"], "distance": ["distil"]}
    foreseen = {trace["name"]: trace["y"] for trace in drawn["prediction"]["data"]}
    assert set(foreseen) == {"Wall time", "Computation", "Peak memory", "On disk", "Bits per byte"}
    assert foreseen["Bits per byte"] == ["pretrain"]
    json.dumps(drawn, allow_nan=False)


def test_bars_compare_limit_prediction_and_use(run: Path) -> None:
    found = {bar["figure"]: bar for bar in bars(report.read(run))}
    time = found["seconds"]
    assert time["limit"].value == 540
    assert not time["over"]
    assert time["limit_share"] == 100
    assert 0 < time["measured_share"] < 100
    assert found["energy"]["limit"] is None


def test_limits_may_be_written_as_people_write_them(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs" / "words", steps=1)
    record = json.loads((folder / "run.json").read_text("utf-8"))
    (folder / "run.json").write_text(json.dumps({**record, "budget": {"time": "9 min", "money": "$2"}}), "utf-8")
    found = {bar["figure"]: bar for bar in bars(report.read(folder))}
    assert found["seconds"]["limit"].value == 540
    assert found["money"]["limit"].value == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ledger.jsonl", '{"step": "corpus"', "line 1 is not a ledger row"),
        ("ledger.jsonl", "[1]\n", "line 1 is not a ledger row"),
        ("run.json", "{", "not JSON"),
        ("run.json", "[]", "not a JSON object"),
        ("compose.json", "no", "not JSON"),
    ],
)
def test_a_damaged_record_is_one_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    folder = write_run(tmp_path / "runs" / "broken", steps=1)
    (folder / name).write_text(content, "utf-8")
    with pytest.raises(FileError, match=message) as caught:
        report.write(folder)
    assert str(folder / name) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (folder / "report.html").exists()


def test_a_folder_without_a_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="not a run"):
        report.write(tmp_path)


def test_the_terminal_table_fits_a_hundred_columns(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report.print_table(run)
    said = capsys.readouterr().out.splitlines()
    assert max(map(len, said)) <= 100
    assert any(line.startswith("pretrain") and "1.8213" in line for line in said)
    assert any(line.startswith("corpus (reused)") for line in said)
    assert any(line.startswith("evaluations (4)") for line in said)
    assert any(line.startswith("whole run") for line in said)
    assert any(line.split()[:2] == ["gptq", "bits_per_byte"] and line.endswith("not clear") for line in said)
    assert report.table(ledger.read(run / "ledger.jsonl")).row_count == report.table(run).row_count == 12
    assert report.table([]).row_count == 0


def test_figures_read_well() -> None:
    from shoestring.measure import Kind, measured, unknown

    assert text(measured(0.0000513, "USD")) == "$0.000051"
    assert text(measured(0.00051, "USD")) == "$0.00051"
    assert text(measured(0, "USD")) == "$0"
    assert text(measured(2.5e-5, "kgCO2e")) == "25 mg"
    assert text(measured(0.0025, "kgCO2e")) == "2.5 g"
    assert text(measured(1.23456, "bit/B"), "bits_per_byte") == "1.2346"
    assert text(unknown("J", "no sensor", Kind.MEASURED)) == "unknown"


@pytest.mark.parametrize("theirs", ["recipe.yaml", "report.html", "folder", "link"])
def test_nothing_but_a_page_of_ours_is_written_over(tmp_path: Path, theirs: str) -> None:
    folder, file = write_run(tmp_path / "runs" / "quickstart"), tmp_path / theirs
    if theirs == "folder":
        file.mkdir()
    elif theirs == "link":
        file.symlink_to(folder / "report.html")
    else:
        file.write_text("<!doctype html><title>mine</title>")
    with pytest.raises(FileError, match="no report of shoestring's"):
        report.write(folder, file)
    assert theirs in ("folder", "link") or file.read_text() == "<!doctype html><title>mine</title>"
    report.write(folder, tmp_path / "new.html")
    report.write(folder, tmp_path / "new.html")
