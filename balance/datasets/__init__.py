"""The data of the book, one `load_*` for each kind: tables, populations, icons, keywords, measured results.

Where each file comes from is written in ``balance/datasets/data/README.md``.
"""

from balance.datasets.icons import Classes, Icons, load_classes, load_digits, load_icons
from balance.datasets.keywords import load_keywords
from balance.datasets.results import Results, load_results
from balance.datasets.tables import ContingencyTable, Population, load_population, load_table

__all__ = [
    "Classes",
    "ContingencyTable",
    "Icons",
    "Population",
    "Results",
    "load_classes",
    "load_digits",
    "load_icons",
    "load_keywords",
    "load_population",
    "load_results",
    "load_table",
]
