"""remat"""
