"""The one way to open data: files, folders, tar shards, saved data sets and Hub ids."""
