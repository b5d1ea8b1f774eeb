"""Filtering of image-text pairs at scale: rules, decisions by shard, duplicates over all shards, kept samples."""
