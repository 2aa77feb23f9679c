"""Normalising answers for comparison, by the rules of the published VQA evaluation.

The source is `vqaEval.py` of github.com/GT-Vision-Lab/VQA at commit a013f00 (BSD-2-Clause), quirks included:
an accuracy comparable with published numbers must treat every answer in the same way. The code is our own;
the tables of contractions, number words, articles and punctuation marks are the published ones.
"""

from __future__ import annotations

import re

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {"none": "0", **{word: str(i) for i, word in enumerate(_DIGITS)}}
ARTICLES = ("a", "an", "the")
# Pairs of a form and its replacement. As published: "somebody'd" loses its apostrophe, "lets", "shes" and
# "couldntve" are missing, and the four forms with a capital I match nothing, since answers are in lower case.
_CONTRACTIONS = """
aint ain't  arent aren't  cant can't  couldve could've  couldnt couldn't  couldn'tve couldn't've
couldnt've couldn't've  didnt didn't  doesnt doesn't  dont don't  hadnt hadn't  hadnt've hadn't've
hadn'tve hadn't've  hasnt hasn't  havent haven't  hed he'd  hed've he'd've  he'dve he'd've  hes he's
howd how'd  howll how'll  hows how's  Id've I'd've  I'dve I'd've  Im I'm  Ive I've  isnt isn't  itd it'd
itd've it'd've  it'dve it'd've  itll it'll  let's let's  maam ma'am  mightnt mightn't
mightnt've mightn't've  mightn'tve mightn't've  mightve might've  mustnt mustn't  mustve must've
neednt needn't  notve not've  oclock o'clock  oughtnt oughtn't  ow's'at 'ow's'at  'ows'at 'ow's'at
'ow'sat 'ow's'at  shant shan't  shed've she'd've  she'dve she'd've  she's she's  shouldve should've
shouldnt shouldn't  shouldnt've shouldn't've  shouldn'tve shouldn't've  somebody'd somebodyd
somebodyd've somebody'd've  somebody'dve somebody'd've  somebodyll somebody'll  somebodys somebody's
someoned someone'd  someoned've someone'd've  someone'dve someone'd've  someonell someone'll
someones someone's  somethingd something'd  somethingd've something'd've  something'dve something'd've
somethingll something'll  thats that's  thered there'd  thered've there'd've  there'dve there'd've
therere there're  theres there's  theyd they'd  theyd've they'd've  they'dve they'd've  theyll they'll
theyre they're  theyve they've  twas 'twas  wasnt wasn't  wed've we'd've  we'dve we'd've  weve we've
werent weren't  whatll what'll  whatre what're  whats what's  whatve what've  whens when's
whered where'd  wheres where's  whereve where've  whod who'd  whod've who'd've  who'dve who'd've
wholl who'll  whos who's  whove who've  whyll why'll  whyre why're  whys why's  wont won't
wouldve would've  wouldnt wouldn't  wouldnt've wouldn't've  wouldn'tve wouldn't've  yall y'all
yall'll y'all'll  y'allll y'all'll  yall'd've y'all'd've  y'alld've y'all'd've  y'all'dve y'all'd've
youd you'd  youd've you'd've  you'dve you'd've  youll you'll  youre you're  youve you've
"""
_PAIRS = _CONTRACTIONS.split()
CONTRACTIONS = dict(zip(_PAIRS[::2], _PAIRS[1::2], strict=True))
_NUMBER_COMMA = re.compile(r"\d,\d")
# The published pattern is (?!<=\d)(\.)(?!\d). Its first group was meant as a lookbehind but always matches,
# so a full stop after a digit is removed too.
_FULL_STOP = re.compile(r"\.(?!\d)")
# The published call passes re.UNICODE (32) where the number of replacements is expected.
_MOST_FULL_STOPS = 32


def clean(text: str) -> str:
    """Replace tabs and line breaks by spaces and strip. Applied to every answer.

    >>> clean(" on\\tit\\n")
    'on it'
    """
    return text.replace("\n", " ").replace("\t", " ").strip()


def punctuation(text: str) -> str:
    """Remove a mark that occurs next to a space anywhere in the answer, and all marks if the answer contains
    a number such as 1,000; replace other marks by a space. Remove full stops unless a digit follows.

    >>> punctuation("yes, it is."), punctuation("black/white"), punctuation("2.5")
    ('yes it is', 'black white', '2.5')
    """
    out = text
    comma = bool(_NUMBER_COMMA.search(text))
    for mark in PUNCTUATION:
        out = out.replace(mark, "" if comma or f"{mark} " in text or f" {mark}" in text else " ")
    return _FULL_STOP.sub("", out, count=_MOST_FULL_STOPS)


def digits_and_articles(text: str) -> str:
    """Convert to lower case, number words to digits, drop articles, and expand contractions by the table.

    >>> digits_and_articles("The two dogs dont")
    "2 dogs don't"
    """
    words = [NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def normalise(text: str) -> str:
    """All three steps, in the published order.

    >>> normalise(" On the\\ttable. ")
    'on table'
    """
    return digits_and_articles(punctuation(clean(text)))
