"""Almost right inputs of every kind: each is taken or refused in one line; no traceback, no hang, nothing of the user's changed.

A few hundred in an ordinary run; `SHOESTRING_FUZZ=10000 pytest tests/fuzz` draws that many, new ones each time.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring import cli, data, evaluate, model, tune
from shoestring.architecture import ModelConfig
from shoestring.errors import ShoestringError
from shoestring.model import Transformer
from shoestring.tokenizer import Tokenizer
from tests.fuzz.mutate import damaged, records, texts

FUZZ = settings.get_profile("fuzz")
SECONDS = 20
"""More than any of these inputs may take on a busy machine."""
LONGEST = 2500
"""Characters of a message: each value at most 300, and all faults of a recipe are said at once."""


@contextlib.contextmanager
def no_hang() -> Iterator[None]:
    """Fail what takes longer than `SECONDS`."""

    def late(number: int, frame: Any) -> None:
        raise AssertionError(f"took longer than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def digest(folder: Path) -> str:
    """What stands in a folder, names and contents."""
    total = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        total.update(str(file.relative_to(folder)).encode("utf-8", "surrogateescape"))
        if file.is_file():
            total.update(file.read_bytes())
    return total.hexdigest()


def takes_or_refuses(folder: Path, work: Callable[[], object]) -> None:
    """Run something on a folder: it may only succeed or refuse in one bounded line, and leaves the folder as it is."""
    before = digest(folder)
    with no_hang():
        try:
            work()
        except ShoestringError as error:
            message = str(error)
            assert message, "an empty message"
            assert len(message) <= LONGEST, f"{len(message)} characters: {message[:500]}"
            assert "\n" not in message
    assert digest(folder) == before, "the user's files were changed"


def command(*arguments: str) -> None:
    """Run the command line in this process: it ends with 0 or 2, and with 2 it says why in one line on standard error."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["shoestring", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.main()
                status: Any = 0
            except SystemExit as stop:
                status = stop.code or 0
    finally:
        sys.argv = before
    assert status in (0, 2), f"status {status}: {err.getvalue()[-2000:]}"
    assert "Traceback" not in err.getvalue()
    if status == 2:
        assert err.getvalue().strip(), "no word"
        assert len(err.getvalue().strip().splitlines()[-1]) <= LONGEST


@dataclass(frozen=True)
class House:
    """Good inputs of every kind, each in a folder of its own."""

    place: Path
    tokenizer: Tokenizer
    model: Transformer

    def fresh(self, name: str) -> Path:
        """A copy of a good folder to spoil."""
        copy = self.place / f"{name}-spoiled"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.place / name, copy)
        return copy

    def empty(self) -> Path:
        """A folder with nothing in it."""
        made = self.place / "empty"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        return made


TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] | trim + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    place = tmp_path_factory.mktemp("house")
    ranks = {bytes([byte]): byte for byte in range(256)}
    tokenizer = Tokenizer.from_ranks(
        ranks, r"[\s\S]", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], {"chat_template": TEMPLATE}
    )
    made = Transformer(ModelConfig(vocabulary=tokenizer.vocabulary, width=16, layers=1, heads=2, context=64)).initialise(1).eval()
    model.save(made, tokenizer, place / "checkpoint")
    _adapter(place / "adapter", place / "checkpoint", made)
    _gguf(place / "gguf")
    return House(place, tokenizer, made)


def _adapter(folder: Path, base: Path, made: Transformer) -> None:
    import peft
    import transformers

    theirs = transformers.AutoModelForCausalLM.from_pretrained(base)
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    peft.get_peft_model(theirs, config).save_pretrained(folder)
    record = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(record | {"base_model_name_or_path": str(base)}))


def _gguf(folder: Path) -> None:
    from tests.model.test_model_gguf import CONFIG, write_gguf

    folder.mkdir()
    write_gguf(folder / "tiny.gguf", Transformer(CONFIG).initialise(1))


