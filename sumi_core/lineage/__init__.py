"""Where numbers come from: fingerprints, the artifact store with its manifests, provenance, and MLflow."""
