"""Ids must be those of the `tokenizers` library, whichever backend gave them."""

from __future__ import annotations

import copy
import json
import lzma
import os
import pickle
import pydoc_data.topics
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.errors import FileError
from shoestring.tokenizer import Tokenizer, bytelevel
from shoestring.tokenizer.fast import GPT2, SAME_IN_BOTH

TEXTS = [*(str(topic) for topic in list(pydoc_data.topics.topics.values())[:40]), Path(textwrap.__file__).read_text()]
TORTURE = [
    "",
    " ",
    "\n\n\n  \t x",
    "a  b   c    d\r\n\r\n e",
    "don't DON'T I'LL we'Re 'ſ 'S",
    "1234567 ½ Ⅷ ٣٤٥ 12 a1b2",
    "naïve café e\u0301 \u0301",
    "日本語のテキスト、한국어 ไทย हिन्दी",
    "👩‍👩‍👧‍👦🏳️‍🌈\u200d\ufeff\u00a0\u2028\u0085x",
    "\x00\x01\x7f\x80\xff",
    "!!!???...---===",
    "x" * 5000,
    " " * 5000 + "x",
    "<|endoftext|> and <|end",
]
PRE_TOKENIZERS = {
    "gpt2": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "digits": {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        ],
    },
    **{
        f"split{i}": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        }
        for i, expression in enumerate(sorted(SAME_IN_BOTH - {GPT2}))
    },
}