def spoil(file: Path, content: bytes) -> None:
    file.write_bytes(content)


# ---------------------------------------------------------------- recipes and settings

RECIPE = {
    "name": "small",
    "seed": 1,
    "device": "cpu",
    "budget": {"time": "5 min", "memory": "8 GB", "energy": "1 kWh", "money": "$2"},
    "quality": {"windows": 4, "context": 64},
    "steps": [
        {"corpus": {"source": "corpus.txt"}},
        "exact",
        {"minhash": {"threshold": 0.8}},
        {"tokenize": {"vocabulary": 512}},
        {"plan": {}},
        {"pretrain": {"model": {"width": 32, "layers": 2, "heads": 2}, "steps": 4, "batch": 4, "context": 64}},
        {"wanda": {"sparsity": 0.5, "pattern": "2:4"}},
        {"distil": {"teacher": "pretrain", "steps": 2}},
        {"gptq": {"bits": 4, "group_size": 32}, "as": "small"},
        {"evaluate": {"tasks": ["bits_per_byte"], "reference": "pretrain"}},
        {"sample": {"prompts": ["Hello"], "max_tokens": 4}},
    ],
}


@FUZZ
@given(content=texts(RECIPE, lambda record: yaml.safe_dump(record, sort_keys=False)) | texts(RECIPE))
def test_recipes(house: House, content: bytes) -> None:
    folder = house.empty()
    (folder / "corpus.txt").write_text("The river runs past the mill. " * 200)
    spoil(folder / "recipe.yaml", content)
    with contextlib.chdir(folder):
        takes_or_refuses(folder, lambda: command("run", "recipe.yaml", "--dry-run"))


KEYS = (
    "budget.time",
    "seed",
    "device",
    "name",
    "quality",
    "steps.exact.x",
    "steps.pretrain.steps",
    "steps.wanda.pattern",
    "steps",
    ".",
    "a.b.c",
    "",
)
VALUES = (
    "1e-4",
    "on",
    "2:4",
    "2 min",
    "-1",
    "1e400",
    "9" * 5000,
    "[" * 3000,
    "&a [*a]",
    "{a: {b: {}}}",
    "!!python/name:os.system",
    "~",
    "\x00",
    "=",
    "é",
)


@FUZZ
@given(
    key=st.sampled_from(KEYS) | st.text(max_size=20), value=st.sampled_from(VALUES) | st.text(max_size=40), equals=st.booleans()
)
def test_set(house: House, key: str, value: str, equals: bool) -> None:
    folder = house.empty()
    (folder / "corpus.txt").write_text("The river runs past the mill. " * 200)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    with contextlib.chdir(folder):
        takes_or_refuses(folder, lambda: command("run", "recipe.yaml", "--dry-run", "--set", f"{key}{'=' * equals}{value}"))


# ---------------------------------------------------------------- text, rows, conversations

ENDINGS = (
    ".txt",
    ".jsonl",
    ".JSONL",
    ".json",
    ".ndjson",
    ".csv",
    ".tsv",
    ".md",
    ".jsonl.gz",
    ".txt.xz",
    ".txt.bz2",
    ".zip",
    ".parquet",
    ".pdf",
    "",
)
DOCUMENTS = [{"text": "One document.", "source": "a", "n": 1}, {"text": "Another, über alles.\n\nWith a paragraph."}]
TABLE = b'text,source\n"One, two",a\n"Three\nfour",b\n'


def lines(rows: Any) -> str:
    """Rows as JSON lines."""
    return "\n".join(map(json.dumps, rows)) if isinstance(rows, list) else json.dumps(rows)


