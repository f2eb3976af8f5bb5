"""One module a library: how its users would do a task when they know it well. A module that can't be imported is skipped.

Each has functions named after the tasks of ``worker``: they take a case, prepare, and return a function that does one
measurement. What is drawn (data, initial weights, permutations) is drawn by NumPy, the same for all but the permutations
of Keras and scikit-learn.
"""
