"""A user-profile classifier for e-commerce, in the document's six steps, one module each.

collect -> preprocess -> features -> train -> evaluate -> deploy; ``__main__`` is the flow chart.
"""
