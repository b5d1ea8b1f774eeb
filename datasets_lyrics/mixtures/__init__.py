"""Mixtures of data sets: wordings, sampling by (seed, epoch, position), packing, and the check for contamination."""
