"""Training of forecast models: series, candidates, walk-forward evaluation, ONNX graphs and the report."""
