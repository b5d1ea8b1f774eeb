"""Adapters through which the field's harnesses, lmms-eval and VLMEvalKit, run Lyrics."""
