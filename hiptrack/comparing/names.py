"""Short names of bindings and values, for folders and tables."""

import hashlib
import re
from collections.abc import Sequence

SEED = "train.seed"
_MOST = 40  # characters of a value in a file name


def short_names(labels: Sequence[str]) -> dict[str, str]:
    """Each label and its parameter alone (ChallengeLoss.weight: weight); the label itself where two end alike."""
    ends = [label.rpartition(".")[2] for label in labels]
    return {label: end if ends.count(end) == 1 else label for label, end in zip(labels, ends)}


def value_names(texts: Sequence[str]) -> list[str]:
    """What the values of an axis, as gin text, are called in file names: different, short, of harmless characters."""
    plain = [re.sub(r"[^\w.+-]+", "+", re.sub(r"""[@%()\[\]{}'"\s]""", "", text), flags=re.ASCII) for text in texts]
    return [
        name if 0 < len(name) <= _MOST and plain.count(name) == 1 else _with_digest(name, text, _MOST)
        for name, text in zip(plain, texts)
    ]


def shortened(name: str, text: str, most: int) -> str:
    """The name; where it is longer than `most`, its beginning and a digest of the text that it stands for."""
    return name if len(name) <= most else _with_digest(name, text, most)


def _with_digest(name, text, most):
    return f"{name[: most - 10]}~{hashlib.sha256(text.encode()).hexdigest()[:8]}"
