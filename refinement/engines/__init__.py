"""Engines that make the shards of a store: this process, local worker processes, and Ray Data."""
