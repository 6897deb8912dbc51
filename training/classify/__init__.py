"""Training and evaluation of picture classifiers: labelled folders, networks, a loop that resumes, and the report."""
