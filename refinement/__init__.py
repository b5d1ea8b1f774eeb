"""What the refiner saw, computed once and kept: stores, what fills them, and what both stand on."""

from .checking import StoreStats
from .errors import DuplicateKeyError, StaleStoreError, StoreError, TooManyFailuresError
from .estimates import Estimate, estimate
from .files import is_aside, remove_folder, remove_leftovers, sha256_of, write_file, write_folder
from .folder_lock import FolderLock, FolderLockedError
from .identity import RefinerIdentity
from .open_source import open_source
from .pictures import hash_picture
from .sources import Item, Source
from .store import RefinementStore
from .tar_shards import TarSample, TarShardError, count_samples, expand_braces, expand_shards, read_shard
from .writer import refine_dataset

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