def trained(pre: str = "gpt2") -> dict:
    """A byte-level BPE that the tokenizers library trains here."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(TEXTS + TORTURE, trainer)
    return json.loads(made.to_str()) | {"pre_tokenizer": PRE_TOKENIZERS[pre]}


@pytest.fixture(scope="module")
def plain() -> dict:
    return trained()


def reference(record: dict, text: str) -> list[int]:
    library = tokenizers.Tokenizer.from_str(json.dumps(record))
    library.encode_special_tokens = True
    return library.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_ids_are_the_librarys(plain: dict, pre: str) -> None:
    record = plain | {"pre_tokenizer": PRE_TOKENIZERS[pre]}
    tokenizer = Tokenizer(record)
    assert tokenizer.backend == "tiktoken"
    texts = TEXTS + TORTURE
    expected = [reference(record, text) for text in texts]
    assert [tokenizer.encode(text) for text in texts] == expected
    assert tokenizer.encode_batch(texts) == expected
    assert [tokenizer.decode(ids) for ids in expected] == texts


@pytest.mark.parametrize("pre", ["gpt2", "digits", "split0", "split3"])
def test_any_text(plain: dict, pre: str) -> None:
    record = plain | {"pre_tokenizer": PRE_TOKENIZERS[pre]}
    tokenizer = Tokenizer(record)
    library = tokenizers.Tokenizer.from_str(json.dumps(record))
    library.encode_special_tokens = True  # hypothesis finds "<|endoftext|>" in this file, and tries it

    @given(st.text(max_size=60) | st.text(alphabet=" \n\r\t'sSdDtT1٣aé\u0301\u3000ſ.!", max_size=40))
    @settings(max_examples=200, deadline=None)
    def same(text: str) -> None:
        ids = tokenizer.encode(text)
        assert ids == library.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids) == text
        assert int(tokenizer.byte_lengths()[ids].sum()) == len(text.encode())

    same()


@pytest.mark.parametrize(
    "change",
    [
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Punctuation"}, PRE_TOKENIZERS["gpt2"]]}},
        {"pre_tokenizer": PRE_TOKENIZERS["gpt2"] | {"add_prefix_space": True}},
        {"normalizer": {"type": "NFC"}},
    ],
)
def test_what_is_not_known_goes_to_the_library(plain: dict, change: dict) -> None:
    record = plain | change
    tokenizer = Tokenizer(record)
    assert tokenizer.backend == "tokenizers"
    assert tokenizer.encode_batch(TORTURE) == [reference(record, text) for text in TORTURE]


def test_merges_that_tiktoken_would_not_follow(plain: dict) -> None:
    record = copy.deepcopy(plain)
    record["model"]["merges"].reverse()
    assert Tokenizer(record).backend == "tokenizers"
    record = copy.deepcopy(plain)  # a token that its own bytes no longer merge to
    del record["model"]["merges"][3]
    tokenizer = Tokenizer(record)
    assert tokenizer.encode(TEXTS[0]) == reference(record, TEXTS[0])


def test_a_vocabulary_that_lacks_bytes(plain: dict) -> None:
    record = copy.deepcopy(plain)
    for byte in (0x01, 0xF0):
        del record["model"]["vocab"][bytelevel.TO_TEXT[byte]]
    tokens = record["model"]["vocab"]
    record["model"]["merges"] = [m for m in record["model"]["merges"] if all(t in tokens for t in (*m, "".join(m)))]
    tokenizer = Tokenizer(record)
    assert tokenizer.backend == "tiktoken"
    for text in ("a\x01b the\x01re", "the 👩 end", "plain"):
        assert tokenizer.encode(text) == reference(record, text)


def test_special_tokens_only_when_asked(plain: dict) -> None:
    tokenizer = Tokenizer(plain)
    text = "one<|endoftext|>two"
    assert tokenizer.end not in tokenizer.encode(text)
    ids = tokenizer.encode(text, special=True)
    assert ids.count(tokenizer.end) == 1
    assert tokenizer.decode(ids) == "onetwo"
    assert tokenizer.decode(ids, special=True) == text
    assert tokenizer.byte_lengths()[tokenizer.end] == 0


@pytest.mark.parametrize("flags", [{}, {"lstrip": True}, {"single_word": True}, {"special": False}])
def test_special_tokens_are_found_as_the_library_finds_them(plain: dict, flags: dict) -> None:
    record = copy.deepcopy(plain)
    first = record["added_tokens"][0]
    names = ["<a>", "<a>b", "a<", "<|"]
    record["added_tokens"] += [first | flags | {"id": 700 + place, "content": name} for place, name in enumerate(names)]
    tokenizer = Tokenizer(record)
    assert tokenizer.backend == "tiktoken"
    library = tokenizers.Tokenizer.from_str(json.dumps(record))

    @given(st.lists(st.sampled_from(["<a>", "<a", "b", " ", "a", "<", "<|endoftext|>", "\n", "é"]), max_size=12).map("".join))
    @settings(max_examples=80, deadline=None)
    def same(text: str) -> None:
        assert tokenizer.encode(text, special=True) == library.encode(text, add_special_tokens=False).ids

    same()


def test_added_tokens_that_are_not_special_are_always_recognised(plain: dict) -> None:
    record = copy.deepcopy(plain)
    record["added_tokens"].append(record["added_tokens"][0] | {"id": 700, "content": "<tool>", "special": False})
    tokenizer = Tokenizer(record)
    assert tokenizer.encode("a<tool>b") == reference(record, "a<tool>b")
    assert 700 in tokenizer.encode("a<tool>b")
    assert tokenizer.byte_lengths()[700] == 6


def test_lone_surrogates_become_replacement_characters(plain: dict) -> None:
    tokenizer = Tokenizer(plain)
    assert tokenizer.decode(tokenizer.encode("a\ud800b 😀")) == "a\ufffdb 😀"


def test_long_runs_of_blanks(plain: dict) -> None:
    tokenizer = Tokenizer(plain)
    text = " " * 100_000 + "a"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_from_ranks_opens_in_transformers(tmp_path: Path) -> None:
    rustbpe = pytest.importorskip("rustbpe")
    transformers = pytest.importorskip("transformers")
    source = rustbpe.Tokenizer()
    source.train_from_iterator(iter(TEXTS), 600)
    ranks = {bytes(token): rank for token, rank in source.get_mergeable_ranks()}
    made = Tokenizer.from_ranks(ranks, source.get_pattern(), ["<|endoftext|>", "<|im_start|>"])
    assert (made.vocabulary, made.end, made.backend) == (602, 600, "tiktoken")
    made.save(tmp_path)
    opened, theirs = Tokenizer.open(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.eos_token_id == opened.end == 600
    for text in TEXTS + TORTURE[:-1]:
        ids = made.encode(text)
        assert ids == source.encode(text) == opened.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]


def test_ranks_that_are_not_a_bpe() -> None:
    singles = {bytes([byte]): byte for byte in range(256)}
    with pytest.raises(ValueError, match="can't be made"):
        Tokenizer.from_ranks(singles | {b"abc": 256}, GPT2, ["<|endoftext|>"])
    with pytest.raises(ValueError, match="single bytes"):
        Tokenizer.from_ranks({b"a": 0}, GPT2, ["<|endoftext|>"])
    with pytest.raises(ValueError, match="same rank"):
        Tokenizer.from_ranks(singles | {b"ab": 255}, GPT2, ["<|endoftext|>"])


def test_a_tokenizer_travels(plain: dict) -> None:
    tokenizer = Tokenizer(plain | {"normalizer": {"type": "NFC"}})
    ids = tokenizer.encode("the end")
    assert pickle.loads(pickle.dumps(tokenizer)).encode("the end") == copy.deepcopy(tokenizer).encode("the end") == ids


def test_sentencepiece_bytes() -> None:
    vocab = {"<unk>": 0, "</s>": 1, "<0x0A>": 2, "\u2581the": 3, "é": 4}
    record = {
        "model": {"type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": True},
        "added_tokens": [{"id": 1, "content": "</s>", "special": True}],
    }
    tokenizer = Tokenizer(record)
    assert tokenizer.end == 1
    assert tokenizer.byte_lengths().tolist() == [5, 0, 1, 4, 2]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("tokenizer.json", "{", "not JSON"),
        ("tokenizer.json", "[]", "not a JSON object"),
        ("tokenizer.json", "{}", "model is None; must be an object"),
        ("tokenizer.json", '{"model": {"vocab": {"a": 0}}}', "no token ends a document"),
        ("tokenizer.json.xz", "plain", "can't be unpacked as .xz"),
    ],
)
def test_broken_files_are_one_line(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(FileError, match=says) as caught:
        Tokenizer.open(tmp_path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"holds no tokenizer\.json"):
        Tokenizer.open(tmp_path)
    with pytest.raises(FileError, match="no such file"):
        Tokenizer.open(tmp_path / "absent.json")


MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def test_chat(plain: dict) -> None:
    assert Tokenizer(plain).chat(MESSAGES[:1]) == "User: Hi\nAssistant:"
    template = (
        "{% for m in messages %}{{ m.role }}={{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    )
    tokenizer = Tokenizer(plain, {"chat_template": template, "eos_token": {"content": "<|endoftext|>"}})
    assert tokenizer.chat(MESSAGES, open_answer=False) == "user=Hi<|endoftext|>assistant=Hello<|endoftext|>"
    assert tokenizer.chat(MESSAGES[:1]).endswith(">")
    for broken in ("{% for %}", "{{ raise_exception('no') }}", "{{ ''.__class__.__mro__ }}"):
        with pytest.raises(FileError, match="chat template"):
            Tokenizer(plain, {"chat_template": broken}).chat(MESSAGES)


def test_threads_share_one_tokenizer(plain: dict) -> None:
    tokenizer = Tokenizer(plain)
    expected = tokenizer.encode(TEXTS[0])
    results: list[list[int]] = []
    threads = [threading.Thread(target=lambda: results.append(tokenizer.encode(TEXTS[0]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4


def test_smollm2() -> None:
    folder = os.environ.get("SHOESTRING_ASSETS")
    file = Path(folder or "") / "tokenizers" / "smollm2_tokenizer.json.xz"
    if not folder or not file.is_file():
        pytest.skip("SHOESTRING_ASSETS names no folder with tokenizers/smollm2_tokenizer.json.xz")
    tokenizer = Tokenizer.open(file)
    assert (tokenizer.vocabulary, tokenizer.end, tokenizer.backend) == (49152, 0, "tiktoken")
    library = tokenizers.Tokenizer.from_str(lzma.decompress(file.read_bytes()).decode())
    wikitext = lzma.decompress((Path(folder) / "corpus" / "wikitext2_raw_test.txt.xz").read_bytes()).decode()
    for text in (wikitext[:300_000], *TEXTS, *TORTURE[:-1], "".join(map(chr, range(0xD000)))):
        ids = tokenizer.encode(text)
        assert ids == library.encode(text, add_special_tokens=False).ids
    assert "tiktoken" in sys.modules
