"""The editor of rules and masks on the picture of a camera, with a trial on stored results before saving."""
