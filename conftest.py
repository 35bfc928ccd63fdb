"""The blocks of README.md and docs/, run by Sybil: a document's share its names, in order.

Blocks of Python and doctests run in a folder of their own. Of shell blocks every command,
option, extra and file must exist. What cannot run here says so above its block:
`<!-- skip: next "reason" -->`; what a reader need not see stands in a comment,
`<!-- invisible-code-block: python ... -->`.
"""

import doctest
import os
import pathlib
import tempfile

import pytest
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

from tests.shell import check_commands

ROOT = pathlib.Path(__file__).parent
_LONG_GUIDES = ("checkpoints", "conditional", "fine_tuning", "information", "modules")
_LONG_GUIDES += ("outliers", "serving", "sizes")
SLOW = {  # documents and docstrings that take more than some seconds
    "docs/how_it_works.md",
    "docs/start.md",
    *(f"docs/guides/{name}.md" for name in _LONG_GUIDES),
    "trainers/command/html.py",
    *(f"trainers/estimators/{name}.py" for name in ("density", "outliers")),
}
collect_ignore_glob = ["docs/*.py"]  # programs that make the documentation


def _enter(namespace):
    namespace["_folder"] = tempfile.TemporaryDirectory()
    namespace["__name__"] = "docs"
    os.chdir(namespace["_folder"].name)


def _leave(namespace):
    os.chdir(ROOT)
    namespace["_folder"].cleanup()


flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
documents = Sybil(
    parsers=[
        PythonCodeBlockParser(doctest_optionflags=flags),
        CodeBlockParser("sh", lambda example: check_commands(example.parsed)),
        SkipParser(),
    ],
    patterns=["README.md", "docs/**/*.md", "docs/*.md"],
    path=str(ROOT),
    setup=_enter,
    teardown=_leave,
)
pytest_collect_file = documents.pytest()


def pytest_collection_modifyitems(items):
    """Blocks of long documents, and long examples of docstrings, are slow."""
    for item in items:
        if item.path.relative_to(ROOT).as_posix() in SLOW:
            item.add_marker(pytest.mark.slow)
