"""Has a bug, some way into a function of its own."""

import pulumi_aws as aws

aws.sqs.Queue("queue")


def arithmetic(replicas: int) -> int:
    return replicas // 0


arithmetic(3)
