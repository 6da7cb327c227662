"""The challenge classes that a lab knows, and the flags of its annotation files that mean them."""

import itertools
from collections.abc import Sequence

import gin
import numpy as np

from hiptrack.errors import ConfigError, did_you_mean

CLASSES = [
    "occlusion",
    "illumination_change",
    "scale_variation",
    "motion_blur",
    "appearance_variation",
    "partial_visibility",
    "low_resolution",
    "background_clutter",
    "low_contrast",
    "normal",
]
VLM = {
    "occlusion": "occlusion",
    "motion_blur": "motion_blur",
    "illu_change": "illumination_change",
    "partial_visibility": "partial_visibility",
    "variance_appear": "appearance_variation",
    "background_clutter": "background_clutter",
}
CV = {"scale_variation": "scale_variation", "low_res": "low_resolution", "low_contrast": "low_contrast"}


@gin.register
class Taxonomy:
    """Names of C challenge classes, and the flags of an annotation line that each is read from.

    The class of a frame is that of the first set flag of `vlm`; else that of a set flag of `cv`, drawn at random; else
    the last class. Several flags may mean one class; they have one priority. Flags that are not named are not read.

    Args:
        classes: names in the order of the branch's outputs; the last is that of a frame without any set flag.
        vlm: {flag in `vlm_response`: class}, in the order of priority.
        cv: {flag in `cv_response`: class}.

    Raises ConfigError for a class that no flag means (but the last), one whose flags do not stand side by side, and a flag
    that means none of them.
    """

    def __init__(self, classes: list[str] = CLASSES, vlm: dict[str, str] = VLM, cv: dict[str, str] = CV):
        self.classes, self.vlm, self.cv = tuple(classes), dict(vlm), dict(cv)
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes) or "" in self.classes:
            raise ConfigError(f"Taxonomy.classes = {list(classes)}: two names at least, each once, were expected.")
        *challenges, normal = self.classes
        for parameter, flags in (("vlm", self.vlm), ("cv", self.cv)):
            for flag, name in flags.items():
                if name not in challenges:
                    why = "is the last class, that of a frame without any" if name == normal else "is no class"
                    raise ConfigError(
                        f"Taxonomy.{parameter}: the flag '{flag}' means '{name}', which {why}. Expected one of "
                        f"{', '.join(challenges)}.{did_you_mean(name, challenges)}"
                    )
        runs = [name for name, _ in itertools.groupby(self.vlm.values())]
        for name in challenges:
            if runs.count(name) + (name in self.cv.values()) > 1:
                raise ConfigError(
                    f"Taxonomy: '{name}' has flags of different priority. Expected the flags of a class side by side in vlm, or "
                    "all of them in cv."
                )
            if name not in (*self.vlm.values(), *self.cv.values()):
                raise ConfigError(
                    f"Taxonomy.classes: no flag means '{name}'. Expected one in Taxonomy.vlm or Taxonomy.cv; the class of a "
                    "frame without any set flag stands last."
                )
        self.vlm_columns, self.cv_columns = (
            {flag: self.classes.index(name) for flag, name in flags.items()} for flags in (self.vlm, self.cv)
        )

    @property
    def challenges(self) -> tuple[str, ...]:
        """The names of all classes but the last, in their order."""
        return self.classes[:-1]

    def draw(self, columns: Sequence[bool], rng: np.random.Generator) -> int:
        """The class index of a frame whose classes but the last hold or not: columns [C - 1] bool."""
        for place in dict.fromkeys(self.vlm_columns.values()):
            if columns[place]:
                return place
        choices = [place for place in dict.fromkeys(self.cv_columns.values()) if columns[place]]
        return choices[rng.integers(len(choices))] if choices else len(self.classes) - 1

    def expected_counts(self, columns: np.ndarray) -> np.ndarray:
        """Columns [N, C - 1] bool of N frames -> [C] float: how many of them `draw` gives each class, on average."""
        counts, open_ = np.zeros(len(self.classes)), np.ones(len(columns), bool)
        for place in dict.fromkeys(self.vlm_columns.values()):
            counts[place] += (open_ & columns[:, place]).sum()
            open_ &= ~columns[:, place]
        places = list(dict.fromkeys(self.cv_columns.values()))
        choices = columns[open_][:, places]
        among = choices.sum(1)
        counts[places] += (choices / np.maximum(among, 1)[:, None]).sum(0)
        counts[-1] = (among == 0).sum()
        return counts

    def as_dict(self) -> dict[str, object]:
        """Its arguments, as JSON has them."""
        return {"classes": list(self.classes), "vlm": self.vlm, "cv": self.cv}

    def __eq__(self, other):
        return isinstance(other, Taxonomy) and repr(self) == repr(other)

    def __hash__(self):
        return hash(repr(self))

    def __repr__(self):
        return f"Taxonomy({', '.join(f'{name}={value}' for name, value in self.as_dict().items())})"


TEN = Taxonomy()
