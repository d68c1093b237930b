"""What must be true of every chapter, beyond that it runs.

Each check takes a chapter and yields its faults, one sentence each.
"""

import ast
import re
import statistics
import sys
from collections.abc import Callable, Iterator
from functools import cache
from itertools import zip_longest
from pathlib import Path

import statements
import sync
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from statements import EQUATION, EXERCISE, Chapter

ALLOWED = {
    "balance",
    "matplotlib",
    "numpy",
    "scipy",
    "sklearn",
    "torch",
} | sys.stdlib_module_names
SECTIONS = ("When it fails", "Exercises", "Summary", "Further reading")
SOLUTION_START = "<details><summary>Solution</summary>\n\n"
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<!\\)\$((?:[^$\\]|\\.)+?)\$", re.DOTALL)
# as the book is configured in _config.yml
MARKDOWN = MarkdownIt("commonmark").enable("table")
MARKDOWN.use(dollarmath_plugin, double_inline=True)
WORDS = re.compile(r"\\(?:text|operatorname|mathrm)\{[^{}]*\n")
SENTENCE_END = (*".:?!)", "$$", "$\\square$", "</details>")
CONTINUED = ("$$", "(", "- ", "1.", "|", "```")  # what may stand within a sentence
UNPORTABLE = {
    "a directive": r"^(```|~~~|:::+)\s*\{",
    "a role": r"\{[a-z:]+\}`",
    "a target": r"^\([\w-]+\)=\s*$",
    "a macro": r"\\(newcommand|renewcommand|def|DeclareMathOperator)\b",
    "a label that only some readers number": r"\\(label|eqref|ref)\{",
    "a footnote": r"\[\^\w+\]",
    "a control character, as of a lost backslash,": r"[\x00-\x09\x0b-\x1f]",
}
MACHINE_PATH = re.compile(
    r"(?<![\w.])/(home|root|tmp|usr|work|Users)/|\b[A-Z]:\\\\?[A-Z]"
)
DRAWING_CALL = re.compile(r"(plt|pyplot|plotting)\.(?!use_style|rcParams|close)\w+$")


def in_order(chapter: Chapter, kind: str, numbers: list[str]) -> Iterator[str]:
    """Numbers must be N.1, N.2, ... in the order of the text."""
    expected = [f"{chapter.number}.{i + 1}" for i in range(len(numbers))]
    for number, wanted in zip(numbers, expected, strict=True):
        if number != wanted:
            yield f"{kind} {number} stands where {wanted} is due"
            return


def structure(chapter: Chapter) -> Iterator[str]:
    first = chapter.cells[0].source
    if not first.startswith(f"# {chapter.number}. "):
        yield f"the first cell does not begin with the title '# {chapter.number}. ...'"
    for mark in ("**You will learn**", "**You need**"):
        if mark not in first:
            yield f"the first cell lacks {mark}"
    found = statements.HEADING.finditer(chapter.text)
    headings = [heading[2] for heading in found if heading[1] == "##"]
    for section in SECTIONS:
        if section not in headings:
            yield f"there is no section '## {section}'"
    if len(re.findall(r"^# ", chapter.text, flags=re.MULTILINE)) != 1:
        yield "there is more than one title"


def numbering(chapter: Chapter) -> Iterator[str]:
    yield from in_order(chapter, "statement", [s.number for s in chapter.statements])
    yield from in_order(chapter, "equation", EQUATION.findall(chapter.text))
    yield from in_order(chapter, "figure", chapter.figures)
    for heading in statements.HEADING.finditer(chapter.text):
        level, title = heading.groups()
        stated = level == "###" and statements.TITLED.fullmatch(title)
        if statements.NAME.match(title) and not stated:
            yield f"the heading {title!r} is not of the form '### Kind N.k (Title)'"


@cache
def numbered(folder: Path) -> frozenset[tuple[str, str]]:
    """All that the chapters of a folder number, as pairs of kind and number."""
    chapters = (
        Chapter(p, statements.read(p)) for p in statements.chapter_paths(folder)
    )
    return frozenset(pair for chapter in chapters for pair in chapter.numbered)


