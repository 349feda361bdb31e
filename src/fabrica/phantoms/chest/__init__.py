"""Chest radiographs from an analytic thorax."""
