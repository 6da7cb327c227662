"""Writes a contact sheet of the procedural world: frames of scenes with the target's box, and crops as they are trained on."""

import argparse
from itertools import chain
from pathlib import Path

import numpy as np

from hiptrack.errors import ConfigError
from hiptrack.extras.world import shapes, textures
from hiptrack.extras.world.scene import render
from hiptrack.extras.world.world import World
from hiptrack.pictures import Shot, picture_sheet, write_jpeg

CELL = (200, 132)
SCENES_A_ROW = 2
MOST_SCENES = 400  # a JPEG has 65,535 lines at most
SEARCH_FACTOR, SEARCH_SIZE = 4.0, 128


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", metavar="FILE", required=True, help="the JPEG file")
    parser.add_argument("--scenes", metavar="N", type=int, default=14, help="number of scenes (default 14)")
    parser.add_argument("--first", metavar="N", type=int, default=0, help="number of the first one (default 0)")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of the world (default 0)")
    parser.add_argument("--held-out", action="store_true", help="of the textures and shapes kept for validation")
    parser.add_argument("--sea", metavar="SHARE", type=float, default=0.0, help="share of them at sea (default 0)")
    arguments = parser.parse_args()
    if (
        min(arguments.seed, arguments.first) < 0
        or not 1 <= arguments.scenes <= MOST_SCENES
        or not 0 <= arguments.sea <= 1
    ):
        raise ConfigError(
            f"--seed {arguments.seed} --first {arguments.first} --scenes {arguments.scenes} --sea {arguments.sea}: at least 0 "
            f"and 0, 1 to {MOST_SCENES}, and a share from 0 to 1 were expected."
        )
    families = (list(textures.HELD_OUT), list(shapes.HELD_OUT)) if arguments.held_out else (None, None)
    world = World(seed=arguments.seed, canvas=128, textures=families[0], shapes=families[1], sea=arguments.sea)
    shots = [scene_shots(world, arguments.first + number) for number in range(arguments.scenes)]
    rows = [list(chain(*shots[start : start + SCENES_A_ROW])) for start in range(0, len(shots), SCENES_A_ROW)]
    write_jpeg(picture_sheet(rows, CELL), Path(arguments.out))
    print(f"{arguments.out}: {arguments.scenes} scenes")
    return 0


def scene_shots(world, number):
    """Two frames of a scene with the box and the challenges, and the search crop of the second."""
    sequence = world.sequences[number]
    seen = np.flatnonzero(sequence.visible)
    early, late = (int(seen[int(share * (len(seen) - 1))]) for share in (0.1, 0.7))
    shots = []
    for frame in (early, late):
        held = [
            name.replace("_", " ")
            for name, flag in zip(sequence.taxonomy.challenges, sequence.labels.flags[frame])
            if flag
        ]
        caption = held[0] + f" +{len(held) - 1}" * (len(held) > 1) if held else "normal"
        shots.append(Shot(render(sequence.scene, frame), sequence.boxes_xywh[frame], None, caption))
    crop = sequence.frames[late].crop(sequence.boxes_xywh[late], SEARCH_FACTOR, SEARCH_SIZE)
    return [*shots, Shot(crop, None, None, f"scene {number}")]
