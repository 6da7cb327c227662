"""Whether a video file is whole, by what its container says of its own size. OpenCV reads a cut one without a word."""

import os
import re
import struct

HEAD = 2**16  # bytes in which that stands
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # Matroska and WebM (RFC 9559): elements of the top level
FLV, FLV_TAGS = b"FLV\x01", (8, 9, 18)  # the kinds of its tags: sound, pictures, data
ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")  # wmv
ASF_FILE = re.compile(re.escape(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")) + b".{24}(.{8}).{40}(.)", re.DOTALL)
FLV_FILE = re.compile(b"\x00\x08file[sS]ize\x00(.{8})", re.DOTALL)
TS_PACKETS = {188: 0, 192: 4}  # bytes of a packet of MPEG-TS (ISO/IEC 13818-1; 192: M2TS) -> place of its sync byte
TS_SYNC = 0x47


def missing_bytes(path: str | os.PathLike) -> int | None:
    """How many bytes the end of a video file lacks, at least; 0 for a whole one, None where its container does not say.

    A container that was written to a stream, or by a program that was killed, does not say. mp4, mov and avi do not either:
    they count their frames.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(HEAD)
        if head.startswith(EBML):
            end = _end_of_segment(head)
        elif head.startswith(FLV):
            end = _end_of_tags(file, head, size)
        elif head.startswith(ASF):
            end = _end_of_asf(head)
        else:
            end = _end_of_packets(head, size)
    return None if end is None else max(0, end - size)


def _end_of_segment(head):
    """Where the first Segment of Matroska ends; None where its size is not known."""
    place = 0
    while place + 12 <= len(head):
        name, place = head[place : place + 4], place + 4
        width = 9 - head[place].bit_length()  # of the number, whose first bit that is set says it
        if width > 8:
            return None
        number = int.from_bytes(head[place : place + width], "big") & (1 << 7 * width) - 1
        place += width
        if name == SEGMENT:
            return None if number == (1 << 7 * width) - 1 else place + number
        place += number
    return None


def _end_of_tags(file, head, size):
    """Where FLV (Adobe's specification, version 10.1) says that it ends, or the tag that the file ends in; None if damaged."""
    if found := FLV_FILE.search(head):
        told = _double(found[1])
        if told > size:
            return told
    place = int.from_bytes(head[5:9], "big") + 4
    while place < size:
        file.seek(place)
        kind, length = file.read(1)[0] & 0x1F, file.read(3)
        if kind not in FLV_TAGS:
            return None
        place += 11 + int.from_bytes(length, "big") + 4
    return place


def _double(data):
    (number,) = struct.unpack(">d", data)
    return int(number) if 0 <= number < 2**53 else 0


def _end_of_asf(head):
    """The file size in ASF's File Properties Object (specification, section 3.2); None for a broadcast."""
    found = ASF_FILE.search(head)
    return int.from_bytes(found[1], "little") if found and not found[2][0] & 1 else None


def _end_of_packets(head, size):
    """The end of the packet of MPEG-TS that the file ends in; None for a whole one, after which others may be missing."""
    for packet, sync in TS_PACKETS.items():
        if len(head) > 3 * packet and all(head[sync + number * packet] == TS_SYNC for number in range(3)):
            return -(-size // packet) * packet if size % packet else None
    return None
