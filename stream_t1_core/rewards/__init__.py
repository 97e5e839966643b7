"""Rewards: score decoded frames; larger is better."""
