"""How good predictions are: figures against gold paths or another model's, their intervals and calibration. Pure."""
