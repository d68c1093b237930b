"""Number statements, equations, figures and exercises in the order of the text.

A number is a label until this runs: a new theorem is written with any label that no
other has, such as Theorem 2.3a, and what moves keeps its old one. Then every mention in
the book, the package and the tests is rewritten, with its links, check cells and marks.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
from statements import (
    BOOK,
    EQUATION,
    KINDS,
    NUMBER,
    ROOT,
    Chapter,
    chapter_paths,
    family,
    mentions,
    read,
    remarks,
)

FOLDERS = ("balance", "benchmarks", "book", "experiments", "tests")
# These hold numbers of a chapter that does not exist.
SAMPLES = ("conftest.py", "test_book.py", "test_sphinx.py", "test_tools.py")
ANCHORED = "|".join(KINDS).lower()
LINK = re.compile(rf"(\]\([\w./-]*?)([\w-]*\.ipynb)?#({ANCHORED})-(\d+)-(\d+[a-z]?)\)")
ANCHOR = re.compile(rf"\b({ANCHORED}|check)-(\d+)-(\d+[a-z]?)\b")
LABEL = re.compile(
    rf"(?:check-|statement\(\"|statement = \"|@title Solution )({NUMBER})\b"
)


@dataclass
class Numbering:
    """For each family, label -> number; for each statement, its chapter."""

    numbers: dict[str, dict[str, str]]
    chapters: dict[str, str]

    def new(self, family: str, label: str) -> str:
        return self.numbers[family].get(label, label)


def numbering(paths: list[Path]) -> Numbering:
    """The number that is due to each label, by the order of the chapters."""
    numbers = {f: {} for f in ("Statement", "Equation", "Figure", "Exercise")}
    chapters = {}
    for path in paths:
        chapter = Chapter(path, read(path))
        count = Counter()
        for kind, label in chapter.numbered:
            known = numbers[family(kind)]
            if label in known:
                raise ValueError(
                    f"{family(kind)} {label} occurs twice, again in {path.name}: "
                    "give one a label with a letter"
                )
            count[family(kind)] += 1
            known[label] = f"{chapter.number}.{count[family(kind)]}"
        chapters |= {s.number: path.name for s in chapter.statements}
    return Numbering(numbers, chapters)


def rewrite_mentions(text: str, known: Numbering) -> str:
    """The text with the new numbers where it mentions the old ones."""
    for m in sorted(mentions(text), key=lambda m: -m.number_at):
        new = known.new(m.family, m.number)
        text = text[: m.number_at] + new + text[m.number_at + len(m.number) :]
    return text


def rewrite_labels(text: str, known: Numbering, file: str) -> str:
    """The text with the new numbers in links, anchors, tags and marks."""

    def anchor(kind: str, chapter: str, number: str) -> str:
        new = known.new("Statement", f"{chapter}.{number}")
        return f"{kind}-{new.replace('.', '-')}"

    def link(m: re.Match) -> str:
        """A link to a statement, with the chapter in which it now stands."""
        home = known.chapters.get(f"{m[4]}.{m[5]}", m[2] or "")
        target = "" if home == file else home
        return f"{m[1]}{target}#{anchor(*m.groups()[2:])})"

    def label(m: re.Match) -> str:
        family = "Exercise" if "Solution" in m[0] else "Statement"
        return m[0].replace(m[1], known.new(family, m[1]))

    text = LINK.sub(link, text)
    # links are done: a number that one of them just got must not be changed again
    parts = re.split(rf"(\]\([^)]*#(?:{ANCHORED})-[\w-]+\))", text)
    parts[::2] = [ANCHOR.sub(lambda m: anchor(*m.groups()), p) for p in parts[::2]]
    text = LABEL.sub(label, "".join(parts))
    return EQUATION.sub(lambda m: rf"\tag{{{known.new('Equation', m[1])}}}", text)


def in_comments(code: str, change: Callable[[str], str]) -> str:
    """The code with its comments and strings changed."""
    pieces, at = [], 0
    for first, last in remarks(code):
        pieces += [code[at:first], change(code[first:last])]
        at = last
    return "".join([*pieces, code[at:]])


def rewrite(value, change: Callable[[str], str]):
    """The metadata of a cell with every string changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {k: rewrite(v, change) for k, v in value.items()}
    return [rewrite(v, change) for v in value] if isinstance(value, list) else value


def renumbered(path: Path, known: Numbering) -> str:
    """The text of a file with the new numbers."""

    def prose(text: str) -> str:
        return rewrite_labels(rewrite_mentions(text, known), known, path.name)

    def code(text: str) -> str:
        text = in_comments(text, lambda t: rewrite_mentions(t, known))
        return rewrite_labels(text, known, path.name)

    text = path.read_text()
    if path.suffix == ".ipynb":
        notebook = nbformat.reads(text, as_version=4)
        for cell in notebook.cells:
            setup = "setup" in cell.metadata.get("tags", [])
            is_code = cell.cell_type == "code" and not setup
            cell.source = (code if is_code else prose)(cell.source)
            cell.metadata = nbformat.from_dict(rewrite(cell.metadata, prose))
        return nbformat.writes(notebook) + "\n"
    return code(text) if path.suffix == ".py" else prose(text)


def files(root: Path) -> list[Path]:
    """All that may mention a number."""
    found = [p for f in FOLDERS for p in root.joinpath(f).rglob("[!.]*")]
    found = [p for p in found if ".ipynb_checkpoints" not in p.parts]
    kinds = (".ipynb", ".md", ".py", ".toml")
    kept = [p for p in found if p.suffix in kinds and p.name not in SAMPLES]
    return sorted({*kept, *root.glob("README.md")})


def main(root: Path = ROOT) -> None:
    known = numbering(chapter_paths(root / BOOK.relative_to(ROOT)))
    for path in files(root):
        before, after = path.read_text(), renumbered(path, known)
        if after != before:
            path.write_text(after)
            print(f"{path.relative_to(root)}: rewritten")
    for name, numbers in known.numbers.items():
        moved = sum(old != new for old, new in numbers.items())
        print(f"{name}: {len(numbers)} numbers, {moved} new")


if __name__ == "__main__":
    main()
