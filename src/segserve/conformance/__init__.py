"""The conformance kit: SageMaker's hosting contract as numbered checks against any running container."""
