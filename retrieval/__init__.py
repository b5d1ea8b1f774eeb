"""Retrieval with a trained first stage: embeddings and scores of images and texts, and search in images.

`load_encoder` loads a first stage, `PictureSearch` searches, and `evaluate_retrieval` measures recall.
"""

from .contact_sheet import draw_contact_sheet
from .encoder import PairEncoder
from .evaluation import RetrievalResult, evaluate_retrieval
from .index import EmbeddingIndex, EmbeddingIndexError
from .loading import load_encoder
from .search import Hit, PictureSearch
from .tasks import evaluate_tasks, parse_retrieval_words

__all__ = [
    "EmbeddingIndex",
    "EmbeddingIndexError",
    "Hit",
    "PairEncoder",
    "PictureSearch",
    "RetrievalResult",
    "draw_contact_sheet",
    "evaluate_retrieval",
    "evaluate_tasks",
    "load_encoder",
    "parse_retrieval_words",
]
