"""cond"""
