"""Training of the micro refiner's parts: backbone, tagger, detector and segmenter."""
