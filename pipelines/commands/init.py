"""``sumi init``."""

from sumi_core.lineage.project import Project


def init_command() -> None:
    """Create .sumi/: Dagster's instance, MLflow's database, the artifact store. Repeating it changes nothing."""
    from pipelines.instance import initialise

    project = Project.find()
    initialise(project)
    print(f"ready: {project.home}")
