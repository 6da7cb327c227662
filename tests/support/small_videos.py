"""Tiny videos and folders of frames for the tests of tracking, and their contents read back. Pictures are RGB."""

import json

import cv2
import numpy as np
import pytest

from hiptrack.extras.video.track import track


def write_video(path, pictures_rgb, codec="mp4v", fps=10):
    height, width = pictures_rgb[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, (width, height))
    if not writer.isOpened():
        pytest.skip(f"OpenCV has no encoder for {codec} here")
    for picture in pictures_rgb:
        writer.write(np.ascontiguousarray(picture[..., ::-1]))
    writer.release()
    return path


def write_folder(path, pictures_rgb):
    """Names without leading zeros: their natural order is not the alphabet's."""
    path.mkdir()
    for number, picture in enumerate(pictures_rgb, 1):
        cv2.imwrite(str(path / f"frame{number}.png"), np.ascontiguousarray(picture[..., ::-1]))
    return path


def decoded(path):
    """Frames of a video as OpenCV decodes them, RGB, and its frame rate."""
    capture, pictures = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        pictures.append(read[1][..., ::-1])
    return pictures, capture.get(cv2.CAP_PROP_FPS)


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def fails(kind, message, request):
    with pytest.raises(kind) as raised:
        track(request)
    assert str(raised.value) == message
