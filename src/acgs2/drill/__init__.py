"""Loads from outside, faults, and judgements read from the servers' data, never from our code."""
