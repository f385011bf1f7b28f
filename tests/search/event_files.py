"""Reads TensorBoard's event files, independently of what writes them."""

import struct

import pytest
from tensorboardX.proto.event_pb2 import Event


def crc32c(data):
    """The checksum of TFRecord files, bit by bit (RFC 3720, appendix B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_events(path):
    """The records of an event file, each one's length and content checked."""
    content = path.read_bytes()
    events = []
    while content:
        length, length_crc = struct.unpack("<QI", content[:12])
        data, (data_crc,) = (
            content[12 : 12 + length],
            struct.unpack_from("<I", content, 12 + length),
        )
        assert (length_crc, data_crc) == (masked(content[:8]), masked(data))
        events.append(Event.FromString(data))
        content = content[16 + length :]
    return events


def scalars(path):
    return [
        (event.step, value.tag, pytest.approx(value.simple_value))
        for event in read_events(path)
        for value in event.summary.value
        if value.HasField("simple_value")
    ]
