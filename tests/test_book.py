"""Walks through the chapters and pages of the book, and makes sure that the walk finds faults."""

import re

import plant
import pytest
import statements
import walker

CHAPTERS = statements.chapter_paths()
PAGES = sorted(statements.BOOK.glob("*.md"))
TESTS = statements.tests()
SAMPLES = ("conftest.py", "test_book.py", "test_sphinx.py", "test_tools.py")  # their chapter 7 is another
SOURCES = sorted(
    path
    for folder in ("balance", "benchmarks", "experiments", "tests")
    for path in (statements.ROOT / folder).rglob("*.py")
    if path.name not in SAMPLES
)


@pytest.mark.parametrize("check", walker.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter(path, check):
    chapter = statements.Chapter(path, statements.read(path), TESTS)
    assert list(check(chapter)) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_links_of_page(path):
    assert list(walker.page_links(path, path.read_text())) == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_each_statement_has_planted_errors_that_fit(path):
    assert list(plant.misfits(path.stem)) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(statements.ROOT).as_posix())
def test_numbers_that_the_code_mentions_exist(path):
    assert list(walker.wrong_mentions(walker.remarks(path.read_text()), walker.numbered(statements.BOOK))) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_numbers_that_a_page_mentions_exist(path):
    assert list(walker.wrong_mentions(path.read_text(), walker.numbered(statements.BOOK))) == []


def test_every_chapter_is_in_the_table_of_contents():
    listed = re.findall(r"file: (book/\d\S+)", (statements.ROOT / "_toc.yml").read_text())
    assert listed == [f"book/{path.stem}" for path in CHAPTERS]


def test_every_marked_statement_belongs_to_a_chapter():
    numbers = {str(int(path.name[:2])) for path in CHAPTERS}
    assert {number.split(".")[0] for number in TESTS} <= numbers


def faults(path, notebook, tests=None):
    chapter = statements.Chapter(path, notebook, {"7.1": ["test_sample.py::test_one"]} if tests is None else tests)
    return [f"{check.__name__}: {fault}" for check in walker.CHECKS for fault in check(chapter)]


def test_sample_has_no_faults(book):
    assert faults(*book()) == []


def replace(index, old, new):
    def change(notebook):
        assert old in notebook.cells[index].source
        notebook.cells[index].source = notebook.cells[index].source.replace(old, new)

    return change


def metadata(index, **values):
    def change(notebook):
        notebook.cells[index].metadata = values

    return change


def drop(index):
    return lambda notebook: notebook.cells.pop(index)


def store_output(notebook):
    notebook.cells[4].execution_count = 1


def move_check_up(notebook):
    notebook.cells.insert(3, notebook.cells.pop(4))


def lengthen(lines, cells):
    def change(notebook):
        for index in cells:
            notebook.cells[index].source += "\nx = 1" * lines

    return change


