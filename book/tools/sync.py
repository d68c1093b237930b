"""Write the first code cell of each chapter; bring the notebooks into their one form.

The address of the repository stands in _config.yml and nowhere else.
"""

import re
from functools import cache

import nbformat
import yaml
from statements import (
    BOOK,
    HEADING,
    NAME,
    ROOT,
    chapter_paths,
    markdown,
    plain,
    read,
    slug,
)

SETUP = """\
# Find this book's package `balance`, or say how to get it.
import importlib.util
import subprocess
import sys

REPOSITORY, EXTRAS = "{url}", "[{extras}]"
if importlib.util.find_spec("balance") is None:
    if not REPOSITORY:
        raise ImportError(f"In a clone, run `pip install '.{{EXTRAS}}'` and restart.")
    wanted = f"benefits-of-balance{{EXTRAS}} @ git+{{REPOSITORY}}"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", wanted], check=True)
    importlib.invalidate_caches()
if not hasattr(importlib.import_module("balance"), "data_balance"):
    other = "This `balance` is another package, for survey weights. Uninstall it, and "
    raise ImportError(other + "install ours: the distribution `benefits-of-balance`.")\
"""
# What a chapter installs beyond `book`, by the number in the name of its file.
EXTRAS = {"07": "book,learn", "08": "book,learn", "09": "book,learn,curation"}
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def setup_source(name: str) -> str:
    """The setup cell of the notebook of this name, with the address of _config.yml."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    extras = EXTRAS.get(name[:2], "book")
    return SETUP.format(url=config["repository"]["url"], extras=extras)


def setup_cell(notebook) -> nbformat.NotebookNode:
    """The cell tagged `setup`; a new one after the title if there is none."""
    for cell in notebook.cells:
        if "setup" in cell.metadata.get("tags", []):
            return cell
    notebook.cells.insert(1, nbformat.v4.new_code_cell(id="setup"))
    return notebook.cells[1]


@cache
def targets() -> frozenset[tuple[str, str]]:
    """The anchors that the book links to, with the files in which they stand."""
    texts = {path.name: path.read_text() for path in BOOK.glob("*.md")}
    texts |= {path.name: markdown(read(path)) for path in chapter_paths()}
    return frozenset(
        (file or home, anchor)
        for home, text in texts.items()
        for file, anchor in re.findall(r"\]\(([\w.-]*)#([\w-]+)\)", text)
    )


def linked(name: str) -> set[str]:
    """The anchors in the chapter of this name that the book links to."""
    return {anchor for file, anchor in targets() if file == name}


def anchor_headings(text: str, wanted: set[str]) -> str:
    """The text with the anchors that make links to its headings work in Jupyter.

    All statements have one, and the sections that are linked.
    """

    def anchored(heading: re.Match) -> str:
        anchor = slug(plain(heading[2]))
        needed = NAME.match(heading[2]) or anchor in wanted
        mark = f' <a id="{anchor}"></a>' if needed else ""
        return f"{heading[1]} {heading[2]}{mark}"

    return HEADING.sub(anchored, text)


def synchronize(text: str, source: str, wanted: set[str] = frozenset()) -> str:
    """The notebook with this setup cell, anchors, no outputs, the metadata we use."""
    notebook = nbformat.reads(text, as_version=4)
    cell = setup_cell(notebook)
    cell.source = source
    cell.metadata = {"tags": ["setup", "hide-input"]}
    notebook.metadata = METADATA
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for cell in notebook.cells:
        cell.setdefault("id", nbformat.corpus.words.generate_corpus_id())
        cell.pop("attachments", None)
        for key in set(cell.metadata) - {"tags", "mystnb", "jupyter", "cellView"}:
            del cell.metadata[key]
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        elif cell.cell_type == "markdown":
            cell.source = anchor_headings(cell.source, wanted)
    return nbformat.writes(notebook) + "\n"


def main() -> None:
    for path in chapter_paths():
        before = path.read_text()
        after = synchronize(before, setup_source(path.name), linked(path.name))
        if after != before:
            path.write_text(after)
            print(f"{path.name}: rewritten")


if __name__ == "__main__":
    main()
