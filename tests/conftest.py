"""A small chapter without faults, for the tests of the book's tools."""

import nbformat
import pytest
import statements
import sync
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

TITLE = """\
# 7. A sample

One sentence of promise.

**You will learn** little.

**You need** nothing.
"""
THEOREM = """\
## A section

### Theorem 7.1 (One is one)

> For every $x$,
>
> $$ x = x \\tag{7.1} $$

**Proof.** By (7.1) and [a reference](references.md#liu-2024). $\\square$
"""
EXERCISE = """\
**Exercise 7.{k}** (easy). Use [Theorem 7.1](#theorem-7-1).

<details><summary>Solution</summary>

As in the proof.

</details>
"""
ENDING = "## Summary\n\nShort.\n\n## Further reading\n\nNone."


def sample() -> nbformat.NotebookNode:
    """A chapter 7 in which every construct occurs once."""
    exercises = "## Exercises\n\n" + "\n".join(EXERCISE.format(k=k) for k in range(1, 6))
    figure = {"mystnb": {"image": {"alt": "A line that rises from left to right"}}}
    solution = {"tags": ["hide-cell"], "jupyter": {"source_hidden": True}, "cellView": "form"}
    cells = [
        new_markdown_cell(TITLE),
        new_code_cell("", metadata={"tags": ["setup"]}),
        new_code_cell("import matplotlib.pyplot as plt"),
        new_markdown_cell(THEOREM),
        new_code_cell("x = 1\nassert x == 1", metadata={"tags": ["check-7.1"]}),
        new_code_cell("plt.plot([0, 1]);", metadata=figure),
        new_markdown_cell("*Figure 7.1. A line.*"),
        new_markdown_cell("## When it fails\n\nNever."),
        new_markdown_cell(exercises),
        new_code_cell("# @title Solution 7.1\nassert x + x == 2", metadata=solution),
        new_markdown_cell(ENDING),
    ]
    for index, cell in enumerate(cells):
        cell.id = f"c7-{index:02}"
    return new_notebook(cells=cells)


@pytest.fixture
def book(tmp_path):
    """A folder with the sample chapter and a page of references; rewrites it on request."""

    def write(change=lambda notebook: None):
        notebook = sample()
        text = sync.synchronize(nbformat.writes(notebook), sync.setup_source("07_sample.ipynb"))
        notebook = nbformat.reads(text, as_version=4)
        change(notebook)
        path = tmp_path / "07_sample.ipynb"
        path.write_text(nbformat.writes(notebook) + "\n")
        (tmp_path / "references.md").write_text('# References\n\n<a id="liu-2024"></a>Liu.\n')
        return path, statements.read(path)

    return write
