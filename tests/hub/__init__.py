"""Publishing on and loading from a Hub that runs in the tests."""

PUBLISHED = "IDEA-CCNL/Ziya-Visual-Lyrics-14B"
STRATEGIES = ("end", "every_save", "checkpoint", "all_checkpoints")
