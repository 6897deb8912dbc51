"""Sensor rules, one module each. A module in this folder is found as a rule without being registered elsewhere."""
