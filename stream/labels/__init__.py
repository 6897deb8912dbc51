"""Objects in stored results whose labels people check, and the choice of the most useful objects."""
