"""Export of a model to a folder that is ready for the Hub."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import safe_open

from ..modeling_lyrics.checkpoint_files import naming, read_object
from ..processing_lyrics import LyricsProcessor
from ..processing_lyrics.protocols import Refiner
from ..utils.model_card import (
    CARD,
    FOLLOWS,
    PUBLISHED_LICENSE,
    BaseModel,
    CardFacts,
    find_hub_id,
    is_by_hand,
    is_hub_id,
    read_metadata,
    write_card,
)
from ..utils.model_folder import holds_model, write_model
from ..utils.published_files import TOKENIZERS, check_nothing_private, list_published, rewrite_json, without_machine
from .card_facts import name_of_folder
from .remote_code import add_remote_code, has_remote_code

ADAPTER_CONFIG, _DETAILS = "adapter_config.json", "lyrics_adapter.json"
WITHOUT_REFINER = "none"
_UNDER_GPL = (PUBLISHED_LICENSE, "agpl-3.0")  # licences that GPL-3.0 allows for what was made of it


def export_model(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    repo_id: str | None = None,
    remote_code: bool = False,
    base_model: str | None = None,
    refiner: str | os.PathLike[str] | Refiner | None = None,
    license: str | None = None,
    language: Sequence[str] = (),
    link: bool = False,
) -> list[Path]:
    """Write a model or an adapter as it is published: weights, processor, refiner, tokenizers, and its card.

    Optimizer states, checkpoints, logs and pickled arguments stay behind, and so does every path of this machine. No
    weight is loaded.

    Args:
        source: folder of a model, a first stage or an adapter in this package's layout.
        out: empty or new folder.
        repo_id: Hub id that the model will have, for its quick start.
        remote_code: bool, whether the modules of the model are written beside its weights.
        base_model: Hub id of the base model; an adapter needs it if its base model is a folder.
        refiner: refiner, or folder or Hub id of its checkpoint, where the source has none; `"none"` leaves it out.
        license: licence by the Hub's name, instead of that of the card.
        language: ISO 639 codes of the languages that the model answers in.
        link: bool, whether weights may be hard links to those of the source, in a folder that is soon
            removed.

    Returns:
        The files, relative to `out`, in their order.

    Raises:
        ValueError: `out` holds files, the source is no model in this layout, something is missing that a reader needs,
            a value is none that the Hub knows, or a file names this machine.
    """
    source, out = Path(source), Path(out)
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f"{out} holds files, and a model is written to an empty or new folder.")
    _require_model(source)
    is_adapter = not (source / "config.json").is_file()
    remote_code = remote_code or has_remote_code(source)  # of an exported directory, the code is written anew
    _require_license(source, license)
    name = name_of_folder(out) if repo_id is None else repo_id
    facts = _describe(source, is_adapter, name, base_model, keeps_bases=license is not None)
    _require_effect(source, license=license, language=language, base_model=None if is_adapter else base_model)
    facts = replace(facts, place=repo_id or ".", license=license, language=language, has_remote_code=remote_code)
    _require_refiner(source, is_adapter, refiner)
    left = "refiner" if refiner == WITHOUT_REFINER else ""
    with write_model(out) as folder:
        for path in list_published(source, is_adapter):
            if path.parts[0] == left:
                continue
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            copy_file(source / path, folder / path, link)
        if is_adapter:
            name_base(folder, str(facts.bases[0].hub_id))
        else:
            _complete_refiner(source, folder, refiner)
        if remote_code:
            add_remote_code(folder)
        _write_card(source, folder, facts)
        base = _find_base(source) if is_adapter else None
        places = [base] if base is not None and os.path.isabs(base) else []
        check_nothing_private(folder, [f"{source.absolute()}", f"{out.absolute()}", *places])
        return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def _require_model(source: Path) -> None:
    """Raise a `ValueError` for a folder that is no complete model in this package's layout, with what to do."""
    if not source.is_dir():
        raise ValueError(f"There is no folder {source}. What is on the Hub already is not exported.")
    if not holds_model(source):
        raise ValueError(
            f"{source} holds no model: it has neither config.json nor adapter_config.json. The folder of a run holds "
            "one after `save_model`; each of its checkpoints is a model too."
        )
    if not (source / "processor_config.json").is_file():
        advice = (
            "convert it first (`lyrics convert`)" if (source / "vicuna-13b_processor").is_dir() else "save it there"
        )
        raise ValueError(f"{source} holds no processor of this package (processor_config.json): {advice}.")
    if not any(source.glob("*model*.safetensors")):
        raise ValueError(f"{source} holds no weights as safetensors: save the model again with `save_pretrained`.")
    _require_complete(source)


