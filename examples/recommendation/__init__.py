"""What a customer buys next, and what new they would like: candidates by simple exact methods, ranked by a network one can read.

collect -> events -> candidates -> pairs -> train -> evaluate -> recommend; ``__main__`` is the flow chart.
"""
