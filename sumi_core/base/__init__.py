"""What everything stands on: errors, typed options, registries, files, locks, hashes, statistics, text."""
