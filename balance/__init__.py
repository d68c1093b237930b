"""Data balancing: iterated information projections and what they do to an estimate.

The package beneath the book *The Benefits of Balance*. One module per chapter.
"""

from balance.projections import (
    BalanceResult,
    data_balance,
    kl_divergence,
    marginal,
    project,
    total_variation,
)
from balance.records import Records

__version__ = "0.1.0"

__all__ = [
    "BalanceResult",
    "Records",
    "data_balance",
    "kl_divergence",
    "marginal",
    "project",
    "total_variation",
]
