"""A tokenizer.json of anybody's: what is not one is refused in one line that names the entry."""

from __future__ import annotations

import contextlib
import copy
import json
import lzma
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoestring.errors import FileError
from shoestring.evaluate.text import same_tokenizer
from shoestring.tokenizer import Tokenizer
from tests.tokenizer.kinds import KINDS

CONFIG = {"eos_token": "</s>", "bos_token": "<s>"}


def changed(path: str, value: Any, kind: str = "byte-level") -> dict[str, Any]:
    """A tokenizer with one entry replaced; `path` is dotted, numbers are places in a list."""
    record = copy.deepcopy(KINDS[kind])
    at: Any = record
    *parts, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parts:
        at = at[part]
    at[last] = value
    return record


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("model", [], "model is .*; must be an object"),
        ("model.type", "Markov", r"model\.type is 'Markov'.*allowed: BPE, Unigram, WordLevel, WordPiece"),
        ("model.type", 7, "model.type is 7"),
        ("model.vocab", 3, "model.vocab is 3; must be an object"),
        ("model.vocab", [["a", 0.0], "b"], r"model\.vocab\[1\] is 'b'; must be a text and its score"),
        ("model.vocab.the", -1, r"model\.vocab\['the'\] is -1"),
        ("model.vocab.the", 1.5, r"is 1\.5; an id must be a whole number"),
        ("model.vocab.the", True, "is True"),
        ("model.vocab.the", 10**30, "an id must be a whole number"),
        ("model.vocab.the", 10**9, "an id of 1,000,000,000 in a vocabulary of"),
        ("model.vocab.the", 5, "the same id 5"),
        ("model.merges", 7, "model.merges is 7; must be a list"),
        ("model.merges.1", 7, r"model\.merges\[1\] is 7; must be a pair"),
        ("model.continuing_subword_prefix", 7, "continuing_subword_prefix is 7"),
        ("added_tokens", {}, None),
        ("added_tokens", "x", "added_tokens is 'x'; must be a list"),
        ("added_tokens.0", 5, r"added_tokens\[0\] is 5; must be an object"),
        ("added_tokens.0.content", None, r"added_tokens\[0\].content is None; must be a text"),
        ("added_tokens.0.content", "", "must be a text that is not empty"),
        ("added_tokens.1.id", 10**9, "has id 1000000000, but the tokenizers library gives it"),
        ("added_tokens.1.id", 3, "has id 3, but"),
        ("added_tokens.1.id", -3, "is -3"),
        ("added_tokens.1.id", "3", "is '3'"),
        ("normalizer", [], r"normalizer is \[\]; must be an object with a type"),
        ("decoder", {"type": 4}, "decoder is"),
        ("pre_tokenizer", {"type": "Sequence", "pretokenizers": [5]}, r"pre_tokenizer\.pretokenizers\[0\] is 5"),
        ("pre_tokenizer", {"type": "Sequence", "pretokenizers": 5}, r"pretokenizers is 5; must be a list"),
    ],
)
def test_what_is_wrong_is_named(path: str, value: Any, says: str | None) -> None:
    if says is None:
        with pytest.raises(FileError, match="no token ends a document"):
            Tokenizer(changed(path, value))
        return
    with pytest.raises(FileError, match=says) as caught:
        Tokenizer(changed(path, value), CONFIG, "folder/tokenizer.json")
    assert str(caught.value).startswith("folder/tokenizer.json: ")
    assert len(str(caught.value)) < 600


def test_deep_steps_are_refused() -> None:
    step: dict[str, Any] = {"type": "NFC"}
    for _ in range(400):
        step = {"type": "Sequence", "normalizers": [step]}
    with pytest.raises(FileError, match="nested deeper than 32 steps"):
        Tokenizer(changed("normalizer", step), CONFIG)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"eos_token": ["</s>"]}, None),
        ({"eos_token": 5, "bos_token": {"content": []}}, None),
        ({"eos_token": {"text": 1}}, None),
    ],
)
def test_named_tokens_of_another_kind_are_no_names(config: dict[str, Any], says: None) -> None:
    assert Tokenizer(KINDS["byte-level"], config).end == KINDS["byte-level"]["added_tokens"][2]["id"]


