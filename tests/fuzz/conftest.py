"""How many inputs each target gets: few in an ordinary run, as many as asked for with SHOESTRING_FUZZ=10000 (in all)."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

TARGETS = 13
"""About as many as there are."""
EACH = max(10, int(os.environ.get("SHOESTRING_FUZZ", "260")) // TARGETS)

settings.register_profile(
    "fuzz",
    max_examples=EACH,
    deadline=None,
    derandomize="SHOESTRING_FUZZ" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
