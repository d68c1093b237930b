"""Builds a small book with the Sphinx extension, and one with faults."""

import json
import subprocess
import sys
import zlib

import nbformat
import pytest
import statements

INDEX = "# Book\n\n```{toctree}\nbook/07_sample\nbook/references\nbook/statements\nbook/how_built\n```\n"
CONFIGURATION = f"""\
import sys
sys.path.insert(0, {str(statements.BOOK / "tools")!r})
extensions = ["myst_nb", "sphinx_balance"]
exclude_patterns = ["build"]
html_theme = "basic"
myst_dmath_double_inline = True
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
myst_heading_slug_func = "statements.slug"
nb_execution_mode = "off"
"""
STATUS = {"chapters": {"07_sample": {"key": "k", "date": "2030-01-02", "seconds": 3.21}}}
TEST = 'import pytest\n@pytest.mark.statement("7.1")\ndef test_one(): pass\n'
PLANTED = 2 * '[[plant]]\nstatement = "7.1"\nerror = "two is one"\npackage = ["a.py", "1", "2"]\n'
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def display(**data):
    return [nbformat.v4.new_output("display_data", {key.replace("_", "/"): data[key] for key in data})]


@pytest.fixture
def build(book, tmp_path):
    """Build the sample chapter, after a change; return the messages and the folder of the pages."""

    def run(change=lambda notebook: None):
        path, notebook = book()
        notebook.cells[5].outputs = display(image_png=PIXEL)
        change(notebook)
        files = {
            "conf.py": CONFIGURATION,
            "index.md": INDEX,
            "book/07_sample.ipynb": nbformat.writes(notebook),
            "book/references.md": path.with_name("references.md").read_text(),
            "book/statements.md": "# Statements\n\n## All statements\n",
            "book/how_built.md": "# How\n\n## This build\n",
            "build/executed/status.json": json.dumps(STATUS),
            "tests/test_sample.py": TEST,
            "tests/planted/07_sample.toml": PLANTED,
        }
        for name, text in files.items():
            file = tmp_path / "source" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        command = [sys.executable, "-m", "sphinx", "-q", "-n", "-W", "--keep-going"]
        folders = [str(tmp_path / "source"), str(tmp_path / "html")]
        done = subprocess.run(command + folders, capture_output=True, text=True)
        assert (done.returncode == 0) == (done.stderr == "")
        return done.stderr, tmp_path / "html"

    return run


def test_extension_on_a_good_chapter(build):
    messages, html = build()
    assert messages == ""
    chapter = (html / "book" / "07_sample.html").read_text()
    assert '<section class="statement statement-theorem" id="theorem-7-1">' in chapter
    assert 'id="check-7-1"' in chapter
    assert 'Check of <a class="reference internal" href="#theorem-7-1">Theorem 7.1</a>' in chapter
    assert 'href="references.html#liu-2024"' in chapter
    assert r"\[ x = x \tag{7.1} \]" in chapter
    assert 'alt="A line that rises from left to right"' in chapter
    listed = (html / "book" / "statements.html").read_text()
    for part in ("07_sample.html#theorem-7-1", "07_sample.html#check-7-1", "<p>2</p>", "2030-01-02"):
        assert part in listed
    assert "test_sample.py::test_one" in listed
    built = (html / "book" / "how_built.html").read_text()
    assert "2030-01-02" in built
    assert "3.2" in built
    inventory = zlib.decompress((html / "objects.inv").read_bytes().split(b"zlib.\n")[1]).decode()
    assert "Theorem 7.1 (One is one) balance:statement 1 book/07_sample.html#theorem-7-1 -" in inventory


def test_mentions_become_links(build):
    def mention(notebook):
        notebook.cells[
            7
        ].source = "## When it fails\n\nBy Theorems\n7.1 and 7.2, (7.1), Figure 7.1 and Exercise 7.2, `(7.1)`."

    messages, html = build(mention)
    assert messages == ""
    chapter = (html / "book" / "07_sample.html").read_text()
    paragraph = chapter.partition("<p>By ")[2].partition("</p>")[0]
    for anchor, name in (
        ("theorem-7-1", "Theorems\n7.1"),
        ("equation-7-1", "(7.1)"),
        ("figure-7-1", "Figure 7.1"),
        ("exercise-7-2", "Exercise 7.2"),
    ):
        assert f'<a class="reference internal" href="#{anchor}">{name}</a>' in paragraph
        assert chapter.count(f'id="{anchor}"') == 1
    assert paragraph.count("<a ") == 4
    assert "<em>Figure 7.1. A line.</em>" in chapter


def test_source_that_was_not_rendered_fails_the_build(build):
    def spoil(notebook):
        notebook.cells[7].source = "## When it fails\n\nAs $\\frac12\n+ x$ says."

    messages, _ = build(spoil)
    assert "not rendered" in messages


def test_faults_fail_the_build_each_time(build):
    def spoil(notebook):
        notebook.cells[2].outputs = display(text_html='<img src="a.png">')
        notebook.cells[3].source = notebook.cells[3].source.replace("#liu-2024", "#liu-2023")
        notebook.cells[5].metadata = {}
        notebook.cells[8].source = notebook.cells[8].source.replace("#theorem-7-1", "#theorem-7-2")

    for _ in range(2):
        messages, _ = build(spoil)
        assert messages.count("figure without alternative text") == 2
        assert "liu-2023" in messages
        assert "theorem-7-2" in messages
