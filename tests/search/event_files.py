"""Reads TensorBoard's event files, which tensorboardX writes but does not read."""

import struct

import pytest
from tensorboardX.proto.event_pb2 import Event


def read_events(folder):
    """The records of a trial's event files, in the order of their names: of time."""
    events = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            # Length and its checksum, the record, and its checksum.
            (length,) = struct.unpack_from("<Q", content)
            events.append(Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return events


def scalars(folder):
    return [
        (event.step, value.tag, pytest.approx(value.simple_value))
        for event in read_events(folder)
        for value in event.summary.value
        if value.HasField("simple_value")
    ]
