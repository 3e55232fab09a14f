"""Task files, their forms, their figures, and rows that are wrong."""

from __future__ import annotations

import json
import lzma
import math
from pathlib import Path

import pytest
import torch

from shoestring.errors import FileError
from shoestring.evaluate import read_rows, task_scores
from shoestring.evaluate.rows import Cloze, Exact, MultipleChoice, joined
from shoestring.evaluate.tasks import continuation_tokens
from shoestring.evaluate.text import file_tokens
from shoestring.infer import GREEDY, generate
from shoestring.measure.intervals import wilson
from shoestring.model import Transformer
from shoestring.tokenizer import Tokenizer


def write(path: Path, rows: list[dict]) -> Path:
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(lzma.compress(data) if path.suffix == ".xz" else data)
    return path


def loss(model: Transformer, tokenizer: Tokenizer, context: str, continuation: str) -> float:
    """Naive: one forward pass over one text."""
    before, after = continuation_tokens(tokenizer, context, continuation)
    logits = model(torch.tensor([before + after])).double().log_softmax(-1)[0]
    return -sum(logits[len(before) - 1 + i, token].item() for i, token in enumerate(after))


CHOICES = [
    {"query": "The cat sat", "choices": ["on the mat", "off", "in a naïve little hat"], "gold": 0},
    {"query": "", "choices": ["the", "zzz"], "gold": 0},
    {"query": "Question: why?\n", "choices": ["because", "therefore, and at length"], "gold": 1},
    {"query": "x", "choices": ["1", "2"], "gold": 1},
]


@pytest.mark.parametrize("name", ["copa.jsonl", "copa.jsonl.xz"])
def test_choices(tmp_path: Path, model: Transformer, tokenizer: Tokenizer, name: str) -> None:
    found = task_scores(model, tokenizer, write(tmp_path / name, CHOICES))
    raw = normalised = 0
    for row in CHOICES:
        losses = [loss(model, tokenizer, row["query"], joined(row["query"], choice)) for choice in row["choices"]]
        per_byte = [one / len(choice.encode()) for one, choice in zip(losses, row["choices"])]
        raw += losses.index(min(losses)) == row["gold"]
        normalised += per_byte.index(min(per_byte)) == row["gold"]
    assert found["copa.accuracy"].value == raw / 4
    assert found["copa.accuracy_normalised"].value == normalised / 4
    assert found["copa.accuracy"].interval == wilson(raw, 4)
    p = raw / 4
    assert f"standard error {math.sqrt(p * (1 - p) / 3):.3g}, 95 % by Wilson" in found["copa.accuracy"].method


def test_clozes(tmp_path: Path, model: Transformer, tokenizer: Tokenizer) -> None:
    prompt = tokenizer.encode("The cat")
    said = tokenizer.decode(generate(model, [prompt], GREEDY.model_copy(update={"max_tokens": 1}))[0])
    rows = [{"context": "The cat", "continuation": said}, {"context": "on a", "continuation": "mat"}]
    found = task_scores(model, tokenizer, write(tmp_path / "lambada.jsonl", rows))
    pairs = [("The cat", joined("The cat", said)), ("on a", " mat")]
    total = sum(loss(model, tokenizer, *pair) for pair in pairs)
    count = sum(len(continuation_tokens(tokenizer, *pair)[1]) for pair in pairs)
    assert found["lambada.perplexity"].value == pytest.approx(math.exp(total / count), rel=1e-5)
    assert found["lambada.accuracy"].value in (0.0, 0.5)


def test_exact_match(tmp_path: Path, model: Transformer, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"context": "The cat sat on", "answer": "certainly not this"}, {"context": "word " * 100, "answer": "nor this"}]
    assert task_scores(model, tokenizer, write(tmp_path / "no.jsonl", rows))["no.exact_match"].value == 0.0
    said = [" a  mat \nand more", "two\nlines", "wrong", "a ma"]
    monkeypatch.setattr("shoestring.infer.generate", lambda *_: [tokenizer.encode(text) for text in said])
    expected = ["a mat", "two\nlines ", "right", "a mat"]
    rows = [{"context": "The cat sat on", "answer": answer} for answer in expected]
    assert task_scores(model, tokenizer, write(tmp_path / "some.jsonl", rows))["some.exact_match"].value == 0.5


