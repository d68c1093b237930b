"""The one Sphinx extension of the book.

Numbered statements get anchors, boxes, search entries and a page that lists them. Each
mention of a statement, an equation, a figure or an exercise becomes a link. A figure
without alternative text is a warning, and so is a source that was not rendered.
Repository buttons follow _config.yml. Formulas stay as they are written.
"""

import json
import re
import sys
from collections import Counter
from pathlib import Path

from docutils import nodes
from sphinx.domains import Domain, ObjType
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

TOOLS = Path(__file__).resolve().parent
if str(TOOLS) not in sys.path:
    sys.path.insert(0, str(TOOLS))

import plant  # noqa: E402
import statements  # noqa: E402

LOGGER = logging.getLogger(__name__)
GENERATED = {"book/statements": "All statements", "book/how_built": "This build"}
COLAB = "https://colab.research.google.com"
# What stays behind when mathematics or emphasis was not understood.
UNRENDERED = re.compile(r"\$|\\[a-zA-Z]{2,}|\*\*")
VERBATIM = (nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.raw)
BARE_IMAGE = re.compile(r"<img(?![^>]*\salt=[\"'][^\"'])[^>]*>")


class StatementDomain(Domain):
    """Makes every statement an entry of the search and of the object inventory."""

    name = "balance"
    label = "The Benefits of Balance"
    object_types = {"statement": ObjType("statement")}  # noqa: RUF012
    initial_data = {"objects": {}, "labels": {}}  # noqa: RUF012
    data_version = 2

    def note(self, statement: statements.Statement) -> None:
        self.data["objects"].setdefault(self.env.docname, []).append(statement)

    def place(self, family: str, number: str, anchor: str) -> None:
        """Remember where a numbered thing stands."""
        found = self.data["labels"].setdefault(self.env.docname, {})
        found[family, number] = anchor

    def places(self) -> dict[tuple[str, str], tuple[str, str]]:
        """Family and number -> document and anchor, over the whole book."""
        return {
            label: (docname, anchor)
            for docname, found in self.data["labels"].items()
            for label, anchor in found.items()
        }

    def clear_doc(self, docname):
        for known in self.data.values():
            if isinstance(known, dict):
                known.pop(docname, None)

    def merge_domaindata(self, docnames, otherdata):
        for kind in ("objects", "labels"):
            for docname in docnames:
                if docname in otherdata[kind]:
                    self.data[kind][docname] = otherdata[kind][docname]

    def get_objects(self):
        for docname, found in self.data["objects"].items():
            for s in found:
                label = f"{s.name} ({s.title})"
                yield label, label, "statement", docname, s.anchor, 1

    def resolve_any_xref(self, env, fromdocname, builder, target, node, contnode):
        return []


class MarkStatements(SphinxTransform):
    """Give all that is numbered an anchor, and statements and checks their classes."""

    default_priority = 400

    def apply(self, **kwargs):
        self.domain = self.env.get_domain("balance")
        self.drop_anchors_of_titles()
        for section in self.document.findall(nodes.section):
            found = statements.statements(f"### {section[0].rawsource}\n")
            if found:
                self.mark(section, found[0])
        labelled = Counter()
        for cell in self.document.findall(is_check):
            number = check_number(cell)
            labelled[number] += 1
            # a statement with several check cells: the link leads to the first
            again = f"-{labelled[number]}" if labelled[number] > 1 else ""
            cell["ids"].append(f"check-{number.replace('.', '-')}{again}")
            self.label(cell, number)
        for block in self.document.findall(nodes.math_block):
            for number in statements.EQUATION.findall(block.astext()):
                self.anchor(block, "Equation", number)
        for paragraph in self.document.findall(nodes.paragraph):
            self.anchor_of(paragraph, nodes.emphasis, r"Figure ({})\.", "Figure")
            self.anchor_of(paragraph, nodes.strong, r"Exercise ({})$", "Exercise")
        slugs = self.env.metadata[self.env.docname].setdefault("myst_slugs", {})
        for raw in self.document.findall(nodes.raw):
            for anchor in statements.HTML_ID.findall(raw.astext()):
                slugs.setdefault(anchor, (raw.line, anchor, anchor))

    def drop_anchors_of_titles(self) -> None:
        """Move the anchors behind headings, which Jupyter needs, to their sections."""
        for title in self.document.findall(nodes.title):
            for raw in list(title.findall(nodes.raw)):
                known = title.parent["ids"]
                found = statements.HTML_ID.findall(raw.astext())
                title.parent["ids"] += [i for i in found if i not in known]
                title.remove(raw)

    def anchor(self, node, family: str, number: str) -> None:
        anchor = f"{family}-{number.replace('.', '-')}".lower()
        node["ids"].append(anchor)
        self.domain.place(family, number, anchor)

    def anchor_of(self, paragraph, kind, pattern: str, family: str) -> None:
        """Anchor a paragraph that begins, in this kind of type, with its number."""
        # MyST puts an empty text before strong type
        first = next((c for c in paragraph if c.astext()), None)
        if isinstance(first, kind):
            pattern = pattern.format(statements.NUMBER)
            if found := re.match(pattern, first.astext()):
                self.anchor(paragraph, family, found[1])

    def mark(self, section, statement) -> None:
        anchor = statement.anchor
        section["ids"] = [anchor, *(i for i in section["ids"] if i != anchor)]
        section["classes"] += ["statement", f"statement-{statement.kind.lower()}"]
        slugs = self.env.metadata[self.env.docname].get("myst_slugs", {})
        if anchor in slugs:
            slugs[anchor] = (slugs[anchor][0], anchor, slugs[anchor][2])
        self.domain.note(statement)
        self.domain.place("Statement", statement.number, anchor)

    def label(self, cell, number: str) -> None:
        """Name the statement above the cell that checks it."""
        for statement in self.domain.data["objects"].get(self.env.docname, []):
            if statement.number == number:
                text = nodes.reference(
                    "", statement.name, internal=True, refid=statement.anchor
                )
                label = nodes.paragraph("", "Check of ", text, classes=["check-label"])
                cell.insert(0, label)


