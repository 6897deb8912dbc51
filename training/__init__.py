"""Train, evaluate and export models. Keras and TensorFlow come with the extra ``train``, and only here."""
