"""stategrad"""
