"""Camera rules, one module each. A module that is put here is a rule: nothing else names it."""
