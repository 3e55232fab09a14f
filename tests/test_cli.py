"""The command line: each command on a tiny model, its JSON, and what a mistake ends in."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shoestring.architecture import ModelConfig
from shoestring.architecture.cost import ASSUMED as CHECKPOINT
from shoestring.cli import app, main
from shoestring.cli.plans import figure
from shoestring.model import Transformer, save
from shoestring.recipe import PROBES, techniques
from shoestring.tokenizer import Tokenizer
from shoestring.train.cost import TERMS
from shoestring.train.optimizers import OPTIMIZERS

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model and some text."""
    folder = tmp_path_factory.mktemp("cli")
    tokenizer = Tokenizer.from_ranks({bytes([byte]): byte for byte in range(256)}, r"\s?\w+|\W", ["<|endoftext|>"])
    config = ModelConfig(vocabulary=tokenizer.vocabulary, width=32, layers=2, heads=2, context=64)
    save(Transformer(config).initialise(0), tokenizer, folder / "tiny")
    (folder / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 60)
    rows = [{"query": "2 + 2 =", "choices": [" 4", " 5"], "gold": 0}, {"query": "3 + 3 =", "choices": [" 5", " 6"], "gold": 1}]
    (folder / "task.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    talk = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    (folder / "theirs").mkdir()
    (folder / "theirs" / "thesis.tex").write_text("mine")
    (folder / "words.yaml").write_text("quality: false\nsteps: [{corpus: {source: text.txt}}, exact]\n")
    (folder / "talk.jsonl").write_text(json.dumps(talk) + "\n")
    return folder


@pytest.fixture
def call(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command as the shell would; its status, standard output and standard error."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("SHOESTRING_HOME", str(place / "home"))

    def run(*words: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["shoestring", *words])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        try:
            main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_every_command_explains_itself() -> None:
    words = [
        [],
        *[[command.callback.__name__] for command in app.registered_commands if command.callback],
        ["plan"],
        ["plan", "fit"],
    ]
    for command in words:
        result = CliRunner().invoke(app, [*command, "--help"])
        assert result.exit_code == 0, command
        assert "--json" in result.output or command == [], command


def test_evaluate_says_text_tasks_and_fidelity(call: Call) -> None:
    status, out, _ = call(
        "evaluate", "tiny", "--text", "text.txt", "--context", "32", "--task", "task.jsonl", "--reference", "tiny", "--json"
    )
    assert status == 0
    figures = json.loads(out)
    assert figures["bits_per_byte"]["value"] > 0
    assert figures["bits_per_byte"]["kind"] == "measured"
    assert any("task" in name for name in figures)
    assert min(abs(figure["value"]) for name, figure in figures.items() if "divergence" in name) < 1e-6


def test_compress_makes_a_smaller_model_that_opens(call: Call, place: Path) -> None:
    status, out, _ = call(
        "compress", "gptq", "tiny", "small", "--calibration", "text.txt", "--set", "group_size=32", "--set", "samples=2",
        "--set", "length=32", "--json",
    )  # fmt: skip
    assert status == 0
    assert json.loads(out)["checkpoint"] == "small"
    assert not (place / ".small.run").exists()
    status, out, _ = call("generate", "small", "--prompt", "The", "--max-tokens", "4", "--json")
    assert status == 0
    assert json.loads(out)["tokens"] <= 4


@pytest.mark.parametrize("data", ["text.txt", "talk.jsonl"])
def test_tune_learns_from_texts_and_from_conversations(call: Call, place: Path, data: str) -> None:
    out = f"tuned-{data.split('.')[0]}"
    status, _, err = call("tune", "lora", "tiny", out, "--data", data, "--set", "steps=2", "--set", "context=32")
    assert status == 0, err
    assert (place / out / "adapter" / "adapter_config.json").is_file()


def test_data_says_what_it_dropped(call: Call, place: Path) -> None:
    (place / "twice").mkdir()
    for name in ("a.txt", "b.txt"):
        (place / "twice" / name).write_text("The same text.")
    status, out, _ = call("data", "exact", "twice", "once", "--json")
    assert status == 0
    assert sum(json.loads(out)["about"]["drops"].values()) == 1


def test_chat_answers_line_by_line(call: Call) -> None:
    status, out, _ = call("chat", "tiny", "--max-tokens", "3", "--json", stdin="Hi\n\nAgain\n")
    assert status == 0
    assert [json.loads(line)["question"] for line in out.splitlines()] == ["Hi", "Again"]


def test_chat_goes_on_when_the_context_is_full(call: Call) -> None:
    questions = ["How are you?"] * 6
    status, out, err = call("chat", "tiny", "--max-tokens", "30", stdin="\n".join([*questions, "x" * 100, "Hi"]))
    assert status == 0
    assert len(out.splitlines()) >= 7
    assert "dropped 2 of the oldest messages" in err
    assert "ask something shorter" in err


def test_chat_streams_what_json_says_whole(call: Call) -> None:
    _, whole, _ = call("chat", "tiny", "--max-tokens", "8", "--json", stdin="Hi\n")
    _, streamed, _ = call("chat", "tiny", "--max-tokens", "8", stdin="Hi\n")
    assert streamed.strip() == json.loads(whole)["answer"]


def test_a_run_that_broke_its_budget_says_so_and_ends_with_3(call: Call, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "small.yaml").write_text("steps:\n  - pretrained: {source: tiny}\nquality: off\n")
    status, out, _ = call("run", "small.yaml")
    assert status == 0
    assert "runs/small/model" in out
    assert "shoestring generate runs/small" in out
    monkeypatch.setattr("shoestring.recipe.broken", lambda budget, used: ["budget.time: 1 s was passed by 50%"])
    status, out, err = call("run", "small.yaml", "--json")
    assert status == 3
    assert err.splitlines()[-1] == "shoestring: budget.time: 1 s was passed by 50%"
    assert json.loads(out)["broken"]


def test_compress_takes_a_run_folder(call: Call, place: Path) -> None:
    call("run", "small.yaml")
    status, _, err = call("compress", "rtn", "runs/small", "rounded", "--set", "group_size=32")
    assert status == 0, err
    assert (place / "rounded" / "config.json").is_file()
    (place / "again.yaml").write_text("steps:\n  - pretrained: {source: runs/small}\nquality: off\n")
    assert json.loads(call("run", "again.yaml", "--json")[1])["ledger"][0]["reused"] is False
    (place / "runs" / "small" / "note.txt").touch()  # what else lies there does not count
    assert json.loads(call("run", "again.yaml", "--json")[1])["ledger"][0]["reused"] is True


def test_generate_streams_what_json_says_whole(call: Call) -> None:
    words = ["generate", "tiny", "--prompt", "The", "--max-tokens", "12", "--seed", "3"]
    assert call(*words)[1] == "The" + json.loads(call(*words, "--json")[1])["text"] + "\n"


def test_every_figure_of_a_calibration_has_a_unit() -> None:
    static = (
        "matmul.fp32",
        "copy",
        "text",
        "disk.write",
        "infer.moved",
        "infer.layers",
        "infer.steps",
        "infer.drawn",
        *CHECKPOINT,
    )
    for key in (*static, *(f"train.fp32.{term}" for term in TERMS)):
        assert not figure(key, 1.5).replace(".", "").isdigit(), key
    assert figure("matmul.bf16", 3.2e9) == "3.2 GFLOP/s"
    assert figure("process.bytes", 2.0**28) == "256 MiB"
    assert figure("train.bf16.error", 0.034) == "3.4%"
    assert {*PROBES} == {"train", "decoding", "checkpoint"}, "a new probe: say its figures' units in cli/plans.py"


def test_the_version_and_the_schema(call: Call) -> None:
    status, out, _ = call("--version")
    assert (status, out.startswith("shoestring 0.")) == (0, True)
    status, out, _ = call("techniques", "--schema")
    assert json.loads(out)["properties"]["steps"]
    status, out, _ = call("techniques", "gptq")
    assert "bits: 4; whole number, 2 to 8" in out
    assert json.loads(call("techniques", "gptq", "--json")[1])["settings"]["bits"]["default"] == 4
    table = json.loads(call("techniques", "Training.optimizer", "--json")[1])
    assert [row[0] for row in table["rows"]] == list(OPTIMIZERS)


def test_a_shell_completes_commands(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in (("_SHOESTRING_COMPLETE", "complete_bash"), ("COMP_WORDS", "shoestring ev"), ("COMP_CWORD", "1")):
        monkeypatch.setenv(key, value)
    assert call()[1].split() == ["evaluate"]


@pytest.mark.parametrize("words", [["generate", "--prompt", "The", "--max-tokens", "2"], ["evaluate", "--text", "text.txt"]])
def test_a_run_folder_stands_for_its_model(call: Call, place: Path, words: list[str]) -> None:
    call("run", "small.yaml")
    for model in ("runs/small", "runs/small/model"):
        status, out, err = call(words[0], model, *words[1:], "--json")
        assert status == 0, err
        assert json.loads(out)["model"] == model


def test_plan_and_techniques_speak_json(call: Call) -> None:
    status, out, _ = call("plan", "--time", "2 h", "--device", "h200", "--json")
    assert status == 0
    assert json.loads(out)
    status, out, _ = call("techniques", "--room", "compress", "--json")
    found = {entry["name"] for entry in json.loads(out)["techniques"] if entry["kind"] == "technique"}
    assert found == {name for name, kind in techniques().items() if kind.room == "compress"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compress", "gtpq", "tiny", "x"], "did you mean 'gptq'"),
        (["compress", "gptq", "tiny", "x", "--set", "bist=4"], "did you mean 'bits'"),
        (["compress", "gptq", "tiny", "tiny"], "exists already"),
        (["compress", "gptq", "tiny", "text.txt"], "a file of this name"),
        (["compress", "gptq", "tiny", "."], "names no file or folder"),
        (["tune", "lora", "tiny", "theirs", "--data", "text.txt"], "holds thesis.tex"),
        (["data", "exact", "text.txt", "theirs"], "holds thesis.tex"),
        (["run", "words.yaml", "--out", "theirs"], "holds thesis.tex"),
        (["compose", "words.yaml", "--factors", "exact", "--out", "theirs"], "holds thesis.tex"),
        (["compress", "rtn", "tiny", "x", "--set", "bits"], "KEY=VALUE"),
        (["evaluate", "tiny"], "--text FILE"),
        (["evaluate", "nowhere", "--text", "text.txt"], "nowhere"),
        (["generate", "tiny", "--prompt", "x", "--top-p", "2"], "top_p"),
        (["run", "nowhere.yaml"], "nowhere.yaml"),
        (["report", "nowhere"], "nowhere"),
        (["plan"], "at least one of"),
        (["plan", "--time", "soon"], "budget.time"),
        (["plan", "--time", "1 h", "--device", "h2000"], "did you mean 'h200'"),
        (["techniques", "--room", "compres"], "did you mean 'compress'"),
        (["fetch", "nonsense"], "nonsense"),
        (["techniques", "gtpq"], "did you mean 'gptq'"),
        (["evaluate", "tiny", "--text", "text.txt", "--windows", str(10**30)], "--windows"),
        (["plan", "--time", "1 h", "--count", "9" * 400], "--count"),
        (["generate", "tiny", "--prompt", "x", "--seed", str(10**30)], "seed"),
        (["data", "exact", "text.txt", "out\udcff"], "is not UTF-8"),
        (["generate", "tiny", "--prompt", "\udcff"], "is not UTF-8"),
        (["data", "exact", "text.txt", "o", "--set", 'limit="\\ud800"'], "half a character"),
        (["nonsense"], "nonsense"),
    ],
)
def test_a_mistake_ends_in_one_line_and_status_2(call: Call, words: list[str], said: str) -> None:
    status, out, err = call(*words)
    assert status == 2
    assert out == ""
    assert said in err
    assert len(err.strip().splitlines()) == 1, err


def test_the_results_are_shown_when_only_the_report_cant_be_written(
    call: Call, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "shown.yaml").write_text((place / "words.yaml").read_text())
    status, _, err = call("run", "shown.yaml")
    assert status == 0, err
    (place / "runs" / "shown" / "report.html").write_text("mine")
    status, out, err = call("run", "shown.yaml")
    assert (status, "report:" in out, "corpus" in out) == (2, False, True)
    assert err.splitlines()[-1].startswith("shoestring: runs/shown/report.html: is there already")
    assert (place / "runs" / "shown" / "report.html").read_text() == "mine"
    status, out, _ = call("run", "shown.yaml", "--json")
    assert (status, json.loads(out)["report"]) == (2, None)
