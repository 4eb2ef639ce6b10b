"""Comparisons of finished models: tables, differences, findings, pages, studies."""