@FUZZ
@given(
    content=texts(DOCUMENTS, lines) | texts(DOCUMENTS) | damaged(TABLE) | st.binary(max_size=200), ending=st.sampled_from(ENDINGS)
)
def test_corpora(house: House, content: bytes, ending: str) -> None:
    folder = house.empty()
    spoil(folder / f"some{ending}", content)
    takes_or_refuses(folder, lambda: list(data.read(folder / f"some{ending}")))
    takes_or_refuses(folder, lambda: list(data.read(folder)))


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = tmp_path_factory.mktemp("parquet") / "some.parquet"
    pq.write_table(pa.Table.from_pylist(DOCUMENTS), file)
    return file.read_bytes()


@FUZZ
@given(choose=st.data())
def test_parquet(house: House, parquet: bytes, choose: st.DataObject) -> None:
    folder = house.empty()
    spoil(folder / "some.parquet", choose.draw(damaged(parquet)))
    takes_or_refuses(folder, lambda: list(data.read(folder / "some.parquet")))


ROWS = (
    [{"query": "The sky is", "choices": ["blue", "green"], "gold": 0}],
    [{"ctx": "He ran", "endings": ["fast", "slow", "far", "off"], "label": "2"}],
    [{"context_options": ["A", "B"], "continuation": "c", "gold": 1}],
    [{"sentence_good": "It is.", "sentence_bad": "It are."}],
    [{"context": "one two", "continuation": "three"}, {"context": "", "continuation": "x"}],
    [{"context": "1 + 1 =", "answer": "2"}],
)


@FUZZ
@given(choose=st.data(), rows=st.sampled_from(ROWS), ending=st.sampled_from([".jsonl", ".json", ".jsonl.gz", ".csv"]))
def test_tasks(house: House, rows: Any, choose: st.DataObject, ending: str) -> None:
    folder = house.empty()
    task = folder / f"task{ending}"
    spoil(task, choose.draw(texts(rows, lines) | texts(rows)))
    takes_or_refuses(folder, lambda: evaluate.measure_model(house.model, house.tokenizer, None, tasks=[task], limit=2))


TALKS = (
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], "tools": None},
    {"messages": [{"role": "system", "content": "Be brief"}, {"role": "assistant", "content": "Yes?", "tool_calls": []}]},
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
    {"instruction": "Add", "input": "1 1", "output": "2"},
    {"prompt": "Say", "completion": "it"},
)


@FUZZ
@given(choose=st.data(), talk=st.sampled_from(TALKS), ending=st.sampled_from([".jsonl", ".json", ".JSONL"]))
def test_conversations(house: House, talk: Any, choose: st.DataObject, ending: str) -> None:
    folder = house.empty()
    file = folder / f"chat{ending}"
    spoil(file, choose.draw(texts([talk], lines) | texts([talk])))

    def learn() -> None:
        for where, messages in tune.read_messages(file):
            tune.encode(house.tokenizer, messages, where)

    takes_or_refuses(folder, learn)


# ---------------------------------------------------------------- checkpoints


@FUZZ
@given(choose=st.data())
def test_config_json(house: House, choose: st.DataObject) -> None:
    folder = house.fresh("checkpoint")
    (folder / "artifact.json").unlink(missing_ok=True)
    good = json.loads((folder / "config.json").read_text())
    good |= (
        {"rope_scaling": {"rope_type": "linear", "factor": 2.0}, "eos_token_id": [256, 258]} if choose.draw(st.booleans()) else {}
    )
    spoil(folder / "config.json", choose.draw(texts(good)))
    takes_or_refuses(folder, lambda: model.load(folder))


@FUZZ
@given(choose=st.data())
def test_generation_config(house: House, choose: st.DataObject) -> None:
    folder = house.fresh("checkpoint")
    (folder / "artifact.json").unlink(missing_ok=True)
    spoil(
        folder / "generation_config.json", choose.draw(texts({"eos_token_id": [256, 257], "temperature": 0.7, "bos_token_id": 1}))
    )
    takes_or_refuses(folder, lambda: model.load(folder))


