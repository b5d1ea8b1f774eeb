"""Canonical rows as mappings: the facts of a record, where it comes from, and messages that can be trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from .formats import Row
from .messages import messages_of
from .reading import CatalogReader

CAPTION_TASKS = ("caption", "detailed_caption", "grounded_caption")


def facts(row: Row, reader: CatalogReader) -> dict[str, Any]:
    """Return the facts of a row, as they are stored: everything but the messages that can be written from them."""
    data = reader.format
    fields = asdict(row)
    del fields["groups"]
    fields["messages"] = [{**message, "content": list(map(_block, message["content"]))} for message in row.messages]
    about = {"dataset": data.name, "split": reader.split, "license": data.license, "box_units": "relative"}
    return about | fields


def canonical(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts with messages, and with `image` and `caption` for the first stage."""
    row = {**row, "messages": [_without_none(message) for message in row["messages"]]}
    row["messages"] = messages_of(row)
    row["image"] = row["images"][0] if row["images"] else None
    row["caption"] = list(row["answers"]) if row["task"] in CAPTION_TASKS else None
    return row


def canonical_batch(batch: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Return rows as lists by column, as `canonical` makes them; a transform of the `datasets` library."""
    count = len(next(iter(batch.values())))
    rows = [canonical({name: values[number] for name, values in batch.items()}) for number in range(count)]
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else dict(batch)


def canonical_rows(reader: CatalogReader) -> Iterator[dict[str, Any]]:
    """Yield the canonical rows of a data set, read from its files."""
    return (canonical(facts(row, reader)) for row in reader)


def _block(block: Mapping[str, Any]) -> dict[str, Any]:
    """Return a block with every key, as Arrow stores it."""
    return {name: block.get(name) for name in ("type", "text", "box", "label", "image")}


def _without_none(message: Mapping[str, Any]) -> dict[str, Any]:
    content = [{name: value for name, value in block.items() if value is not None} for block in message["content"]]
    return {**message, "content": content}
