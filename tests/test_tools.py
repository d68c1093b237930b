"""Tests of the tools that read, normalize and describe the chapters."""

import ast
import hashlib
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tomllib
import types

import execute
import nbformat
import plant
import pytest
import renumber
import statements
import sync

from balance.operators import maximal_correlation


def test_statements_are_found_outside_of_code():
    text = "### Theorem 2.3 (A $k$)\n\n```\n### Lemma 2.4 (No)\n```\n\n#### Lemma 2.5 (No)\n"
    found = statements.statements(text)
    assert found == [statements.Statement("Theorem", "2.3", "A $k$")]
    assert (found[0].name, found[0].anchor, found[0].check_anchor) == ("Theorem 2.3", "theorem-2-3", "check-2-3")


@pytest.mark.parametrize(
    ("title", "anchor"),
    [
        ("Counterexample 12.10 (Any)", "counterexample-12-10"),
        ("What is data balancing?", "what-is-data-balancing"),
        ("Theorem of nobody", "theorem-of-nobody"),
    ],
)
def test_slug(title, anchor):
    assert statements.slug(title) == anchor


def test_anchors_of_a_page():
    text = '# A *title*\n\n<a id="liu-2024"></a>Liu.\n\n```\n# no\n```\n\n### Lemma 1.2 (Yes)\n'
    assert statements.anchors(text) == {"a-title", "liu-2024", "lemma-1-2"}


def test_tests_are_found_by_their_marks(tmp_path):
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        '@pytest.mark.statement("2.1")\n@pytest.mark.statement("2.2")\ndef test_both(): pass\n'
        'class TestMore:\n    @pytest.mark.statement("2.1")\n    def test_it(self): pass\n'
        "@pytest.mark.slow\ndef test_none(): pass\n"
    )
    (tmp_path / "statements").mkdir()
    (tmp_path / "statements" / "test_02_more.py").write_text('@pytest.mark.statement("2.3")\ndef test_third(): pass\n')
    (tmp_path / "helper.py").write_text('@pytest.mark.statement("2.9")\ndef test_no(): pass\n')
    assert statements.tests(tmp_path) == {
        "2.1": ["test_some.py::test_both", "test_some.py::test_it"],
        "2.2": ["test_some.py::test_both"],
        "2.3": ["statements/test_02_more.py::test_third"],
    }


def test_checks_are_found_by_their_tags(book):
    _, notebook = book()
    assert statements.checks(notebook) == {"7.1": 4}


def test_sync_is_idempotent_and_restores_the_setup_cell(book):
    path, _ = book(lambda notebook: notebook.cells.pop(1))
    once = sync.synchronize(path.read_text(), "pass")
    assert sync.synchronize(once, "pass") == once
    cell = nbformat.reads(once, as_version=4).cells[1]
    assert (cell.source, cell.metadata.tags) == ("pass", ["setup", "hide-input"])


def test_sync_drops_outputs_and_foreign_metadata(book):
    def dirty(notebook):
        cell = notebook.cells[4]
        cell.outputs = [nbformat.v4.new_output("stream", text="1")]
        cell.execution_count = 3
        cell.metadata.update(scrolled=True)
        notebook.metadata.update(colab={"name": "mine"})

    clean, _ = book()
    expected = clean.read_text()
    path, _ = book(dirty)
    assert path.read_text() != expected
    assert sync.synchronize(path.read_text(), sync.setup_source(path.name)) == expected


def run_setup_cell(url="", extras="book"):
    exec(compile(sync.SETUP.format(url=url, extras=extras), "setup", "exec"), {})


@pytest.fixture
def packages(monkeypatch):
    """Says which package `balance` is: None if there is none."""

    def choose(package):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: package)
        monkeypatch.setattr(importlib, "import_module", lambda name: package)

    return choose


def test_setup_cell_accepts_our_package(packages):
    packages(types.SimpleNamespace(data_balance=print))
    run_setup_cell()


def test_setup_cell_names_the_other_package(packages):
    packages(types.SimpleNamespace(Sample=print))
    with pytest.raises(ImportError, match=r"survey weights.*`benefits-of-balance`"):
        run_setup_cell()


def test_setup_cell_without_address_says_how_to_install(packages, monkeypatch):
    packages(None)
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("nothing to install from"))
    with pytest.raises(ImportError, match=r"pip install '\.\[book\]'"):
        run_setup_cell()


def test_setup_cell_installs_from_the_address_and_never_by_name(packages, monkeypatch):
    packages(None)
    commands = []

    def install(command, check):
        assert check
        commands.append(command)
        packages(types.SimpleNamespace(data_balance=print))

    monkeypatch.setattr(subprocess, "run", install)
    run_setup_cell("https://example.org/book", "book,learn")
    address = "benefits-of-balance[book,learn] @ git+https://example.org/book"
    assert commands == [[sys.executable, "-m", "pip", "install", "-q", address]]


