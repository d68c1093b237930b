"""The Python of the README runs as it stands, in one session from top to bottom."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_examples_of_the_readme_run():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(blocks) >= 3
    known: dict = {}
    for block in blocks:
        exec(block, known)
    assert known["result"].converged and known["records"].names == ("sex", "age")
    assert abs(known["result"].weights.sum() - 1000) < 1e-9