def _require_complete(source: Path) -> None:
    """Raise a `ValueError` that names the first file of a model that is missing or damaged."""
    for name in ("config.json", "processor_config.json", ADAPTER_CONFIG, _DETAILS, "refiner/config.json"):
        if (source / name).is_file():
            read_object(source / name)
    index = source / "model.safetensors.index.json"
    shards = read_object(index).get("weight_map", {}).values() if index.is_file() else ()
    for place, what in ((source, "of the language model"), (source / "mqformer_tokenizer", "of the MQ-Former")):
        if not any((place / name).is_file() for name in TOKENIZERS):
            raise ValueError(f"{source} holds no tokenizer {what}: save the processor there (`save_pretrained`).")
    if (source / "refiner" / "config.json").is_file() and not any((source / "refiner").glob("*.safetensors")):
        raise ValueError(f"{source} holds no weights of the refiner (refiner/model.safetensors): save it there again.")
    weights = {*source.glob("*model*.safetensors"), *source.glob("refiner/*.safetensors")}
    for path in sorted(weights.union(source / name for name in shards)):
        if not path.is_file():
            raise ValueError(f"{source} lacks {path.name}, which {index.name} names: copy or save the model again.")
        with naming(path), safe_open(path, "pt"):  # reads the header, and compares it with the size of the file
            pass


def _require_effect(source: Path, **options: Any) -> None:
    """Raise a `ValueError` for options that would only change a card that a person wrote, which stays as it is."""
    card = source / CARD
    given = [name for name, value in options.items() if value]
    if given and card.is_file() and is_by_hand(card.read_text(encoding="utf-8")):
        raise ValueError(
            f"{card} was written by a person and stays as it is, so that {', '.join(given)} would have no effect: "
            "write it there, into the metadata at the beginning."
        )


def _describe(source: Path, is_adapter: bool, name: str, base_model: str | None, keeps_bases: bool) -> CardFacts:
    """Return the facts of the exported model's card.

    Args:
        source: folder of the model.
        is_adapter: bool, whether it is that of an adapter.
        name: name of the model.
        base_model: Hub id of the base model, or `None` for the one that is known.
        keeps_bases: bool, whether the base models of the present card are named again, since its licence is new.

    Raises:
        ValueError: `base_model` is no Hub id, or the base model of an adapter has none.
    """
    if base_model is not None and not is_hub_id(base_model):
        raise ValueError(f"The base model must be a Hub id (OWNER/NAME), got {base_model!r}.")
    known = _read(source / CARD)
    place = base_model
    if is_adapter:
        place = base_model or find_hub_id(_find_base(source))
        if place is None:
            raise ValueError(
                f"The base model of the adapter in {source} is a folder of this machine, which nobody else has: "
                "publish it first, and name it by its Hub id (--base-model OWNER/NAME). Or publish the merged model "
                "(`lyrics merge`)."
            )
    if place is not None and place == name:
        raise ValueError(f"{name} cannot be its own base model: give the adapter a repository of its own.")
    named = known.get("base_model") or []
    named = [named] if isinstance(named, str) else named
    places = [place] if place is not None else named if keeps_bases else []
    bases = [BaseModel(one, hub_id=one, license=_license_of(one, known)) for one in places]
    relation = ("adapter" if is_adapter else known.get("base_model_relation", "finetune")) if bases else None
    return CardFacts(name.split("/")[-1], bases=bases, relation=relation)


def _require_license(source: Path, license: str | None) -> None:
    """Raise a `ValueError` for another licence than GPL-3.0, where the model was made of weights under it."""
    card = source / CARD
    follows = card.is_file() and FOLLOWS in card.read_text(encoding="utf-8")
    if follows and license not in (None, *_UNDER_GPL):
        raise ValueError(
            f"The licence cannot be {license!r}: {card} says that the model was made of weights under GPL-3.0, which "
            "follows everything that is made of them. Leave --license out."
        )


