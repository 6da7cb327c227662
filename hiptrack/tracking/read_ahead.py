"""Frames decoded ahead of the tracker, in threads."""

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from hiptrack.data.reading import read_image_rgb

AHEAD = 3  # frames of a sequence that wait at most


class ReadAhead:
    """Decodes up to `ahead` frames of each of several sequences while the tracker works on those before; used within a `with`."""

    def __init__(self, sequences, ahead=AHEAD):
        """sequences: how many are read side by side; ahead: 0 decodes each frame when it is asked for."""
        self._pool, self._ahead = ThreadPoolExecutor(min(sequences, os.cpu_count() or 1), "decode"), ahead

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._pool.shutdown(cancel_futures=True)

    def frames(self, paths):
        """Yields the frames [H, W, 3] uint8 RGB of image files, in order.

        Raises DataError, when its turn has come, for a file that is missing or damaged.
        """
        waiting = deque()
        for path in paths:
            waiting.append(self._pool.submit(read_image_rgb, path))
            if len(waiting) > self._ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
