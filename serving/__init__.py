"""Serving: one object behind the command line, the page and the server, which answers questions about images."""

from ..processing_lyrics.byte_cache import CacheStats
from .answer import Answer
from .answer_stream import AnswerStream
from .answering import CacheLimits
from .assistant import Lyrics
from .chat import Chat
from .engine import BusyError, ClosedError
from .generation_options import GenerationOptions
from .refined_pictures import NoticeCheck

__all__ = [
    "Answer",
    "AnswerStream",
    "BusyError",
    "CacheLimits",
    "CacheStats",
    "Chat",
    "ClosedError",
    "GenerationOptions",
    "Lyrics",
    "NoticeCheck",
]
