"""Training of the micro language model on text and on objects given as symbols."""
