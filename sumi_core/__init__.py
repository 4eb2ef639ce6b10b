"""The science of Sumi: corruption processes, objectives, denoisers, samplers, their data, evaluation and lineage."""
