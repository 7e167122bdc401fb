"""How good predictions are: figures of predicted against gold paths, their intervals and calibration. Pure."""