def wrong_mentions(text: str, known: frozenset[tuple[str, str]]) -> Iterator[str]:
    """Mentions, one by one and in lists, of what is not there."""
    for mention in statements.mentions(text):
        name = f"{mention.kind} {mention.number}".strip()
        if (mention.kind, mention.number) not in known:
            yield f"{name} is mentioned but there is none"
        elif not mention.proper:
            yield f"{name}: singular before a list, or plural before a single number"


def references(chapter: Chapter) -> Iterator[str]:
    """Numbers that the text and the code mention must exist."""
    known = numbered(chapter.path.parent)
    yield from wrong_mentions(FORMULA.sub("", without_code(chapter.text)), known)
    for cell in chapter.code:
        yield from wrong_mentions(remarks(cell.source), known)


def remarks(code: str) -> str:
    """The comments and the strings of a piece of code."""
    return "\n".join(code[first:last] for first, last in statements.remarks(code))


def sets_equal(chapter: Chapter) -> Iterator[str]:
    """Statements, check cells and marked tests must be the same set."""
    stated = {s.number for s in chapter.statements}
    checked = set(statements.checks(chapter.notebook))
    tested = {n for n in chapter.tests if n.split(".")[0] == chapter.number}
    for number in sorted(stated | checked | tested):
        for have, what in (
            (stated, "statement"),
            (checked, "check cell"),
            (tested, "test"),
        ):
            if number not in have:
                yield f"{number} has no {what}"


def statements_complete(chapter: Chapter) -> Iterator[str]:
    for statement in chapter.statements:
        rest = chapter.after(statement).lstrip("\n")
        if not rest.startswith("> "):
            yield f"{statement.name} is not followed by a blockquote that states it"
            continue
        below = re.sub(r"^(>.*\n)+", "", rest)
        proved = "**Proof" in below and "\\square" in below
        if not proved and "references.md#" not in below:
            yield f"{statement.name} has neither a proof with a square nor a citation"


def checks_assert(chapter: Chapter) -> Iterator[str]:
    found = statements.checks(chapter.notebook)
    for statement in chapter.statements:
        index = found.get(statement.number)
        if index is None:
            continue
        above = "\n\n".join(
            c.source for c in chapter.cells[:index] if c.cell_type == "markdown"
        )
        if statement not in statements.statements(above):
            yield f"the check of {statement.number} stands before its statement"
        tree = ast.parse(chapter.cells[index].source)
        if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
            yield f"the check of {statement.number} contains no assert"


def exercises(chapter: Chapter) -> Iterator[str]:
    """Five to eight, each with a solution before the next; code there asserts."""
    numbers = EXERCISE.findall(chapter.text)
    yield from in_order(chapter, "exercise", numbers)
    if not 5 <= len(numbers) <= 8:
        yield f"there are {len(numbers)} exercises, not 5 to 8"
    for number, body in zip(numbers, EXERCISE.split(chapter.text)[2::2], strict=True):
        answer = re.split(r"^## ", body, flags=re.MULTILINE)[0]
        if SOLUTION_START not in answer or "\n\n</details>" not in answer:
            yield f"exercise {number} has no hidden solution"
    for cell in chapter.code:
        hidden = "hide-cell" in cell.metadata.get("tags", [])
        titled = re.match(rf"# @title Solution ({chapter.number}\.\d+)\n", cell.source)
        if hidden != bool(titled):
            yield f"cell {cell.id}: hide-cell and '# @title Solution N.k' go together"
        if titled:
            if titled[1] not in numbers:
                yield f"cell {cell.id} solves exercise {titled[1]}: there is none"
            folded = cell.metadata.get("jupyter", {}).get("source_hidden")
            if not folded or cell.metadata.get("cellView") != "form":
                yield f"cell {cell.id} is not folded in Jupyter and Colab"
            if "assert " not in cell.source:
                yield f"cell {cell.id}: a solution in code asserts its result"