def _license_of(base: str, known: dict[str, Any]) -> str | None:
    """Return the licence of the base model, or where nobody says, the one that the card had."""
    return BaseModel.find(base).license or known.get("license")


def _find_base(source: Path) -> str | None:
    """Return the place of an adapter's base model."""
    details = source / _DETAILS if (source / _DETAILS).is_file() else source / ADAPTER_CONFIG
    settings = json.loads(details.read_text(encoding="utf-8"))
    return settings.get("base_model", settings.get("base_model_name_or_path"))


def _read(card: Path) -> dict[str, Any]:
    """Return the metadata of a card; an empty dictionary where there is none."""
    return read_metadata(card.read_text(encoding="utf-8")) if card.is_file() else {}


def copy_file(source: Path, target: Path, link: bool) -> None:
    """Copy a file; of weights, `link` may make a hard link."""
    if link and source.suffix == ".safetensors":
        try:
            os.link(source.resolve(), target)
        except OSError:  # another disk, or one without links
            shutil.copyfile(source, target)
    else:
        shutil.copyfile(source, target)


def name_base(folder: Path, base_id: str) -> list[str]:
    """Write the Hub id of the base model into an adapter's files, drop the machine's settings, and name the files."""
    rewrite_json(folder / ADAPTER_CONFIG, base_model_name_or_path=base_id)
    if not (folder / _DETAILS).is_file():
        return [ADAPTER_CONFIG]
    details = json.loads((folder / _DETAILS).read_text(encoding="utf-8"))
    arguments = without_machine(details.get("arguments") or {})
    rewrite_json(folder / _DETAILS, base_model=base_id, arguments=arguments)
    return [ADAPTER_CONFIG, _DETAILS]


def _require_refiner(source: Path, is_adapter: bool, refiner: Any) -> None:
    """Raise a `ValueError` for a place of a refiner that would have no effect."""
    if not isinstance(refiner, str | os.PathLike) or refiner == WITHOUT_REFINER:
        return
    if is_adapter:
        raise ValueError(f"The refiner of the adapter in {source} is that of its base model: leave --refiner out.")
    if (source / "refiner" / "config.json").is_file():
        raise ValueError(f"{source} holds a refiner, so that {os.fspath(refiner)} would have no effect: leave it out.")


def _complete_refiner(source: Path, folder: Path, refiner: str | os.PathLike[str] | Refiner | None) -> None:
    """Write the refiner where the source has none.

    Raises:
        ValueError: it is missing, or is not the one that the processor was saved with.
    """
    recorded = json.loads((folder / "processor_config.json").read_text(encoding="utf-8")).get("refiner_fingerprint")
    if (folder / "refiner" / "config.json").is_file() or refiner == WITHOUT_REFINER:
        return
    if refiner is None:
        if recorded is not None:
            raise ValueError(
                f"{source} holds no refiner, and its processor was saved with one (fingerprint {recorded}): name the "
                f"checkpoint that holds it (--refiner DIR), or leave it out (--refiner {WITHOUT_REFINER})."
            )
        return
    found: Any = LyricsProcessor.from_pretrained(refiner).refiner if isinstance(refiner, str | os.PathLike) else refiner
    found.save_pretrained(folder / "refiner")
    fingerprint = found.config.fingerprint
    if recorded not in (None, fingerprint):
        where = f" of {os.fspath(refiner)}" if isinstance(refiner, str | os.PathLike) else ""
        raise ValueError(
            f"The refiner{where} has the fingerprint {fingerprint}, and the processor in {source} was "
            f"saved with {recorded}: it belongs to another model."
        )
    rewrite_json(folder / "processor_config.json", refiner_fingerprint=fingerprint)


def _write_card(source: Path, folder: Path, facts: CardFacts) -> None:
    """Refresh our card for its new place; that of a person stays as it is."""
    card = source / CARD
    if card.is_file() and is_by_hand(card.read_text(encoding="utf-8")):
        return
    (folder / CARD).unlink(missing_ok=True)
    write_card(folder, facts, earlier=card)
