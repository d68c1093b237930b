"""Read the chapters: their numbered statements, with the checks and tests of these.

Shared by the Sphinx extension, the walker in tests/test_book.py and the other tools.
"""

import ast
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
KINDS = ("Theorem", "Proposition", "Lemma", "Corollary", "Counterexample")
NAME = re.compile(rf"({'|'.join(KINDS)}) (\d+)\.(\d+)")
HEADING = re.compile(rf"^### {NAME.pattern} \((.+)\)$", re.MULTILINE)
CAPTION = re.compile(r"(?:^\*|caption=\"\*?)Figure (\d+\.\d+)\.", re.MULTILINE)
CHECK = re.compile(r"check-(\d+\.\d+)")
HTML_ID = re.compile(r"""<\w+[^>]*\sid=["']([^"']+)["']""")


@dataclass(frozen=True)
class Statement:
    """A numbered statement of a chapter."""

    kind: str
    number: str
    title: str

    @property
    def name(self) -> str:
        return f"{self.kind} {self.number}"

    @property
    def anchor(self) -> str:
        return slug(self.name)

    @property
    def check_anchor(self) -> str:
        return f"check-{self.number.replace('.', '-')}"


def chapter_paths(book: Path = BOOK) -> list[Path]:
    """The chapters, in the order in which they are read."""
    return sorted(book.glob("[0-9][0-9]_*.ipynb"))


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def markdown(notebook) -> str:
    """The prose of a chapter, its cells separated by a blank line."""
    cells = (c.source for c in notebook.cells if c.cell_type == "markdown")
    return "\n\n".join(cells) + "\n"


def prose(text: str) -> str:
    """The text without fenced code, in which nothing is a heading or a link."""
    return re.sub(r"^(`{3,}|~{3,}).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)


def statements(text: str) -> list[Statement]:
    """The numbered statements of a text, in its order."""
    found = HEADING.finditer(prose(text))
    return [Statement(m[1], f"{m[2]}.{m[3]}", m[4]) for m in found]


def checks(notebook) -> dict[str, int]:
    """Number of a statement -> index of the cell that checks it."""
    found = {}
    for index, cell in enumerate(notebook.cells):
        for tag in cell.metadata.get("tags", []):
            if match := CHECK.fullmatch(tag):
                found[match[1]] = index
    return found


def tests(folder: Path = ROOT / "tests") -> dict[str, list[str]]:
    """Number of a statement -> `file::function` of each test that is marked with it.

    Files are named from the folder of the tests on.
    """
    found: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("test_*.py")):
        name = path.relative_to(folder).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            for mark in getattr(node, "decorator_list", []):
                if (
                    isinstance(mark, ast.Call)
                    and ast.unparse(mark.func) == "pytest.mark.statement"
                ):
                    for number in map(ast.literal_eval, mark.args):
                        found.setdefault(number, []).append(f"{name}::{node.name}")
    return found


def slug(title: str) -> str:
    """The anchor of a heading: `theorem-2-3` for a statement, else as on code hosts."""
    if match := NAME.match(title):
        return "-".join(match.groups()).lower()
    return re.sub(r"[^\w\- ]", "", title.lower().replace(" ", "-"))


def anchors(text: str) -> set[str]:
    """What a link may point to in a text: its headings and its HTML ids."""
    text = prose(text)
    headings = re.findall(r"^#{1,4} (.+?)\s*$", text, flags=re.MULTILINE)
    plain = (re.sub(r"\$[^$]*\$|[*_`]", "", heading) for heading in headings)
    return {slug(heading) for heading in plain} | set(HTML_ID.findall(text))


@dataclass
class Chapter:
    """A notebook with what its checks need to know about its surroundings."""

    path: Path
    notebook: nbformat.NotebookNode
    tests: dict[str, list[str]] = field(default_factory=dict)

    @property
    def cells(self) -> list:
        return self.notebook.cells

    @property
    def number(self) -> str:
        return str(int(self.path.name[:2]))

    @cached_property
    def code(self) -> list:
        """The code cells, without the setup cell."""
        code = (c for c in self.cells if c.cell_type == "code")
        return [c for c in code if "setup" not in c.metadata.get("tags", [])]

    @cached_property
    def text(self) -> str:
        return prose(markdown(self.notebook))

    @cached_property
    def figures(self) -> list[str]:
        """The numbers of the captions, below figures and in the calls of sliders."""
        return [m for cell in self.cells for m in CAPTION.findall(cell.source)]

    @cached_property
    def statements(self) -> list[Statement]:
        return statements(self.text)

    def after(self, statement: Statement) -> str:
        """The text from below a statement's heading to the next heading."""
        heading = f"### {statement.name} ({statement.title})"
        return re.split(r"^#+ ", self.text.split(heading)[1], flags=re.MULTILINE)[0]
