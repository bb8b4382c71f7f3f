"""Refuses a value that is known only once a provider has answered."""

import pulumi
import pulumi_aws as aws


def checked(name: str) -> str:
    raise pulumi.RunError(f"the name {name} is not allowed")


queue = aws.sqs.Queue("queue", name="given")
pulumi.export("name", queue.name.apply(checked))
