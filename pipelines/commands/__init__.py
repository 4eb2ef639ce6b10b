"""The commands of ``sumi``, one file each."""
