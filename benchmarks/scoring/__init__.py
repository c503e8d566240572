"""Who predicts on a frame of images in `inference.py`."""
