"""while"""