def without_code(text: str) -> str:
    """The text without its code, in blocks and in lines."""
    return re.sub(r"`[^`]*`", "", statements.prose(text))


def page_links(path: Path, text: str) -> Iterator[str]:
    """Links of a page lead to a file, an anchor or another site; images have a text."""
    own = anchors_of(path)
    for bang, label, target in LINK.findall(without_code(text)):
        if bang and not label.strip():
            yield f"the image {target} has no alternative text"
        if re.match(r"(https?|mailto):", target):
            continue
        file, _, anchor = target.partition("#")
        if file and not (path.parent / file).is_file():
            yield f"the link {target} leads to no file"
        elif anchor and anchor not in (anchors_of(path.parent / file) if file else own):
            yield f"the link {target} leads to no anchor"


def anchors_of(path: Path) -> set[str]:
    """What a link may point to. Of a heading Jupyter makes another anchor than the book
    does: in a chapter only written ones, `## Title <a id="title"></a>`, work in both.
    """
    if path.suffix != ".ipynb":
        return statements.anchors(path.read_text())
    text = statements.prose(statements.markdown(statements.read(path)))
    return set(statements.HTML_ID.findall(text))


def links(chapter: Chapter) -> Iterator[str]:
    yield from page_links(chapter.path, statements.markdown(chapter.notebook))


def portable(chapter: Chapter) -> Iterator[str]:
    """Only Markdown that shows the same in Jupyter, Colab, code hosts and the book."""
    text = statements.markdown(chapter.notebook)
    for what, pattern in UNPORTABLE.items():
        if match := re.search(pattern, text, flags=re.MULTILINE):
            yield f"{what} shows as raw text outside the book: {match[0]!r}"
    for cell in (c for c in chapter.cells if c.cell_type == "markdown"):
        yield from same_formulas(cell)
        yield from torn(cell)
        lines = [line.lstrip("> ") for line in cell.source.splitlines()]
        inside = False
        for before, line in zip(["", *lines], lines, strict=False):
            if "$$" in line and not inside and before.strip():
                yield f"cell {cell.id}: no blank line before a displayed formula"
            inside ^= line.count("$$") % 2 == 1


def formulas_of_jupyter(source: str) -> list[str]:
    """Jupyter takes the formulas out of the text before it reads Markdown."""
    found = FORMULA.finditer(without_code(source))
    return [" ".join((m[1] or m[2]).split()) for m in found]


def formulas_of_book(source: str) -> list[str]:
    """The book reads Markdown first, with its quotations and lists."""
    blocks = MARKDOWN.parse(source)
    tokens = [t for block in blocks for t in (block, *(block.children or ()))]
    return [" ".join(t.content.split()) for t in tokens if t.type.startswith("math")]


def same_formulas(cell) -> Iterator[str]:
    """Line breaks within formulas can part the two ways of reading."""
    book, jupyter = formulas_of_book(cell.source), formulas_of_jupyter(cell.source)
    for ours, theirs in zip_longest(book, jupyter, fillvalue=""):
        if ours != theirs:
            yield f"cell {cell.id}: the book reads {ours!r}, Jupyter {theirs!r}"
            return
    if found := WORDS.search(cell.source):
        yield f"cell {cell.id}: words in a formula break their line: {found[0]!r}"


def torn(cell) -> Iterator[str]:
    """A cell does not begin within a sentence, and its paragraphs end with one."""
    if re.match(r"[a-z]", cell.source):
        yield f"cell {cell.id} begins within a sentence: {cell.source[:30]!r}"
    text = statements.prose(cell.source).strip()
    paragraphs = [p.strip("> \n") for p in re.split(r"\n(?:> *)?\n", text)]
    for paragraph, next_one in zip(paragraphs, [*paragraphs[1:], ""], strict=True):
        ended = paragraph.endswith(SENTENCE_END) or next_one.startswith(CONTINUED)
        if paragraph[:1].isalpha() and not ended:
            end = paragraph[-40:]
            yield f"cell {cell.id}: a paragraph ends within a sentence: {end!r}"


