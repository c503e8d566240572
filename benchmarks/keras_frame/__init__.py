"""Contenders of `frame_to_keras.py`, each a program of its own."""
