"""Publishing on and loading from a Hub that runs in the tests."""

PUBLISHED = "IDEA-CCNL/Ziya-Visual-Lyrics-14B"
STRATEGIES = ("end", "every_save", "checkpoint", "all_checkpoints")
CHECKPOINTS = {"checkpoint": "last-checkpoint", "all_checkpoints": "checkpoint-1"}  # folders after a run of one step
# Kinds of runs beside that of an adapter, and a strategy for each; the slow tests try each with all.
OTHERS = (("dpo", "all_checkpoints"), ("full", "every_save"), ("first", "checkpoint"))
