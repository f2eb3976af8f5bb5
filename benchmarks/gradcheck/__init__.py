"""Gradient checkers beside each other: what they find, what they accuse, and what it costs."""
