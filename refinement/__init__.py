"""What the refiner saw, computed once and kept: stores, and what fills them."""

from .files import is_aside, remove_folder, remove_leftovers, sha256_of, write_file, write_folder
from .folder_lock import FolderLock, FolderLockedError
from .tar_shards import TarSample, TarShardError, expand_shards, read_shard

__all__ = [
    "FolderLock",
    "FolderLockedError",
    "TarSample",
    "TarShardError",
    "expand_shards",
    "is_aside",
    "read_shard",
    "remove_folder",
    "remove_leftovers",
    "sha256_of",
    "write_file",
    "write_folder",
]
