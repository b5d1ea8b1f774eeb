"""Training rows: their order, length, truncation and augmentation."""
