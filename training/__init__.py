"""Training, evaluation and export of models.

Only this package uses Keras and TensorFlow, which the extra ``train`` installs.
"""
