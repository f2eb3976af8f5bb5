"""A user-profile classifier for e-commerce, in six steps, one module each; docs/example.md names the document they follow.

collect -> preprocess -> features -> train -> evaluate -> deploy; ``__main__`` is the flow chart. Beside them: reasons, profiles
and targeting (what a score means), update and live (how a model is kept), report (what others read).
"""
