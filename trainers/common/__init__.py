"""What the trainers of both stages share: checkpoints, adapters, trainable parts, arguments, dry runs."""
