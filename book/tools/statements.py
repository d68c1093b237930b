"""Read the chapters: their numbered statements, with the checks and tests of these.

Shared by the Sphinx extension, the walker in tests/test_book.py and the other tools.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
KINDS = ("Theorem", "Proposition", "Lemma", "Corollary", "Counterexample")
# What is new has a letter, as in Theorem 2.3a, until `make renumber` numbers it.
NUMBER = r"\d+\.\d+[a-z]?"
NAME = re.compile(rf"({'|'.join(KINDS)}) (\d+)\.(\d+[a-z]?)")
# The anchor behind a heading is for Jupyter, which makes another one of its own.
HEADING = re.compile(r"^(#{1,6}) (.+?)(?: <a id=.*)?[ \t]*$", re.MULTILINE)
TITLED = re.compile(rf"{NAME.pattern} \((.+)\)")
EQUATION = re.compile(rf"\\tag\{{({NUMBER})\}}")
CAPTION = re.compile(rf"(?:^\*|caption=\"\*?)Figure ({NUMBER})\.", re.MULTILINE)
EXERCISE = re.compile(rf"^\*\*Exercise ({NUMBER})\*\*", re.MULTILINE)
CHECK = re.compile(rf"check-({NUMBER})")
HTML_ID = re.compile(r"""<\w+[^>]*\sid=["']([^"']+)["']""")
SINGULAR = {"Corollarie": "Corollary"}
# "Theorem 4.3", "Theorems 2.2, 2.3 (a) and 2.5", "Figures 4.1 to 4.3"
MENTION = re.compile(
    rf"\b({'|'.join(KINDS)}|Corollarie|Figure|Exercise)(s?)\s+"
    rf"({NUMBER}(?:(?:\s\([a-z]\))?"
    rf"(?:,\s(?:(?:and|or)\s)?|\s(?:and|or|to)\s|–|-){NUMBER})*)"
)
# "(4.12)", but no argument of a function and no entry of a list of numbers
EQUATION_MENTION = re.compile(rf"(?<![\w)\]}}])\(({NUMBER})\)")


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
    titles = (h[2] for h in HEADING.finditer(prose(text)) if h[1] == "###")
    found = filter(None, map(TITLED.fullmatch, titles))
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


def family(kind: str) -> str:
    """The things that are numbered together."""
    return "Statement" if kind in KINDS else kind or "Equation"


@dataclass(frozen=True)
class Mention:
    """A place in a text that names a numbered thing."""

    kind: str  # one of KINDS, "Figure", "Exercise", or "" for an equation
    number: str
    start: int  # of what a link would cover
    number_at: int
    end: int
    plural: bool = False  # whether it is one of a list
    proper: bool = True  # whether the word before it fits: "Theorems 2.2 and 2.3"

    @property
    def family(self) -> str:
        return family(self.kind)


def mentions(text: str) -> Iterator[Mention]:
    """All mentions of statements, figures, exercises and equations, in plain text."""
    for found in MENTION.finditer(text):
        kind = SINGULAR.get(found[1], found[1])
        numbers = list(re.finditer(NUMBER, found[3]))
        several, first = len(numbers) > 1, found.start()
        proper = several == (found[2] == "s")
        for number in numbers:
            at, end = (found.start(3) + k for k in number.span())
            start = first if number is numbers[0] else at
            yield Mention(kind, number[0], start, at, end, several, proper)
    for found in EQUATION_MENTION.finditer(text):
        yield Mention("", found[1], found.start(), found.start(1), found.end())


def remarks(code: str) -> Iterator[tuple[int, int]]:
    """Where in a piece of code its comments and strings stand."""
    starts = [0, *accumulate(map(len, code.splitlines(keepends=True)))]
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            (row, column), (last, end) = token.start, token.end
            yield starts[row - 1] + column, starts[last - 1] + end


def slug(title: str) -> str:
    """The anchor of a heading: `theorem-2-3` for a statement, else as on code hosts."""
    if match := NAME.match(title):
        return "-".join(match.groups()).lower()
    return re.sub(r"[^\w\- ]", "", title.strip().lower().replace(" ", "-"))


def plain(heading: str) -> str:
    """A heading without formulas and type."""
    return re.sub(r"\$[^$]*\$|[*_`]", "", heading)


def anchors(text: str) -> set[str]:
    """What a link may point to in a text: its headings and its HTML ids."""
    text = prose(text)
    # deeper headings have none: `myst_heading_anchors` in _config.yml
    linked = [h[2] for h in HEADING.finditer(text) if len(h[1]) <= 4]
    return {slug(plain(title)) for title in linked} | set(HTML_ID.findall(text))


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

    @property
    def numbered(self) -> list[tuple[str, str]]:
        """All that has a number, as pairs of kind and number, each kind in order."""
        found = [(s.kind, s.number) for s in self.statements]
        found += [("", number) for number in EQUATION.findall(self.text)]
        found += [("Figure", number) for number in self.figures]
        return found + [("Exercise", n) for n in EXERCISE.findall(self.text)]

    def after(self, statement: Statement) -> str:
        """The text from below a statement's heading to the next heading."""
        heading = f"### {statement.name} ({statement.title})"
        rest = self.text.split(heading)[1].partition("\n")[2]
        return re.split(r"^#+ ", rest, flags=re.MULTILINE)[0]
