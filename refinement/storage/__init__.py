"""Files of a store: rows, shards, indices, the manifest, and the identity of the refiner."""
