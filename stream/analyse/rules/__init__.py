"""Camera rules, with one module for each type of rule.

A module that is added to this folder, or to one of its folders, is found automatically, and needs no registration.
"""
