"""Refinement: visual objects of data sets, computed once, and the stores that keep them."""

from ..datasets_lyrics.open_data import open_source
from ..datasets_lyrics.sources import Item, Source
from ..datasets_lyrics.webdataset import (
    TarSample,
    TarShardError,
    count_samples,
    expand_braces,
    expand_shards,
    read_shard,
)
from ..utils.atomic_files import is_aside, remove_folder, remove_leftovers, sha256_of, write_file, write_folder
from ..utils.folder_lock import FolderLock, FolderLockedError
from .dataset_writer import Estimate, estimate, refine_dataset
from .storage.errors import DuplicateKeyError, StaleStoreError, StoreError, TooManyFailuresError
from .storage.picture_hash import hash_picture
from .storage.refiner_identity import RefinerIdentity
from .store import RefinementStore, StoreStats

__all__ = [
    "DuplicateKeyError",
    "Estimate",
    "FolderLock",
    "FolderLockedError",
    "Item",
    "RefinementStore",
    "RefinerIdentity",
    "Source",
    "StaleStoreError",
    "StoreError",
    "StoreStats",
    "TarSample",
    "TarShardError",
    "TooManyFailuresError",
    "count_samples",
    "estimate",
    "expand_braces",
    "expand_shards",
    "hash_picture",
    "is_aside",
    "open_source",
    "read_shard",
    "refine_dataset",
    "remove_folder",
    "remove_leftovers",
    "sha256_of",
    "write_file",
    "write_folder",
]
