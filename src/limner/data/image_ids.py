"""Ids of images and clips in their file names, and the numeric ids that COCO's tools expect in files of results."""

from limner.data.media import MEDIA_SUFFIXES

COCO_DIGITS = 12  # COCO's file names of 2017 are the id with zeros in front, to 12 digits


def coco_id(name: str) -> int | str:
    """The numeric image id of a file name without its ending, or `name` itself when it holds no such id.

    An id is an integer without zeros in front, a number of 12 digits (COCO's names of 2017), or the number at the end
    of COCO_val2014_000000000042.  Other zeros stay: 0042 may be a file's name.

    >>> coco_id("COCO_val2014_000000000042"), coco_id("000000000042"), coco_id("42"), coco_id("0042"), coco_id("dog")
    (42, 42, 42, '0042', 'dog')
    """
    number = name.rsplit("_", 1)[-1] if name.startswith("COCO_") else name
    if not (number.isascii() and number.isdigit()):
        return name
    padded = name.startswith("COCO_") or len(number) == COCO_DIGITS
    return int(number) if padded or number == "0" or not number.startswith("0") else name


def medium_name(path: str) -> str:
    """A path without its folder, in either kind of slashes, and without the ending of an image or clip.

    >>> medium_name("photos/a.v2.JPG"), medium_name("a.v2")
    ('a.v2', 'a.v2')
    """
    name = path.replace("\\", "/").rsplit("/", 1)[-1]
    length = max((len(suffix) for suffix in MEDIA_SUFFIXES if name.lower().endswith(suffix)), default=0)
    return name[: len(name) - length]
