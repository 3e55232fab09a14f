"""Quality rules: documents that fail a rule go; each drop is counted under the first rule it failed.

Gopher's rules (Rae et al., arXiv 2112.11446, appendix A1.1) tell prose by counts from menus, lists and other debris. What
stays has

    50 to 100,000 words of 3 to 10 characters on average, 80 % of them with a letter, and two of eight stop words
    at most one symbol (# or an ellipsis) in ten words, 90 % of its lines with a bullet, 30 % that end in an ellipsis
    at most 30 % of its lines and of its paragraphs repeated, with 20 % of the characters
    at most 20, 18, 16 % of the characters in its most frequent 2-, 3-, 4-gram
    at most 15, 14, 13, 12, 11, 10 % of the characters in repeated 5- to 10-grams

The rules were written for prose and destroy source code (few stop words, many symbols), so sources that hold code are exempt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa

from shoestring.choice import OneOf, Table
from shoestring.data import cost, documents
from shoestring.data.documents import Drop
from shoestring.data.gopher import GOPHER, RuleSet
from shoestring.errors import SettingError
from shoestring.measure import Hardware
from shoestring.technique import Prediction, Sketch, State, Task, Technique, Watch, Word, need

CODE = "code"
"""The source that rules for prose leave alone unless they are told otherwise."""


RULE_SETS: Table[RuleSet] = Table("Quality.rules", GOPHER)


def failures(table: Any, sources: list[str], rules: RuleSet = GOPHER.make) -> dict[int, str]:
    """In a Daft table with `order`, `text`, `source`: the first rule that each document of `sources` fails."""
    from shoestring.data import engine

    first = engine.column(rules.first_failed, ["text"], pa.int64())
    judged = engine.ordered(engine.among(table, "source", sources).select("order", first.alias("rule")))
    orders, failed = judged["order"].to_numpy(), judged["rule"].to_numpy()
    return {int(orders[i]): rules.names[failed[i]] for i in np.flatnonzero(failed >= 0)}


class Quality(Technique):
    """Drops documents that fail Gopher's quality or repetition rules; code is exempt unless named."""

    name: ClassVar[str] = "quality"
    room: ClassVar[str] = "data"
    row: ClassVar[str] = "D2"
    paper: ClassVar[str] = "2112.11446"
    saves: ClassVar[tuple[str, ...]] = ("computation", "data", "storage")
    reads: ClassVar[tuple[str, ...]] = ("corpus",)
    gives: ClassVar[str] = "corpus"

    rules: Annotated[str, OneOf(RULE_SETS)] = "gopher"
    """The set of rules."""
    sources: tuple[Word, ...] | None = None
    """Sources that the rules apply to; null is all but "code"."""

    def predict(self, sketch: Sketch, hardware: Hardware) -> Prediction:
        """Time from bytes; the share that stays is assumed."""
        return cost.filtering("quality", sketch, hardware)

    def apply(self, state: State, task: Task, watch: Watch) -> State:
        """Judge each document, keep what passes.

        Raises:
            SettingError: `sources` names one that the corpus lacks.
        """
        from shoestring.data import engine

        there = documents.about(need(state, "corpus", self.name))["sources"]
        judged = [name for name in there if name != CODE] if self.sources is None else list(self.sources)
        missing = sorted(set(judged) - set(there))
        if missing:
            raise SettingError(f"{self.name}.sources: the corpus has no source {', '.join(missing)}; it has: {', '.join(there)}")

        def find(source: Path) -> dict[int, Drop]:
            failed = failures(engine.read(source), judged, RULE_SETS[self.rules]) if judged else {}
            return {order: Drop(rule) for order, rule in failed.items()}

        return documents.keep(state, task, watch, self.name, find, {"judged": judged})