def check_number(node) -> str | None:
    """The number of the statement that a code cell checks."""
    for name in node.get("classes", []):
        if match := statements.CHECK.fullmatch(name.removeprefix("tag_")):
            return match[1]
    return None


def is_check(node) -> bool:
    return (
        isinstance(node, nodes.container)
        and node.get("nb_element") == "cell_code"
        and check_number(node) is not None
    )


def require_alternative_text(app, doctree) -> None:
    """Warn of every figure that a reader who cannot see it would miss."""
    for image in doctree.findall(nodes.image):
        if not image.get("alt"):
            LOGGER.warning(
                "figure without alternative text: %s", image["uri"], location=image
            )
    for raw in doctree.findall(nodes.raw):
        for tag in BARE_IMAGE.findall(raw.astext()):
            LOGGER.warning("figure without alternative text: %.80s", tag, location=raw)


def within(node, kinds) -> bool:
    """Whether a node stands, at any depth, in one of these kinds."""
    while node.parent is not None:
        node = node.parent
        if isinstance(node, kinds):
            return True
    return False


def require_rendering(app, doctree) -> None:
    """Warn of formulas and emphasis that stand in the text as they were written."""
    for text in doctree.findall(nodes.Text):
        if UNRENDERED.search(text) and not within(text, (*VERBATIM, nodes.comment)):
            LOGGER.warning("not rendered: %.80s", text.astext(), location=text.parent)


def join_texts(doctree) -> None:
    """Make one node of the lines of a text, which MyST reads one by one."""
    for parent in list(doctree.findall(nodes.TextElement)):
        children = []
        for child in parent.children:
            both = isinstance(child, nodes.Text) and children
            if both and isinstance(children[-1], nodes.Text):
                children[-1] = nodes.Text(children[-1] + child)
            else:
                children.append(child)
        if len(children) < len(parent.children):
            parent.children = []
            parent.extend(children)


def link_mentions(app, doctree, docname) -> None:
    """Turn each mention of a numbered thing, "Theorem 4.3" or "(4.12)", into a link."""
    places = app.env.get_domain("balance").places()
    not_here = (*VERBATIM, nodes.reference, nodes.title, nodes.comment)
    join_texts(doctree)
    for text in list(doctree.findall(nodes.Text)):
        found = [m for m in statements.mentions(text) if (m.family, m.number) in places]
        if not found or within(text, not_here):
            continue
        parts, at = [], 0
        for mention in sorted(found, key=lambda m: m.start):
            target, anchor = places[mention.family, mention.number]
            if anchor in text.parent.parent.get("ids", []):
                continue  # a caption names itself
            here = target == docname
            uri = "" if here else app.builder.get_relative_uri(docname, target)
            name = text[mention.start : mention.end]
            link = nodes.reference("", name, internal=True, refuri=f"{uri}#{anchor}")
            parts += [nodes.Text(text[at : mention.start]), link]
            at = mention.end
        text.parent.replace(text, [*parts, nodes.Text(text[at:])])


def keep_formulas(app, doctree, docname) -> None:
    r"""Hand formulas to MathJax as written: the wrapping of Sphinx forbids \tag."""
    if app.builder.format == "html":
        for block in doctree.findall(nodes.math_block):
            block["nowrap"] = True
            block.children = [nodes.Text(rf"\[{block.astext()}\]")]


def read_status(app) -> dict:
    """What book/tools/execute.py reports."""
    path = Path(app.srcdir, "build", "executed", "status.json")
    return json.loads(path.read_text()) if path.exists() else {"chapters": {}}


def outdated(app, env, added, changed, removed) -> list[str]:
    """Read again the chapters that were executed anew, and the generated pages."""
    chapters = read_status(app)["chapters"]
    now = {f"book/{name}": entry["key"] for name, entry in chapters.items()}
    before = getattr(env, "balance_executed", {})
    env.balance_executed = now
    stale = {name for name in now if now[name] != before.get(name)} | set(GENERATED)
    return sorted(stale & env.found_docs)


def write_all(app, env) -> list[str]:
    """Write every page: a link may have lost its target on an unchanged page."""
    return sorted(env.found_docs)


