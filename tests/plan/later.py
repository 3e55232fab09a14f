"""Steps after a plan, of which only the use is known."""

from __future__ import annotations

from collections.abc import Callable

from shoestring.measure import Hardware, Usage
from shoestring.technique import Budget, Outlook, Prediction, Sketch, Technique


def outlook(remaining: Budget, rest: Callable[[Sketch], Usage] | None = None) -> Outlook:
    """What is left, and one later step that will use what `rest` says of a sketch; none is known when it is not given."""

    class Later(Technique):
        """Uses what `rest` says."""

        def predict(self, sketch: Sketch, hardware: Hardware) -> Prediction:
            assert rest is not None
            return Prediction(rest(sketch), sketch)

    return Outlook(remaining, None if rest is None else (Later(),))
