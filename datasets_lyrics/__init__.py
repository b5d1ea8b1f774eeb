"""The one way to open data: files, folders, tar shards, saved data sets, Hub ids and drawn shapes."""