def normal_form(chapter: Chapter) -> Iterator[str]:
    """The file is what `make sync` writes: setup cell, no outputs, known metadata."""
    setup = sync.setup_source(chapter.path.name)
    first = next((c for c in chapter.cells if c.cell_type == "code"), None)
    if first is None or first.source != setup:
        yield "the first code cell is not the setup cell; run `make sync`"
    if any(c.get("outputs") or c.get("execution_count") for c in chapter.cells):
        yield "outputs are stored; run `make sync`"
    text = chapter.path.read_text()
    if text != sync.synchronize(text, setup, sync.linked(chapter.path.name)):
        yield "the notebook is not in its normal form; run `make sync`"


def draws(cell) -> bool:
    """Whether a cell calls something that draws, outside of functions it defines."""
    nodes = list(ast.parse(cell.source).body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Call) and DRAWING_CALL.match(ast.unparse(node.func)):
            return True
        if not isinstance(node, ast.FunctionDef | ast.Lambda):
            nodes.extend(ast.iter_child_nodes(node))
    return False


def figures(chapter: Chapter) -> Iterator[str]:
    """A figure has alternative text and a caption, below it or in the slider's call."""
    for cell, below in zip(chapter.cells, [*chapter.cells[1:], None], strict=True):
        if cell.cell_type != "code":
            continue
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        slider = re.search(r"^frames\(", cell.source, flags=re.MULTILINE)
        if draws(cell) and not slider and len(alt) < 20:
            yield f"cell {cell.id} draws without alternative text in mystnb.image.alt"
        captioned = any(statements.CAPTION.search(c.source) for c in (cell, below) if c)
        if (alt or slider) and not captioned:
            yield f"cell {cell.id} draws without a caption '*Figure N.k. ...*' below"


def lengths(chapter: Chapter) -> Iterator[str]:
    """Cells are short, imports apart: a reader takes in one idea at a time."""
    counts = {}
    for cell in chapter.code:
        imported = set()
        for node in ast.parse(cell.source).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                imported.update(range(node.lineno, (node.end_lineno or 0) + 1))
        lines = enumerate(cell.source.splitlines(), 1)
        counts[cell.id] = sum(bool(x.strip()) and i not in imported for i, x in lines)
    for cell, count in counts.items():
        if count > 30:
            yield f"cell {cell} has {count} lines, over 30"
    if counts and statistics.median(counts.values()) > 8:
        yield f"the median cell has {statistics.median(counts.values())} lines, over 8"
    short = sum(count <= 15 for count in counts.values())
    if short < 0.9 * len(counts):
        yield f"only {short} of {len(counts)} cells have at most 15 lines"


def imports(chapter: Chapter) -> Iterator[str]:
    """One cell of imports, after the setup cell, of what the package requires."""
    for place, cell in enumerate(chapter.code):
        for node in ast.walk(ast.parse(cell.source)):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                if place > 0:
                    yield f"cell {cell.id} imports {name}; the first cell does that"
                if name.split(".")[0] not in ALLOWED:
                    yield f"cell {cell.id} imports {name}, which we do not require"


def documented(chapter: Chapter) -> Iterator[str]:
    """A function that a chapter defines says in a line what it returns."""
    for cell in chapter.code:
        for node in ast.parse(cell.source).body:
            kinds = ast.FunctionDef | ast.ClassDef
            if isinstance(node, kinds) and not ast.get_docstring(node):
                yield f"cell {cell.id}: {node.name} has no docstring"


def machine_paths(chapter: Chapter) -> Iterator[str]:
    for cell in chapter.cells:
        if match := MACHINE_PATH.search(cell.source):
            yield f"cell {cell.id} contains a path of some machine: {match[0]}"


CHECKS: tuple[Callable[[Chapter], Iterator[str]], ...] = (
    structure,
    numbering,
    references,
    sets_equal,
    statements_complete,
    checks_assert,
    exercises,
    links,
    portable,
    normal_form,
    figures,
    lengths,
    imports,
    documented,
    machine_paths,
)
