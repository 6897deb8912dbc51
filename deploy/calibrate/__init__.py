"""Calibration of a camera's lens with pictures of a chessboard."""
