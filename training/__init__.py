"""Training, evaluation and export of models. The only package that uses Keras and TensorFlow, the extra ``train``."""
