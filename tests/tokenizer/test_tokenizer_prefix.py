"""What stands before a text is what transformers puts there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import processors

from shoestring.errors import FileError
from shoestring.tokenizer import Tokenizer
from tests.tokenizer.kinds import KINDS

BOS = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
BOTH = processors.TemplateProcessing(
    single="<|im_start|> <s> $A </s>", pair="$A $B", special_tokens=[("<s>", 1), ("</s>", 2), ("<|im_start|>", 344)]
)
PROCESSORS = {
    "none": None,
    "bytes": processors.ByteLevel(),
    "bos": BOS,
    "several": BOTH,
    "sequence": processors.Sequence([processors.ByteLevel(), BOS]),
    "wrapped": processors.Sequence(
        [BOS, processors.TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 344)])]
    ),
    "bert": processors.BertProcessing(("</s>", 2), ("<s>", 1)),
    "roberta": processors.RobertaProcessing(("</s>", 2), ("<s>", 1)),
}


def with_processor(name: str) -> dict[str, Any]:
    library = tokenizers.Tokenizer.from_str(json.dumps(KINDS["legacy"]))
    if PROCESSORS[name] is not None:
        library.post_processor = PROCESSORS[name]
    return json.loads(library.to_str())


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize(
    "more", [{}, {"add_bos_token": False}, {"add_eos_token": True}, {"add_bos_token": True, "bos_token": None}]
)
def test_as_transformers(tmp_path: Path, name: str, more: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = Tokenizer(with_processor(name), {"bos_token": "<s>", "eos_token": "</s>"} | more)
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)("a thin").input_ids
    ids = tokenizer.prompt("a thin")
    assert theirs[: len(ids)] == ids
    assert theirs[len(ids) :] in ([], [2])
    assert Tokenizer.open(tmp_path).prefix == tokenizer.prefix


def test_add_bos_token_where_no_post_processor_decides() -> None:
    config = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True}
    assert Tokenizer(with_processor("none"), config).prefix == (1,)
    assert Tokenizer(with_processor("bytes"), config).prefix == (1,)
    assert Tokenizer(with_processor("several"), config).prefix == (344, 1)
    assert Tokenizer(with_processor("none"), config | {"bos_token": None}).prefix == ()


def test_prompt_and_start() -> None:
    tokenizer = Tokenizer(with_processor("bos"), {"bos_token": "<s>", "eos_token": "</s>"})
    assert tokenizer.prefix == (1,)
    assert tokenizer.prompt("") == [1]
    assert tokenizer.prompt("a</s>") == [1, *tokenizer.encode("a</s>")]
    assert 2 not in tokenizer.prompt("a</s>")
    assert tokenizer.start == 1
    bare = Tokenizer(with_processor("none"), {"eos_token": "</s>"})
    assert (bare.prefix, bare.prompt(""), bare.start) == ((), [2], 2)


def test_chats_have_it_once() -> None:
    config = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "chat_template": "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}",
    }
    said = [{"role": "user", "content": "a"}]
    assert Tokenizer(with_processor("bos"), config).chat_tokens(said).count(1) == 1
    silent = config | {"chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}"}
    assert Tokenizer(with_processor("bos"), silent).chat_tokens(said).count(1) == 0


@pytest.mark.parametrize(
    "broken", [{"type": "TemplateProcessing", "single": 3}, {"type": "BertProcessing", "cls": []}, {"type": "Sequence"}, 7]
)
def test_a_broken_rule_is_one_line(broken: Any) -> None:
    with pytest.raises(FileError, match="post_processor"):
        Tokenizer(KINDS["legacy"] | {"post_processor": broken}, {"eos_token": "</s>"})
