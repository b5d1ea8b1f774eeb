"""File formats of a store: rows, shards, index and manifest, and the identity of its refiner."""
