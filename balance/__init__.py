"""Data balancing: iterated information projections and what they do to an estimate.

The package beneath the book *The Benefits of Balance*. Chapters 2 to 9 have one module each, chapter 1 uses all:
projections, operators, variance, bounds, marginals, contrastive, clustering, curation. Beside them stand estimation
(chapter 4), enumeration, expansion, contraction and report (5), sampling (9), batched, records and scores; what
chapters share is in datasets, labs and book.
"""

from balance.estimation import estimate
from balance.projections import (
    BalanceResult,
    ConvergenceWarning,
    data_balance,
    kl_divergence,
    marginal,
    project,
    total_variation,
)
from balance.records import Records
from balance.scores import Scores

__version__ = "0.1.0"

__all__ = [
    "BalanceResult",
    "ConvergenceWarning",
    "Records",
    "Scores",
    "data_balance",
    "estimate",
    "kl_divergence",
    "marginal",
    "project",
    "total_variation",
]
