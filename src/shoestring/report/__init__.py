"""What a run shows a person: the HTML page, and the table in the terminal."""

from shoestring.report.page import render, write
from shoestring.report.read import Record, read
from shoestring.report.terminal import print_table, table

__all__ = ["Record", "print_table", "read", "render", "table", "write"]
