"""The keywords by which chapter 9 matches captions: names of emoji."""

from importlib import resources


def load_keywords() -> tuple[str, ...]:
    """The English names and keywords of emoji, in lower case and sorted.

    Returns
    -------
    tuple of str
        Words and phrases from the Unicode CLDR, emojibase and emojilib; ``data-raw/keywords`` is how they were taken
        and ``balance/datasets/data/keywords.NOTICE.md`` their licenses. No two are the same to
        `balance.curation.match_keywords`.

    Examples
    --------
    >>> keywords = load_keywords()
    >>> len(keywords), [word for word in keywords if word.endswith("heart")][:4]
    (7977, ['anatomical heart', 'beating heart', 'black heart', 'blue heart'])
    """
    file = resources.files("balance.datasets") / "data" / "keywords.txt"
    return tuple(file.read_text(encoding="utf-8").splitlines())