def test_setup_cell_is_short_and_fits():
    lines = sync.setup_source("09_curation.ipynb").splitlines()
    assert len(lines) <= 15
    assert max(map(len, lines)) <= 88


def imports(source, package):
    """The modules that a module imports when it is imported, those of our package by their full names."""
    found, nodes = set(), list(ast.parse(source).body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            nodes += node.orelse
        elif not isinstance(node, ast.FunctionDef):
            nodes.extend(ast.iter_child_nodes(node))
    return found


def required(source):
    """The distributions, beyond the standard library, to which the imports of this code lead."""
    todo, done = imports(source, ""), set()
    while todo:
        module = todo.pop()
        done.add(module)
        file = statements.ROOT / module.replace(".", "/")
        for path in (file.with_suffix(".py"), file / "__init__.py"):
            if module.split(".")[0] == "balance" and path.is_file():
                package = module if path.name == "__init__.py" else module.rpartition(".")[0]
                todo |= {"balance", *imports(path.read_text(), package)} - done
    outside = {module.split(".")[0] for module in done} - {"balance"} - sys.stdlib_module_names
    return {name for module in outside for name in importlib.metadata.packages_distributions()[module]}


def installed(*extras):
    """The distributions that `pip install .` brings, with these extras, by pyproject.toml."""
    project = tomllib.loads((statements.ROOT / "pyproject.toml").read_text())["project"]
    lines = sum((project["optional-dependencies"][extra] for extra in extras), project["dependencies"])
    return {re.match(r"[\w-]+", line)[0] for line in lines}


def test_package_itself_imports_what_it_installs():
    assert required("import balance") <= installed()


@pytest.mark.parametrize("path", statements.chapter_paths(), ids=lambda path: path.stem)
def test_setup_cell_installs_what_the_chapter_imports(path):
    """By the import statements of modules: what only a function imports is the reader's choice."""
    needed = required("\n".join(cell.source for cell in statements.Chapter(path, statements.read(path)).code))
    extras = sync.EXTRAS.get(path.name[:2], "book").split(",")
    assert needed <= installed(*extras)
    for extra in extras:
        rest = [other for other in extras if other != extra]
        assert not needed <= installed(*rest), f"{extra} is not needed"


def code_notebook(source="x = 1", **metadata):
    cells = [nbformat.v4.new_markdown_cell("prose"), nbformat.v4.new_code_cell(source, metadata=metadata)]
    return nbformat.v4.new_notebook(cells=cells)


def test_fingerprint_depends_on_code_package_and_environment_not_on_prose():
    def key(notebook, package="p", versions=None):
        return execute.fingerprint(notebook, package, versions or {"python": "3.11"})

    base = key(code_notebook())
    assert key(code_notebook("x = 2")) != base
    assert key(code_notebook(tags=["check-1.1"])) != base
    assert key(code_notebook(), package="q") != base
    assert key(code_notebook(), versions={"python": "3.12"}) != base
    rewritten = code_notebook()
    rewritten.cells[0].source = "better prose"
    assert key(rewritten) == base


def test_clean_keeps_static_outputs_and_finds_faults():
    notebook = code_notebook()
    view = {execute.WIDGET_VIEW: {}, "text/html": "<b>1</b>", "text/plain": "1"}
    outputs = [
        nbformat.v4.new_output("display_data", view),
        nbformat.v4.new_output("stream", name="stderr", text="careful"),
        nbformat.v4.new_output("display_data", {"image/png": ""}),
    ]
    cell = notebook.cells[1]
    cell.outputs, cell.metadata = outputs, {"execution": {"at": "noon"}}
    notebook.metadata["widgets"] = {}
    faults = execute.clean(notebook)
    assert len(faults) == 2
    assert "careful" in faults[0]
    assert "mystnb.image.alt" in faults[1]
    assert set(cell.outputs[0]["data"]) == {"text/html", "text/plain"}
    assert "execution" not in cell.metadata
    assert "widgets" not in notebook.metadata


def test_store_and_prune_keep_one_record_per_passing_chapter(tmp_path, monkeypatch):
    monkeypatch.setattr(execute, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(execute, "EXECUTED", tmp_path / "executed")
    status = {"chapters": {}}

    def finish(name, source, passed=True):
        folder = tmp_path / "executed" / name
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.ipynb"
        path.write_text(nbformat.writes(code_notebook(source)))
        seconds = {path.name: 1.5} if passed else {}
        return execute.store([path], {name: f"key of {source}"}, seconds, status)

    def cached():
        return {record.uri for record in execute.get_cache(str(tmp_path / "cache")).list_cache_records()}

    assert finish("01_a", "x = 1") == []
    assert finish("02_b", "x = 2") == []
    assert finish("02_b", "x = 3") == []
    execute.prune(status, {"01_a", "02_b"})
    assert len(execute.get_cache(str(tmp_path / "cache")).list_cache_records()) == 2
    assert status["chapters"]["02_b"]["key"] == "key of x = 3"
    assert finish("02_b", "x = 4", passed=False) == ["02_b.ipynb: failed"]
    execute.prune(status, {"01_a", "02_b"})
    assert set(status["chapters"]) == cached() == {"01_a"}
    execute.prune(status, {"02_b"})
    assert status["chapters"] == {}
    assert cached() == set()
    assert not (tmp_path / "executed" / "01_a").exists()


def test_vendored_files_are_those_of_the_list():
    folder = statements.BOOK / "assets" / "vendor"
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    files = {str(p.relative_to(folder)): p for p in (folder / "mathjax").rglob("*") if p.is_file()}
    assert listed == {name: hashlib.sha256(p.read_bytes()).hexdigest() for name, p in files.items()}


def chapter_with(folder, name, *texts, code=()):
    cells = [nbformat.v4.new_markdown_cell(t, id=f"m{i}") for i, t in enumerate(texts)]
    cells += [nbformat.v4.new_code_cell(c, id=f"c{i}", metadata={"tags": tags}) for i, (c, tags) in enumerate(code)]
    path = folder / "book" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(nbformat.writes(nbformat.v4.new_notebook(cells=cells)))
    return path


@pytest.fixture
def moved(tmp_path):
    """A book in which a theorem went from chapter 1 to chapter 2 and another is new."""
    chapter_with(
        tmp_path,
        "01_one.ipynb",
        '### Theorem 1.2 (Two) <a id="theorem-1-2"></a>\n\n$$ a \\tag{1.2} $$\n\n**Exercise 1.1** By '
        "Theorems 1.1\nand 1.2, (1.3).",
    )
    chapter_with(
        tmp_path,
        "02_two.ipynb",
        "### Lemma 2.1 (Three)\n\n[Theorem 1.1](01_one.ipynb#theorem-1-1), [this](01_one.ipynb#theorem-1-2)",
        "### Theorem 1.1 (One)\n\n$$ b \\tag{1.3} $$\n\n### Lemma 2.1a (New)\n\nSee "
        '[Lemma 2.1a](#lemma-2-1a), f(1.2) and "(1.2)".',
        code=[("x = (1.2)  # (1.2), as in Theorem 1.2\nassert x == 1.2", ["check-1.1"])],
    )
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(
        '@pytest.mark.statement("1.1")\ndef test_one():\n    """Theorem 1.1."""\n    f(1.1)\n'
    )
    return tmp_path


def test_renumbering_follows_what_moved_and_what_is_new(moved):
    renumber.main(moved)
    one, two = (statements.read(moved / "book" / name) for name in ("01_one.ipynb", "02_two.ipynb"))
    assert one.cells[0].source == (
        '### Theorem 1.1 (Two) <a id="theorem-1-1"></a>\n\n$$ a \\tag{1.1} $$\n\n'
        "**Exercise 1.1** By Theorems 2.2\nand 1.1, (2.1)."
    )
    assert two.cells[0].source == (
        "### Lemma 2.1 (Three)\n\n[Theorem 2.2](#theorem-2-2), [this](01_one.ipynb#theorem-1-1)"
    )
    assert two.cells[1].source == (
        "### Theorem 2.2 (One)\n\n$$ b \\tag{2.1} $$\n\n### Lemma 2.3 (New)\n\n"
        'See [Lemma 2.3](#lemma-2-3), f(1.2) and "(1.1)".'
    )
    assert two.cells[2].source == "x = (1.2)  # (1.1), as in Theorem 1.1\nassert x == 1.2"
    assert two.cells[2].metadata.tags == ["check-2.2"]
    assert (moved / "tests" / "test_it.py").read_text() == (
        '@pytest.mark.statement("2.2")\ndef test_one():\n    """Theorem 2.2."""\n    f(1.1)\n'
    )


def test_renumbering_again_changes_nothing(moved, capsys):
    renumber.main(moved)
    capsys.readouterr()
    renumber.main(moved)
    said = capsys.readouterr().out
    assert "rewritten" not in said and "Statement: 4 numbers, 0 new" in said


def test_two_of_one_number_are_refused(moved):
    chapter_with(moved, "03_three.ipynb", "### Theorem 1.1 (Again)\n")
    with pytest.raises(ValueError, match=r"1\.1 occurs twice, again in 03_three\.ipynb"):
        renumber.main(moved)


def test_mentions_in_lists_and_with_irregular_plurals():
    text = (
        "By Theorems 7.8,\n7.9 (b) and 7.10, Corollaries 2.1 or 2.2, Lemma 2.3; f(4.1), (4.2) to (4.3), Figures 1.1–1.2"
    )
    found = [(m.kind, m.number, text[m.start : m.end]) for m in statements.mentions(text)]
    assert found == [
        ("Theorem", "7.8", "Theorems 7.8"),
        ("Theorem", "7.9", "7.9"),
        ("Theorem", "7.10", "7.10"),
        ("Corollary", "2.1", "Corollaries 2.1"),
        ("Corollary", "2.2", "2.2"),
        ("Lemma", "2.3", "Lemma 2.3"),
        ("Figure", "1.1", "Figures 1.1"),
        ("Figure", "1.2", "1.2"),
        ("", "4.2", "(4.2)"),
        ("", "4.3", "(4.3)"),
    ]
    assert all(m.proper for m in statements.mentions(text))
    assert not next(statements.mentions("Theorem 7.1 and 7.2")).proper


def test_value_beside_a_figure_is_a_fault():
    cell = nbformat.v4.new_code_cell("plt.plot([1])", id="drawn", metadata={"mystnb": {"image": {"alt": "a line"}}})
    cell.outputs = [nbformat.v4.new_output("display_data", {"image/png": "", "text/plain": "<Figure>"})]
    assert execute.clean(nbformat.v4.new_notebook(cells=[cell])) == []
    cell.outputs.append(nbformat.v4.new_output("execute_result", {"text/plain": "[Text(0.5, 0, 'x')]"}))
    (fault,) = execute.clean(nbformat.v4.new_notebook(cells=[cell]))
    assert "prints [Text(0.5, 0, 'x')] beside a figure" in fault


@pytest.fixture
def checked():
    """A helper, then a statement with a cell and its check."""
    heading = nbformat.v4.new_markdown_cell("### Lemma 7.1 (Doubling)\n")
    helper, first, check = (
        nbformat.v4.new_code_cell(code, metadata={"tags": tags})
        for code, tags in (("double = lambda x: 2 * x", []), ("y = 3", []), ("assert double(y) == 6", ["check-7.1"]))
    )
    return nbformat.v4.new_notebook(cells=[helper, heading, first, check])


def planted(old, new, **keys):
    return plant.Plant("7.1", "an error", cell=(old, new), test=("a", "b"), **keys)


def test_section_with_an_error_in_a_helper_and_in_the_check(checked):
    part = plant.Section(checked, "7.1")
    assert part.sources(planted("double(y)", "double(x)")) == ["y = 3", "assert double(x) == 6"]
    assert part.sources(planted("2 * x", "3 * x")) == ["double = lambda x: 3 * x", "y = 3", "assert double(y) == 6"]
    with pytest.raises(plant.PlantError, match="stands in no cell"):
        part.sources(planted("4 * x", "3 * x"))
    with pytest.raises(plant.PlantError, match="occurs 2 times"):
        part.sources(planted("=", "<"))
    with pytest.raises(plant.PlantError, match="no heading"):
        plant.Section(checked, "7.2")


@pytest.mark.parametrize(
    ("code", "result"), [("1 / 0", "noticed"), ("assert 1 == 1", "missed"), ("sam([1])", "broken"), ("1 +", "broken")]
)
def test_forked_run_says_what_became_of_it(code, result):
    assert plant.forked(lambda: exec(code))[0] == result


def test_error_in_the_package_reaches_those_who_imported_it_before():
    def change():
        plant.plant_in_package("balance/operators.py", "float(values[1])", "float(values[0])")
        assert maximal_correlation([[3, 1], [1, 3]]) == 1
        raise ArithmeticError

    assert plant.forked(change) == ("noticed", "ArithmeticError()")
    assert maximal_correlation([[3, 1], [1, 3]]) == pytest.approx(0.5)
    with pytest.raises(plant.PlantError, match="changes nothing"):
        plant.plant_in_package("balance/operators.py", "values = markov_svd(table)", "values = (markov_svd)(table)")
    with pytest.raises(plant.PlantError, match="occurs 0 times"):
        plant.plant_in_package("balance/operators.py", "values[7]", "values[8]")


def test_faults_of_an_outcome():
    false, true = planted("a", "b"), planted("a", "b", true="nobody refutes it")
    assert list(plant.Outcome(false, "noticed", "noticed").faults) == []
    assert len(list(plant.Outcome(false, "missed", "noticed").faults)) == 1
    assert len(list(plant.Outcome(false, "broken", "missed").faults)) == 2
    assert list(plant.Outcome(true, "missed", "missed").faults) == []
    assert len(list(plant.Outcome(true, "noticed", "missed").faults)) == 1
