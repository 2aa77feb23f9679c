"""Bringing answers to one form before they are compared, by the rules of the VQA evaluation.

Punctuation next to a space, or in an answer that holds a number such as 1,000, is removed; other punctuation
becomes a space. Number words become digits, articles go, contractions get their apostrophe.
"""

from __future__ import annotations

import re

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {"none": "0", **{word: str(i) for i, word in enumerate(_DIGITS)}}
ARTICLES = ("a", "an", "the")
# Forms whose spelling without apostrophe is no other English word ("its", "well" and "were" are).
_WITH_APOSTROPHE = """
ain't aren't can't couldn't didn't doesn't don't hadn't hasn't haven't isn't mightn't mustn't needn't oughtn't
shan't shouldn't wasn't weren't won't wouldn't could've couldn't've might've must've should've would've
he'd he's i'm i've it'd it'll let's she's somebody's somebody'd someone's something's that's there's there'd
they'd they'll they're they've we've what'll what're what's what've when's where'd where's who'd who'll who's
who've why'll why're why's y'all you'd you'll you're you've ma'am o'clock 'twas
"""
CONTRACTIONS = {word.replace("'", ""): word for word in _WITH_APOSTROPHE.split()}
_NUMBER_COMMA = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")


def punctuation(text: str) -> str:
    """Remove or blank punctuation; a point before a digit stays.

    >>> punctuation("yes, it is."), punctuation("black/white"), punctuation("2.5")
    ('yes it is', 'black white', '2.5')
    """
    out = text
    for mark in PUNCTUATION:
        if mark not in text:
            continue
        alone = f"{mark} " in text or f" {mark}" in text or bool(_NUMBER_COMMA.search(text))
        out = out.replace(mark, "" if alone else " ")
    return _FULL_STOP.sub("", out)


def digits_and_articles(text: str) -> str:
    """Lower case, number words to digits, no articles, contractions with their apostrophe.

    >>> digits_and_articles("The two dogs dont")
    "2 dogs don't"
    """
    words = [NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def normalise(text: str) -> str:
    """Both, after blanks are tidied.

    >>> normalise(" On the\\ttable. ")
    'on table'
    """
    return digits_and_articles(punctuation(" ".join(text.split())))