FOLDED = {"jupyter": {"source_hidden": True}, "cellView": "form"}
SEEDED = [
    ("structure", replace(0, "# 7. A", "# 8. A")),
    ("structure", replace(0, "**You need**", "You need")),
    ("structure", replace(7, "## When it fails", "## Limits")),
    ("structure", replace(7, "## When", "# When")),
    ("numbering", replace(3, "Theorem 7.1", "Theorem 7.2")),
    ("numbering", replace(3, "tag{7.1}", "tag{7.2}")),
    ("numbering", replace(3, "> $$ x", "> $$ y = y \\tag{7.1} $$\n>\n> $$ x")),
    ("numbering", replace(6, "Figure 7.1", "Figure 7.3")),
    ("numbering", replace(3, "### Theorem", "## Theorem")),
    ("numbering", replace(3, "Theorem 7.1 (", "Theorem 7.1a (")),
    ("numbering", replace(3, " (One is one)", "")),
    ("references", replace(3, "By (7.1)", "By (7.9)")),
    ("references", replace(7, "Never", "By Lemma 7.1")),
    ("references", replace(7, "Never", "See Figure 7.2")),
    ("references", replace(7, "Never", "By Theorems 7.1 and 7.2")),
    ("references", replace(7, "Never", "By Theorem 7.1 or 7.1")),
    ("references", replace(7, "Never", "By Theorems 7.1")),
    ("references", replace(7, "Never", "By Lemma 2.1")),
    ("references", replace(7, "Never", "By Exercise 7.9")),
    ("references", replace(7, "Never", "By (2.1)")),
    ("references", replace(4, "x = 1", "x = 1  # by (7.2)")),
    ("references", replace(4, "x = 1", 'x = 1\n"""As in Theorem 7.2."""')),
    ("sets_equal", metadata(4, tags=[])),
    ("sets_equal", metadata(4, tags=["check-7.2"])),
    ("sets_equal", replace(3, "### Theorem 7.1 (One is one)", "### One is one")),
    ("statements_complete", replace(3, "> For every $x$,\n>\n> $$", "For every $x$,\n\n$$")),
    (
        "statements_complete",
        replace(3, "**Proof.** By (7.1) and [a reference](references.md#liu-2024). $\\square$", ""),
    ),
    ("checks_assert", replace(4, "assert x == 1", "x == 1")),
    ("checks_assert", move_check_up),
    ("exercises", replace(8, "**Exercise 7.5**", "**Example 7.5**")),
    ("exercises", replace(8, "**Exercise 7.2**", "**Exercise 7.3**")),
    ("exercises", replace(8, "<details><summary>Solution</summary>\n\nAs", "As")),
    ("exercises", replace(9, "assert x", "x")),
    ("exercises", replace(9, "Solution 7.1", "Solution 7.8")),
    ("exercises", replace(9, "# @title", "# title")),
    ("exercises", metadata(9, tags=["hide-cell"], jupyter={"source_hidden": True})),
    ("exercises", metadata(9, tags=["hide-cell"], cellView="form")),
    ("exercises", metadata(9, **FOLDED)),
    ("links", replace(3, "#liu-2024", "#liu-2023")),
    ("links", replace(3, "references.md", "reference.md")),
    ("links", replace(8, "#theorem-7-1", "#theorem-7-2")),
    ("links", replace(7, "Never", "![](references.md)")),
    ("links", replace(8, "#theorem-7-1", "#a-section")),
    ("portable", replace(7, "Never.", "```{note}\nNever.\n```")),
    ("portable", replace(7, "Never.", ":::{note}\nNever.\n:::")),
    ("portable", replace(7, "Never", "See {ref}`that`")),
    ("portable", replace(7, "Never.", "(here)=\nNever.")),
    ("portable", replace(7, "Never.", "$\\newcommand{\\E}{E}$")),
    ("portable", replace(7, "Never.", "$$ x \\label{eq} $$")),
    ("portable", replace(7, "Never.", "Never.[^1]")),
    ("portable", replace(7, "Never", "$\x0crac12$")),
    ("portable", replace(7, "Never.", "Never:\n$$ x $$")),
    ("portable", replace(7, "Never.", "Never.\n\n$$\nx\n$$\nand\n$$\ny\n$$")),
    ("portable", replace(3, "$x$", "$x\n> y$")),
    ("portable", replace(3, "x = x", "x\n> = x")),
    ("portable", replace(7, "Never.", "As $x\n+ y$.")),
    ("portable", replace(7, "Never.", "As $x\n=\ny$.")),
    ("portable", replace(7, "Never.", "As $x\n> y$.")),
    ("portable", replace(7, "Never.", "As $x \\text{ of\nall}$.")),
    ("portable", replace(7, "Never.", "Never, because\n\nNow.")),
    ("portable", replace(6, "*Figure 7.1. A line.*", "and so on.\n\n*Figure 7.1. A line.*")),
    ("normal_form", replace(1, "import sys", "import os")),
    ("normal_form", drop(1)),
    ("normal_form", replace(3, ' <a id="theorem-7-1"></a>', "")),
    ("normal_form", store_output),
    ("normal_form", lambda notebook: notebook.metadata.update(colab={})),
    ("normal_form", metadata(2, scrolled=True)),
    ("figures", metadata(5)),
    ("figures", metadata(5, mystnb={"image": {"alt": "a line"}})),
    ("figures", drop(6)),
    ("figures", replace(6, "*Figure 7.1.", "*Picture.")),
    ("lengths", lengthen(30, [4])),
    ("lengths", lengthen(9, [2, 4, 5])),
    ("lengths", lengthen(16, [4])),
    ("imports", replace(2, "import matplotlib.pyplot as plt", "import pandas as plt")),
    ("imports", replace(4, "x = 1", "import numpy as np\nx = 1")),
    ("documented", replace(4, "x = 1", "def one():\n    return 1\n\n\nx = 1")),
    ("machine_paths", replace(4, "x = 1", "x = 1  # as in /home/me/data")),
]


@pytest.mark.parametrize(("check", "change"), SEEDED, ids=[f"{i}-{s[0]}" for i, s in enumerate(SEEDED)])
def test_walk_finds_seeded_fault(book, check, change):
    found = faults(*book(change))
    assert any(fault.startswith(f"{check}: ") for fault in found), found


def test_walk_finds_missing_test(book):
    assert faults(*book(), tests={}) == ["sets_equal: 7.1 has no test"]


def test_walk_finds_test_without_statement(book):
    tests = {"7.1": ["a::b"], "7.2": ["a::c"], "8.1": ["a::d"]}
    found = faults(*book(), tests=tests)
    assert found == ["sets_equal: 7.2 has no statement", "sets_equal: 7.2 has no check cell"]
