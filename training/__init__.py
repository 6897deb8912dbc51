"""Training, evaluation and export of models.

Only this package uses Keras and TensorFlow, which the optional dependencies ``train`` of the project install.
"""
