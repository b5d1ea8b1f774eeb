"""Engines that refine the shards of a data set: local processes and Ray Data."""
