"""A record's data: its document, and whether the data has changed since."""

from __future__ import annotations

import os
from dataclasses import replace

from sharedattn.data import DataConfig, DataSource, reopen_data
from sharedattn.data.source import SplitName
from sharedattn.errors import InputError
from sharedattn.results.records import Document
from sharedattn.search.data_plan import absolute


def data_document(source: DataSource) -> Document:
    """The document that describes data in the database and in exports."""
    splits: tuple[SplitName, ...] = ("train", "validation", "test")
    counts = {split: source.class_counts(split) for split in splits}
    return {
        "name": source.name,
        "config": source.config.to_json(),
        "fingerprint": source.fingerprint,
        "identity": source.identity,
        "images": {split: source.num_images(split) for split in splits},
        "class_counts": {s: list(count) for s, count in counts.items() if count is not None},
        "classes": None if source.class_names is None else list(source.class_names),
        "origins": source.origins,
        "notes": list(source.notes),
        "pixels": (
            None
            if source.pixels is None
            else {
                "image_size": source.image_size.to_json(),
                "in_chans": source.in_chans,
                **source.pixels.to_json(),
            }
        ),
    }


def open_recorded(
    document: Document,
    what: str,
    *,
    data: str | None = None,
    data_root: str | None = None,
    check: bool = True,
) -> DataSource:
    """Open the data of a record, as it is now.

    Args:
        document: the record's description of its data; see `data_document`.
        what: the record, for messages.
        data: where its data is now, or None if it has not moved.
        data_root: folder of a named data set, or None if it has not moved.
        check: whether to refuse data that differs from the record's.

    Raises:
        InputError: the data is missing or differs from the record's.
    """
    config = DataConfig.from_json(document.get("config", {}))
    if data is not None:
        config = replace(config, name=absolute(data))
    if data_root is not None:
        config = replace(config, root=os.path.abspath(data_root))
    try:
        source = reopen_data(config)
    except InputError as error:
        if data is not None:
            raise
        raise InputError(f"{error}; say by --data where the data of {what} is now") from error
    if check:
        refuse_other_data(source, document, what)
    return source


def differences(source: DataSource, recorded: Document) -> list[str]:
    """Describe briefly each difference between data and its recorded document.

    Args:
        source: the current data.
        recorded: its recorded document; see `data_document`.
    """
    if recorded.get("fingerprint") in (None, source.fingerprint):
        return []
    found = content_differences(source, recorded)
    now, then = (
        document.get("transform", {})
        for document in (source.identity, recorded.get("identity", {}))
    )
    if isinstance(now, dict) and isinstance(then, dict):
        found += [
            f"{name} is {now.get(name)} now and was {value}"
            for name, value in then.items()
            if now.get(name) != value
        ]
    return found or ["it is another data set"]


def content_differences(source: DataSource, recorded: Document) -> list[str]:
    """Describe differences between the data's images and the recorded ones, except pixels.

    Args:
        source: the current data.
        recorded: its recorded document; see `data_document`.
    """
    now, then = source.identity, recorded.get("identity", {})
    found: list[str] = []
    if "classes" in then and now.get("classes") != then["classes"]:
        found.append(_class_difference(now.get("classes") or [], then["classes"]))
    same_classes = not found
    for split in ("train", "validation", "test"):
        images = [document.get("images", {}).get(split, 0) for document in (now, then)]
        if images[0] != images[1]:
            found.append(f"{split} has {images[0]:,} images now and had {images[1]:,}")
            continue
        for part, what in (("files", "names, sizes or classes"), ("contents", "contents")):
            ours, theirs = ((document.get(part) or {}).get(split) for document in (now, then))
            if same_classes and ours != theirs:
                found.append(f"the images of {split} have other {what} than then")
                break
    if same_classes and now.get("labels") != then.get("labels"):
        found.append("its masks or boxes are other ones than then")
    return found


def refuse_other_data(source: DataSource, recorded: Document, what: str) -> None:
    """Check that data is the data of a record.

    Args:
        source: the current data.
        recorded: its recorded document; see `data_document`.
        what: the record, for the message.

    Raises:
        InputError: the data differs; the message says how.
    """
    if found := differences(source, recorded):
        raise InputError(
            f"`--data`: {source.name} is not the data of {what}: {'; '.join(found)}; put it back "
            f"as it was, or say by --data where that data is now"
        )


def _class_difference(now: list[str], then: list[str]) -> str:
    gone = [name for name in then if name not in set(now)]
    new = [name for name in now if name not in set(then)]
    parts = [f"lacks the class {gone[0]}"] if gone else []
    parts += [f"has a new class {new[0]}"] if new else []
    return " and ".join(parts) if parts else "its classes have another order"
