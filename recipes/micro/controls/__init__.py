"""Controls of the micro model: what its answers are worth without the refiner, without the whole view, and so on."""
