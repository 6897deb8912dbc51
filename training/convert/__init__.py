"""Conversion of Keras files and TensorFlow SavedModels to ONNX, in a child process with limited memory and processor
time."""