def test_forms_and_limit(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", CHOICES)
    assert len(read_rows(path)) == 4
    assert len(read_rows(path, limit=2)) == 2
    row = read_rows(write(tmp_path / "b.jsonl", [{"ctx": "A", "endings": ["b", "c"], "label": 1}]))[0]
    assert row == MultipleChoice((("A", " b"), ("A", " c")), 1)
    row = read_rows(write(tmp_path / "c.jsonl", [{"context_options": ["A", "B"], "continuation": "c", "gold": 1}]))[0]
    assert row == MultipleChoice((("A", " c"), ("B", " c")), 1)
    row = read_rows(write(tmp_path / "d.jsonl", [{"sentence_good": "A b", "sentence_bad": "b A"}]))[0]
    assert row == MultipleChoice((("", "A b"), ("", "b A")), 0)
    assert read_rows(write(tmp_path / "e.jsonl", [{"context": "A", "continuation": "b"}])) == [Cloze("A", " b")]
    assert read_rows(write(tmp_path / "f.jsonl", [{"context": "A", "answer": "b"}])) == [Exact("A", "b")]


def test_long_contexts_are_cut_at_their_beginning(tmp_path: Path, model: Transformer, tokenizer: Tokenizer) -> None:
    rows = [{"context": "word " * 200 + "end", "continuation": "now"}]
    cut = [{"context": ("word " * 200 + "end now")[-65:-4], "continuation": "now"}]
    long = task_scores(model, tokenizer, write(tmp_path / "a.jsonl", rows))["a.perplexity"].value
    short = task_scores(model, tokenizer, write(tmp_path / "a.jsonl", cut))["a.perplexity"].value
    assert long == pytest.approx(short, rel=1e-5)


def test_blanks_belong_to_the_continuation(tokenizer: Tokenizer) -> None:
    assert continuation_tokens(tokenizer, "a b ", "c") == (tokenizer.encode("a b"), tokenizer.encode(" c"))
    assert continuation_tokens(tokenizer, "", "c") == ([tokenizer.end], tokenizer.encode("c"))
    assert continuation_tokens(tokenizer, "  ", "c") == ([tokenizer.end], tokenizer.encode("  c"))


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("", "holds no rows"),
        ('{"query": "a"', ":1: not JSON"),
        ("[1]", ":1: a list"),
        ('{"question": "a"}', ":1: no known form"),
        ('{"context": "a", "continuation": "b"}\n{"context": "a", "continuation": 3}', ":2: continuation must be"),
        ('{"context": "a", "continuation": "b"}\n\n{"context": "a", "answer": "3"}', ":3: another form"),
        ('{"query": "a", "choices": ["b"], "gold": 0}', ":1: choices must be a list of at least two"),
        ('{"query": "a", "choices": ["b", "c"], "gold": 2}', "gold must be the number of a choice, 0 to 1"),
        ('{"query": "a", "choices": ["b", "c"], "gold": "B"}', "gold must be"),
        ('{"query": "a", "choices": ["b", "c"], "gold": true}', "gold must be"),
        ('{"context": "a", "continuation": ""}', "non-empty string"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, lines: str, says: str) -> None:
    path = tmp_path / "task.jsonl"
    path.write_text(lines)
    with pytest.raises(FileError, match=says) as caught:
        read_rows(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file"):
        read_rows(tmp_path / "absent.jsonl")
    (tmp_path / "a.jsonl.xz").write_bytes(b"not packed")
    with pytest.raises(FileError, match="can't be unpacked"):
        read_rows(tmp_path / "a.jsonl.xz")
    (tmp_path / "b.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(FileError, match="not UTF-8 at byte 0"):
        read_rows(tmp_path / "b.jsonl")


@pytest.mark.parametrize("label", ["1", 1, 1.0])
def test_a_label_may_be_a_text(tmp_path: Path, label: object) -> None:
    row = {"ind": 1, "ctx": "A", "endings": ["b", "c"], "label": label}
    assert read_rows(write(tmp_path / "a.jsonl", [row])) == [MultipleChoice((("A", " b"), ("A", " c")), 1)]


@pytest.mark.parametrize("label", ["2", "-1", "1.0", "", "a", "١", True, 0.5, None, [1], 10**400, "9" * 5000])
def test_other_labels_are_refused_in_one_short_line(tmp_path: Path, label: object) -> None:
    path = write(tmp_path / "a.jsonl", [{"ctx": "A", "endings": ["b", "c"], "label": label}])
    with pytest.raises(FileError, match=r"a\.jsonl:1: label must be the number of a choice, 0 to 1") as caught:
        read_rows(path)
    assert len(str(caught.value)) < 800


def test_rows_of_any_form_of_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("context,answer\nA,b\n")
    (tmp_path / "b.json").write_text(json.dumps([{"context": "A", "answer": "b"}], indent=1))
    assert read_rows(tmp_path / "a.csv") == read_rows(tmp_path / "b.json") == [Exact("A", "b")]
    (tmp_path / "c.jsonl").write_text('{"context": "\\ud800", "answer": "b"}')
    with pytest.raises(FileError, match="context must be a non-empty string"):
        read_rows(tmp_path / "c.jsonl")


def test_the_column_of_a_text_can_be_named(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "a.csv").write_text('body,text\n"the cat sat on the mat\r\nand slept",no\n')
    (tmp_path / "b.png").write_bytes(b"")
    notes: list[str] = []
    found = file_tokens(tmp_path, tokenizer, field="body", note=notes.append)
    assert tokenizer.decode(found.tolist()) == "the cat sat on the mat\nand slept"
    assert notes == [f"{tmp_path}: 1 file of the folder left out: 1 .png"]
