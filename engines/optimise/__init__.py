"""Smaller and faster versions of stored models: half precision, int8, and their comparison with the original."""
