"""Parts that the trainers of both stages share."""
