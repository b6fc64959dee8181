"""Names of splits: the spellings of train, val and test that files of others use."""

SPLIT_NAMES = {  # spelling in files of others, in small letters -> split
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "dev": "val",
    "development": "val",
    "test": "test",
    "testing": "test",
}


def parse_split_name(text: str) -> str:
    """A split name in any usual spelling -> train, val or test.  Raises ValueError when it is not known.

    >>> parse_split_name("Validate "), parse_split_name("dev")
    ('val', 'val')
    """
    if text.strip().lower() not in SPLIT_NAMES:
        raise ValueError(f"'{text}' is not a split; known are {', '.join(SPLIT_NAMES)}")
    return SPLIT_NAMES[text.strip().lower()]


def normalise_split_name(text: str) -> str:
    """As `parse_split_name`, but a name that is not known stays, without outer blanks.

    >>> normalise_split_name(" Train"), normalise_split_name("fold 3")
    ('train', 'fold 3')
    """
    return SPLIT_NAMES.get(text.strip().lower(), text.strip())
