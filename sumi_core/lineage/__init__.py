"""Where numbers come from: the project, its plan, MLflow, traces, reproduction, checks of what was computed."""