def forget_after_warnings(app, exception) -> None:
    """A build with warnings must not be the start of one that repeats none of them."""
    if exception or app._warncount:
        Path(app.doctreedir, "environment.pickle").unlink(missing_ok=True)


def line(*content) -> nodes.paragraph:
    """A paragraph of nodes and of strings, in which $formulas$ are set."""
    parts = []
    for item in content:
        texts = item.split("$") if isinstance(item, str) else []
        parts += [
            nodes.math("", t) if k % 2 else nodes.Text(t) for k, t in enumerate(texts)
        ]
        parts += [] if texts else [item]
    return nodes.paragraph("", "", *parts)


def table(header: list[str], rows: list[list[list]]) -> nodes.table:
    """A table whose cells are lists of paragraphs."""

    def row(cells):
        return nodes.row("", *(nodes.entry("", *cell) for cell in cells))

    columns = [nodes.colspec(colwidth=1) for _ in header]
    group = nodes.tgroup("", *columns, cols=len(columns))
    group += nodes.thead("", row([[line(text)] for text in header]))
    group += nodes.tbody("", *map(row, rows))
    return nodes.table("", group, classes=["table", "generated"])


class Pages:
    """Writes the generated parts of a page."""

    def __init__(self, app, docname: str):
        self.app, self.docname, self.status = app, docname, read_status(app)

    def link(self, text: str, docname: str, anchor: str = "") -> nodes.reference:
        uri = self.app.builder.get_relative_uri(self.docname, docname)
        uri = f"{uri}#{anchor}" if anchor else uri
        return nodes.reference("", text, internal=True, refuri=uri)

    def chapters(self):
        """Of each chapter: a link to it, its document, its path, its last execution."""
        for path in statements.chapter_paths(Path(self.app.srcdir, "book")):
            docname = f"book/{path.stem}"
            if docname in self.app.env.found_docs:
                link = self.link(self.app.env.titles[docname].astext(), docname)
                yield link, docname, path, self.status["chapters"].get(path.stem)

    def all_statements(self):
        tests = statements.tests(Path(self.app.srcdir, "tests"))
        for heading, docname, path, entry in self.chapters():
            notebook = statements.read(path)
            checked = statements.checks(notebook)
            state = entry["date"] if entry else "not run"
            folder = Path(self.app.srcdir, "tests", "planted")
            planted = Counter(p.statement for p in plant.read(path.stem, folder))
            rows = []
            for s in statements.statements(statements.markdown(notebook)):
                names = tests.get(s.number, [])
                about = [line(self.link(s.name, docname, s.anchor), f" {s.title}")]
                about += [line(nodes.literal("", name)) for name in names]
                known = s.number in checked
                check = self.link("check", docname, s.check_anchor) if known else "none"
                count = str(planted[s.number])
                rows.append([about, [line(check)], [line(count)], [line(state)]])
            if rows:
                yield nodes.rubric("", "", heading)
                header = ["Statement and its tests", "Chapter", "Planted", "Last run"]
                yield table(header, rows)

    def this_build(self):
        rows = []
        for link, _, _, entry in self.chapters():
            date, seconds = (entry["date"], entry["seconds"]) if entry else ("", 0)
            rows.append([[line(link)], [line(date)], [line(f"{seconds:.1f}")]])
        if rows:
            yield table(["Chapter", "Executed on", "Seconds"], rows)
        versions = self.status.get("versions", {}).items()
        yield line("Versions: " + ", ".join(f"{name} {v}" for name, v in versions))


def generate(app, doctree, docname) -> None:
    """Fill the heading that a generated page reserves for it."""
    if docname in GENERATED:
        title = GENERATED[docname]
        sections = [s for s in doctree.findall(nodes.section) if s[0].astext() == title]
        if not sections:
            LOGGER.warning("no heading %r to fill", title, location=docname)
            return
        pages = Pages(app, docname)
        content = {
            "All statements": pages.all_statements,
            "This build": pages.this_build,
        }
        sections[0].extend(content[title]())


def set_buttons(app, config) -> None:
    """Repository and Colab buttons for an address on GitHub; elsewhere none work."""
    options = config.html_theme_options
    options.pop("launch_buttons", None)
    if options.get("repository_url", "").startswith("https://github.com/"):
        options["use_repository_button"] = options["use_source_button"] = True
        options["launch_buttons"] = {"colab_url": COLAB}
    else:
        options.pop("repository_url", None)


def setup(app):
    # A generated page may hold formulas that its source does not.
    app.set_html_assets_policy("always")
    # Jupyter Book sets this for an extension that we do without.
    app.add_config_value("comments_config", {}, "")
    app.add_domain(StatementDomain)
    app.add_transform(MarkStatements)
    app.connect("config-inited", set_buttons)
    app.connect("env-get-outdated", outdated)
    app.connect("env-updated", write_all)
    app.connect("build-finished", forget_after_warnings)
    app.connect("doctree-read", require_alternative_text)
    app.connect("doctree-read", require_rendering)
    app.connect("doctree-resolved", link_mentions)
    app.connect("doctree-resolved", keep_formulas)
    app.connect("doctree-resolved", generate)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
