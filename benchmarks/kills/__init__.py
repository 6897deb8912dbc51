"""Kills of an agent, and the judgement whether committed frames were lost."""
