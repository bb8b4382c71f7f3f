"""Has a bug in a function that runs only when a value is known."""

import pulumi
import pulumi_aws as aws

queue = aws.sqs.Queue("queue", name="given")
pulumi.export("wrong", queue.name.apply(lambda name: {"given": 1}[name + "!"]))