@FUZZ
@given(choose=st.data())
def test_safetensors(house: House, choose: st.DataObject) -> None:
    folder = house.fresh("checkpoint")
    (folder / "artifact.json").unlink(missing_ok=True)
    file = folder / "model.safetensors"
    good = file.read_bytes()
    size = int.from_bytes(good[:8], "little")
    header = json.loads(good[8 : 8 + size])

    def written(record: Any) -> bytes:
        text = json.dumps(record).encode("utf-8", "surrogatepass")
        return len(text).to_bytes(8, "little") + text + good[8 + size :]

    spoil(file, choose.draw(damaged(good) | records(header).map(written)))
    takes_or_refuses(folder, lambda: model.load(folder))


@FUZZ
@given(choose=st.data())
def test_gguf(house: House, choose: st.DataObject) -> None:
    folder = house.empty()
    spoil(folder / "tiny.gguf", choose.draw(damaged((house.place / "gguf" / "tiny.gguf").read_bytes())))
    takes_or_refuses(folder, lambda: model.load(folder / "tiny.gguf"))


@FUZZ
@given(choose=st.data(), text=st.text(max_size=30))
def test_tokenizer_json(house: House, choose: st.DataObject, text: str) -> None:
    folder = house.empty()
    record = house.tokenizer.record | {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [],
            "special_tokens": {},
        }
    }
    spoil(folder / "tokenizer.json", choose.draw(texts(record)))
    config = {
        "eos_token": "<|endoftext|>",
        "add_bos_token": True,
        "bos_token": {"content": "<|im_start|>"},
        "chat_template": TEMPLATE,
    }
    spoil(folder / "tokenizer_config.json", choose.draw(st.just(json.dumps(config).encode()) | texts(config)))

    def use() -> None:
        opened = Tokenizer.open(folder)
        opened.decode(opened.encode(text))
        opened.chat([{"role": "user", "content": text}])

    takes_or_refuses(folder, use)


PIECES = (
    "{{ messages[0]['content'] }}",
    "{% for m in messages %}",
    "{% endfor %}",
    "{% if add_generation_prompt %}",
    "{% endif %}",
    "{{ bos_token }}",
    "{{ x.y.z }}",
    "{{ raise_exception('no') }}",
    "{{ 'a' * 1000000000 }}",
    "{% for i in range(1000000000) %}{{ i }}{% endfor %}",
    "{{ 1 / 0 }}",
    "{{ messages | length + '' }}",
    "{% generation %}",
    "{% endgeneration %}",
    "{{ ''.__class__.__mro__ }}",
    "{{ messages.append(1) }}",
    "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{{ 2 ** 1000000 }}",
    "{{ 'x'.ljust(10000000000) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ strftime_now('%Y') }}",
    "{% set ns = namespace(a=messages) %}",
    "text",
    "{{",
    "%}",
    "{{ messages | tojson(indent=1000000000) }}",
    "{{ range(10000000) | list | length }}",
    "{% include 'x' %}",
    "{{ lipsum(100000) }}",
    "{{ messages | map(attribute='a.b') | list }}",
)


@FUZZ
@given(pieces=st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=5), whole=st.booleans())
def test_templates(house: House, pieces: list[str], whole: bool) -> None:
    source = "".join(pieces) if whole else TEMPLATE[:60] + "".join(pieces) + TEMPLATE[60:]
    tokenizer = Tokenizer(house.tokenizer.record, {**house.tokenizer.config, "chat_template": source})
    takes_or_refuses(house.empty(), lambda: tokenizer.chat([{"role": "user", "content": "Hi <|im_end|>"}]))


@FUZZ
@given(choose=st.data())
def test_adapters(house: House, choose: st.DataObject) -> None:
    folder = house.fresh("adapter")
    record = json.loads((folder / "adapter_config.json").read_text())
    if choose.draw(st.booleans()):
        spoil(folder / "adapter_config.json", choose.draw(texts(record)))
    else:
        file = folder / "adapter_model.safetensors"
        spoil(file, choose.draw(damaged(file.read_bytes())))
    takes_or_refuses(folder, lambda: model.load(folder))
