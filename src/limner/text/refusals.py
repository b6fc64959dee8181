"""Answers of language models that are no captions, although they are sentences: refusals."""

import re

REFUSAL = re.compile(
    r"^(?:i[’']?m\s+(?:very\s+|really\s+)?sorry|i\s+am\s+(?:very\s+)?sorry|sorry|i\s+apologi[sz]e|unfortunately)\b.{0,120}?"
    r"\b(?:can(?:not|[’']t)|could(?:\s+not|n[’']t)|unable|not\s+able|won[’']t|do(?:\s+not|n[’']t)\s+see|no\s+image)\b"
    r"|^(?:i|we)\s+(?:can(?:not|[’']t)|could(?:\s+not|n[’']t)|am\s+(?:unable|not\s+able)|will\s+not|won[’']t|"
    r"do(?:\s+not|n[’']t)\s+(?:see|have\s+(?:access|the\s+ability)))\b"
    r"|^(?:as|i[’']?m|i\s+am)\s+an?\s+(?:ai|artificial|text-based|language)\b"
    r"|^(?:no|there\s+is\s+no|please\s+(?:provide|upload|share))\s+(?:an?\s+|the\s+)?(?:image|picture|photo|video)\b"
    r"(?!\s+of)",
    re.IGNORECASE | re.DOTALL,
)
# "We cannot see her face" is a caption by people; a model that speaks as "we" talks of the picture or of its help
PEOPLE = re.compile(
    r"^we\s(?!.*\b(?:images?|pictures?|photos?|videos?|help|assist|describe|identify|requests?|sorry)\b)",
    re.IGNORECASE | re.DOTALL,
)


def is_refusal(text: str) -> bool:
    """Whether an English answer refuses to describe a picture, or says that it sees none.

    >>> is_refusal("I'm sorry, but I can't help with that."), is_refusal("I cannot see any image.")
    (True, True)
    >>> is_refusal("a man who can not swim"), is_refusal("A sign says: sorry, we are closed.")
    (False, False)
    >>> is_refusal("We cannot see the face of the man."), is_refusal("We can't assist with this request.")
    (False, True)
    """
    text = " ".join(text.split())
    return bool(REFUSAL.match(text)) and not PEOPLE.match(text)