def test_files(tmp_path: Path) -> None:
    packed = lzma.compress(json.dumps(KINDS["legacy"]).encode())
    (tmp_path / "tokenizer.json.xz").write_bytes(packed[:-20])
    with pytest.raises(FileError, match="ends too early"):
        Tokenizer.open(tmp_path)
    (tmp_path / "tokenizer.json.xz").write_bytes(packed)
    assert Tokenizer.open(tmp_path).end == 2
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": "<s>", "bos_token": {"content": "</s>"}}')
    assert (Tokenizer.open(tmp_path).end, Tokenizer.open(tmp_path).start) == (1, 2)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<unk>"}')
    assert Tokenizer.open(tmp_path).end == 0
    (tmp_path / "tokenizer_config.json").write_text("[" * 100_000)
    with pytest.raises(FileError, match="nested too deep"):
        Tokenizer.open(tmp_path)


def test_a_lone_surrogate_is_kept_from_opening_to_saving(tmp_path: Path) -> None:
    made = Tokenizer(KINDS["byte-level"], CONFIG | {"chat_template": "\ud800x"})
    made.save(tmp_path)
    assert Tokenizer.open(tmp_path).config["chat_template"] == "\ud800x"
    assert made.chat_tokens([{"role": "user", "content": "\udfff"}]) == made.encode("\ufffdx")


def test_added_tokens_have_the_ids_that_the_library_gives() -> None:
    plain = KINDS["byte-level"]["added_tokens"][0]

    @given(st.lists(st.tuples(st.sampled_from(["a", "b", "the", "<x>", "<y>", "<z>"]), st.integers(250, 270)), max_size=5))
    @settings(max_examples=60, deadline=None)
    def same(added: list[tuple[str, int]]) -> None:
        record = KINDS["byte-level"] | {"added_tokens": [plain | {"content": name, "id": number} for name, number in added]}
        library = tokenizers.Tokenizer.from_str(json.dumps(record))
        right = all(library.token_to_id(name) == number for name, number in added)
        if right:
            assert Tokenizer(record, {"eos_token": "th"}).vocabulary >= 260
        else:
            with pytest.raises(FileError, match="has id"):
                Tokenizer(record, {"eos_token": "th"})

    same()


PLACES = [
    "model", "model.type", "model.vocab", "model.vocab.the", "model.merges", "model.merges.0", "model.unk_token",
    "model.continuing_subword_prefix", "model.dropout", "added_tokens", "added_tokens.0", "added_tokens.0.content",
    "added_tokens.1.id", "added_tokens.0.special", "normalizer", "pre_tokenizer", "pre_tokenizer.type", "post_processor",
    "decoder", "decoder.type", "truncation", "version",
]  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**12) | st.floats() | st.sampled_from(["", "\ud800", "the", "Sequence", "a b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "pattern", "content", "id"]), inner),
    max_leaves=6,
)


@given(st.sampled_from(PLACES), VALUES, st.sampled_from(["byte-level", "legacy", "metaspace-first", "word-piece"]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_anything_else_is_one_line_or_works(path: str, value: Any, kind: str) -> None:
    try:
        record = changed(path, value, kind)
    except (LookupError, TypeError):  # this kind has no such entry
        return
    with contextlib.suppress(FileError):  # one line: every message of ours is
        tokenizer = Tokenizer(record, CONFIG)
        tokenizer.byte_lengths()
        assert same_tokenizer(tokenizer, Tokenizer(copy.deepcopy(record), CONFIG))
        ids = tokenizer.encode("the end <s>", special=True)
        assert isinstance(tokenizer.decode(ids), str)
        tokenizer.prompt("a")
        tokenizer.answer(ids, ids)
