"""What a language model learns from: readers, filters, deduplication, tokens, batches."""

from shoestring.data.corpus import Corpus
from shoestring.data.exact import Exact
from shoestring.data.minhash import MinHash
from shoestring.data.orders import ORDERS
from shoestring.data.packing import PACKINGS
from shoestring.data.quality import RULE_SETS, Quality
from shoestring.data.readers import read, read_texts
from shoestring.data.rows import records
from shoestring.data.rules import RULES
from shoestring.data.run import run_on_files
from shoestring.data.select import Select
from shoestring.data.tokenize import Tokenize
from shoestring.data.tokens import Tokens, open_tokens
from shoestring.technique import Technique

VERSION = 1
"""Raised when code that the techniques of this room share gives other results: what they made before is then redone."""

TECHNIQUES: tuple[type[Technique], ...] = (Corpus, Quality, Exact, MinHash, Select, Tokenize)
TABLES = (RULE_SETS, RULES, PACKINGS, ORDERS)

__all__ = [
    "TABLES",
    "TECHNIQUES",
    "VERSION",
    "Corpus",
    "Exact",
    "MinHash",
    "Quality",
    "Select",
    "Tokenize",
    "Tokens",
    "open_tokens",
    "read",
    "read_texts",
    "records",
    "run_on_files",
]
