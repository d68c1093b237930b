"""The keywords are clean, and each of them can be found."""

from balance.curation import (
    match_keywords,
)
from balance.datasets import load_keywords


def test_keywords_find_themselves():
    keywords = load_keywords()
    assert list(keywords) == sorted(set(keywords))
    assert all(keyword == keyword.lower().strip() for keyword in keywords)
    assert match_keywords(keywords, keywords).diagonal().all()
